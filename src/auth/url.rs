//! Where an issuer may be asked for its keys.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::control::destination;

/// A URL that may be fetched: https, or http on this machine; no private, shared or link-local address.
///
/// A name may lead into a private network, where fleets have their identity providers; where it may not lead is looked
/// at again when it is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenUrl(Url);

/// Why a URL may not be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenUrlError {
    NoUrl,
    UserInfo,
    Scheme,
    Address,
}

impl fmt::Display for TokenUrlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoUrl => "it is not a URL",
            Self::UserInfo => "the URL must not carry a user name or password",
            Self::Scheme => "the URL must be https, or http on localhost",
            Self::Address => "the URL must not name a private, shared or link-local address",
        })
    }
}

// === impl TokenUrl ===

impl TokenUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, TokenUrlError> {
        let url = Url::parse(text).map_err(|_| TokenUrlError::NoUrl)?;
        let host = url.host_str().ok_or(TokenUrlError::NoUrl)?.trim_end_matches('.');
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TokenUrlError::UserInfo);
        }
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if is_local => {}
            _ => return Err(TokenUrlError::Scheme),
        }
        let is_refused = !is_local && (address.is_some_and(is_near) || destination::is_metadata_name(host));
        if is_refused { Err(TokenUrlError::Address) } else { Ok(Self(url)) }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

/// Whether an address is one of a network that is not everybody's.
fn is_near(address: IpAddr) -> bool {
    let is_near = match destination::embedded_v4(address) {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            v4.is_private() || v4.is_loopback() || v4.is_unspecified() || v4.is_broadcast() || is_shared
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_multicast()
        }
    };
    is_near || destination::is_link_local_or_metadata(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_fetched_is_far_away_or_here() {
        for good in [
            "https://issuer.example/keys",
            "https://keycloak.auth.svc/realms/a",
            "https://8.8.8.8/",
            "http://localhost:8080/keys",
            "http://127.0.0.1:1/keys",
            "http://[::1]:1/keys",
            "https://localhost/keys",
        ] {
            assert!(TokenUrl::parse(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", TokenUrlError::NoUrl),
            ("issuer", TokenUrlError::NoUrl),
            ("file:///etc/passwd", TokenUrlError::NoUrl),
            ("http://issuer.example/", TokenUrlError::Scheme),
            ("ftp://issuer.example/", TokenUrlError::Scheme),
            ("http://localhost.evil.example/", TokenUrlError::Scheme),
            ("https://u:p@issuer.example/", TokenUrlError::UserInfo),
            ("https://10.0.0.1/", TokenUrlError::Address),
            ("https://172.16.0.1/", TokenUrlError::Address),
            ("https://192.168.1.1/", TokenUrlError::Address),
            ("https://100.64.0.1/", TokenUrlError::Address),
            ("https://169.254.169.254/latest", TokenUrlError::Address),
            ("https://2852039166/", TokenUrlError::Address),
            ("https://0.0.0.0/", TokenUrlError::Address),
            ("https://[fe80::1]/", TokenUrlError::Address),
            ("https://[fd00::1]/", TokenUrlError::Address),
            ("https://[::ffff:10.0.0.1]/", TokenUrlError::Address),
            ("https://metadata.google.internal/", TokenUrlError::Address),
            ("https://metadata.google.internal./", TokenUrlError::Address),
        ] {
            assert_eq!(TokenUrl::parse(bad), Err(error), "{bad}");
        }
    }
}
