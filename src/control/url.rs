//! Worker URLs: which are accepted, and the parts that dialling one needs.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use fleet::snapshot::Transport;

use crate::control::limits::WORKER_URL_BYTES_MAX;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A worker's address as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerUrl {
    /// Whether it is `https://`.
    pub(crate) is_tls: bool,
    /// Scheme and host in lower case, the port as given, no trailing slash.
    pub(crate) text: Box<str>,
    /// Host without brackets: a name or an IP address.
    pub(crate) host: Box<str>,
    /// Port, 80 or 443 unless given.
    pub(crate) port: u16,
    /// Value of a Host header.
    pub(crate) authority: Box<str>,
    /// Path in front of every endpoint, empty for most.
    pub(crate) base_path: Box<str>,
    /// Which of the data-parallel ranks behind the address; none of an engine that has one.
    pub(crate) rank: Option<u16>,
}

/// Why a worker URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Nothing was given.
    Empty,
    /// Longer than any address.
    TooLong,
    /// No scheme that is known.
    Scheme,
    /// A scheme that is understood and not served.
    NotSupported(&'static str),
    /// No host.
    NoHost,
    /// User name or password in the URL.
    UserInfo,
    /// A host with characters no host has.
    Host,
    /// A port that is no number from 1 to 65535.
    Port,
    /// A path with characters that must be encoded.
    Path,
    /// A query or fragment.
    Query,
    /// A rank behind the address.
    Rank,
    /// A place where no worker may be.
    Destination,
}

// === impl UrlError ===

impl fmt::Display for UrlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "it is empty",
            Self::TooLong => "it is too long",
            Self::Scheme => "it must begin with http:// or https://",
            Self::NotSupported(scheme) => return write!(formatter, "{scheme} workers are not supported yet"),
            Self::NoHost => "it names no host",
            Self::UserInfo => "it must not carry a user name or password; give an API key instead",
            Self::Host => "the host is not valid",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::Path => "the path must be visible ASCII",
            Self::Query => "it must not have a query or fragment",
            Self::Rank => "it must not name a rank; with --dp-aware the worker is asked how many it has",
            Self::Destination => {
                "it names a link-local or metadata address, which needs --allow-link-local-workers"
            }
        })
    }
}

impl std::error::Error for UrlError {}

// === impl WorkerUrl ===

impl WorkerUrl {
    /// Reads a URL as users write it.
    ///
    /// # Errors
    /// Says what about it cannot be used.
    pub(crate) fn parse(given: &str) -> Result<Self, UrlError> {
        let url = Self::parse_unit(given)?;
        if url.rank.is_some() { Err(UrlError::Rank) } else { Ok(url) }
    }

    /// The same of a URL as it is shown: a unit with a rank of its own is `<url>@<rank>`.
    ///
    /// # Errors
    /// As [`WorkerUrl::parse`].
    pub(crate) fn parse_unit(given: &str) -> Result<Self, UrlError> {
        let given = given.trim();
        // What no host is called is a rank.
        let rank = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        match given.rsplit_once('@').and_then(|(address, text)| Some((address, rank(text)?))) {
            Some((address, rank)) => Ok(Self::parse_address(address)?.at_rank(Some(rank))),
            None => Self::parse_address(given),
        }
    }

    fn parse_address(given: &str) -> Result<Self, UrlError> {
        if given.is_empty() {
            return Err(UrlError::Empty);
        }
        if given.len() > WORKER_URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        let (scheme, rest) = given.split_once("://").ok_or(UrlError::Scheme)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            "grpc" | "grpcs" => return Err(UrlError::NotSupported("grpc://")),
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = host_and_port(authority)?;
        let authority = authority.to_ascii_lowercase();
        let base_path = base_path(path)?;
        Ok(Self {
            is_tls,
            text: format!("http{}://{authority}{base_path}", if is_tls { "s" } else { "" }).into(),
            host: host.to_ascii_lowercase().into(),
            port: port.unwrap_or(if is_tls { HTTPS_PORT } else { HTTP_PORT }),
            authority: authority.into(),
            base_path: base_path.into(),
            rank: None,
        })
    }

    /// The unit of this rank behind the same address.
    pub(crate) fn at_rank(&self, rank: Option<u16>) -> Self {
        let address = self.address();
        let text = rank.map_or_else(|| address.into(), |rank| format!("{address}@{rank}").into());
        Self { text, rank, ..self.clone() }
    }

    /// The URL of the engine, whose ranks share it.
    pub(crate) fn address(&self) -> &str {
        match self.rank {
            Some(_) => self.text.rsplit_once('@').map_or(&self.text, |(address, _)| address),
            None => &self.text,
        }
    }

    /// Whether it is a rank beside the registration itself, which is the first.
    pub(crate) fn is_further_rank(&self) -> bool {
        self.rank.is_some_and(|rank| rank > 0)
    }

    /// The address, if the host is one already and needs no look-up.
    pub(crate) fn literal_address(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// How it is spoken to. Without TLS, HTTP/2 is spoken only if the worker is known to.
    pub(crate) fn transport(&self, speaks_http2: bool) -> Transport {
        match (self.is_tls, speaks_http2) {
            (true, _) => Transport::Tls(self.host.clone()),
            (false, true) => Transport::PlainHttp2,
            (false, false) => Transport::Plain,
        }
    }

    /// What two spellings of the same worker share. The first rank is the registration itself.
    pub(crate) fn key(&self) -> Box<str> {
        let Self { host, port, base_path, .. } = self;
        match self.rank {
            Some(rank @ 1..) => format!("{host}:{port}{base_path}@{rank}").into(),
            Some(0) | None => format!("{host}:{port}{base_path}").into(),
        }
    }
}

/// A URL as given, for a message: without what may be a password or a key.
pub(crate) fn shown(given: &str) -> String {
    let given = given.trim();
    let (scheme, rest) = match given.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), given),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let user = if authority.contains('@') { "***@" } else { "" };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (path, query) = match path.find(['?', '#']) {
        Some(at) => (&path[..at], "?***"),
        None => (path, ""),
    };
    format!("{scheme}{user}{host}{path}{query}")
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            host.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
            let port =
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(UrlError::Host)?) };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if !authority.starts_with('[') && !is_host(host) {
        return Err(UrlError::Host);
    }
    Ok((host, port.map(port_number).transpose()?))
}

/// Whether `host` is a name that can be looked up, or a complete IPv4 address.
fn is_host(host: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // `127.1` would be read as an address by some resolvers and as a name by others.
    host.len() <= 253
        && host.bytes().all(is_name)
        && (!is_number || host.parse::<Ipv4Addr>().is_ok())
        && !ends_in_hexadecimal(host)
}

/// Whether the last part of a host is such as `0xa9fe`: some parsers of URLs take that for part of an address (WHATWG URL
/// §3.5), and would lead where the address itself is not let in.
fn ends_in_hexadecimal(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn port_number(text: &str) -> Result<u16, UrlError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0).ok_or(UrlError::Port)
}

fn base_path(path: &str) -> Result<&str, UrlError> {
    if path.contains(['?', '#']) {
        return Err(UrlError::Query);
    }
    let is_visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>');
    if path.bytes().all(is_visible) { Ok(path.trim_end_matches('/')) } else { Err(UrlError::Path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &str, text: &str, authority: &str, path: &str, port: u16) {
        let url = WorkerUrl::parse(given).expect(given);
        assert_eq!((&*url.text, &*url.authority, &*url.base_path, url.port), (text, authority, path, port));
    }

    #[test]
    fn urls_are_normalised() {
        check("http://10.0.0.1:8000", "http://10.0.0.1:8000", "10.0.0.1:8000", "", 8000);
        check(" HTTP://Worker-1:8000/ ", "http://worker-1:8000", "worker-1:8000", "", 8000);
        check("http://a/v/Base//", "http://a/v/Base", "a", "/v/Base", 80);
        check("HTTPS://A", "https://a", "a", "", 443);
        check("http://[::1]:9", "http://[::1]:9", "[::1]:9", "", 9);
        check("http://[fe80::1]", "http://[fe80::1]", "[fe80::1]", "", 80);
    }

    #[test]
    fn messages_show_no_password() {
        for (given, expect) in [
            ("http://a:1/v1", "http://a:1/v1"),
            (" nonsense ", "nonsense"),
            ("http://user:pass@a:1/v1", "http://***@a:1/v1"),
            ("user:p@ss@a", "***@a"),
            ("http://a/v1?api_key=sk#x", "http://a/v1?***"),
            ("http://a#sk", "http://a?***"),
        ] {
            assert_eq!(shown(given), expect);
        }
    }

    #[test]
    fn addresses_need_no_look_up() {
        let address = |given| WorkerUrl::parse(given).expect(given).literal_address();
        assert_eq!(address("http://127.0.0.1:9"), Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(address("http://[::1]:9"), Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 9))));
        assert_eq!(address("http://worker:9"), None);
    }

    #[test]
    fn spellings_of_one_worker_share_a_key() {
        let key = |given| WorkerUrl::parse(given).expect(given).key();
        assert_eq!(key("http://A"), key("http://a:80/"));
        assert_ne!(key("http://a/x"), key("http://a/y"));
    }

    #[test]
    fn ranks_are_units_of_one_address() {
        let unit = |given| WorkerUrl::parse_unit(given).expect(given);
        let (whole, first, second) = (unit("http://A:1/v"), unit("http://a:1/v@0"), unit("http://a:1/v@1"));
        assert_eq!(
            (&*second.text, second.address(), second.rank),
            ("http://a:1/v@1", "http://a:1/v", Some(1))
        );
        assert_eq!((second.at_rank(None), whole.at_rank(Some(0))), (whole.clone(), first.clone()));
        assert_eq!((first.key(), first.is_further_rank()), (whole.key(), false));
        assert_ne!(second.key(), whole.key());
        assert!(second.is_further_rank());
        assert_eq!(WorkerUrl::parse_unit("http://a:1@x"), Err(UrlError::UserInfo));
        assert_eq!(WorkerUrl::parse_unit("http://a:1@70000"), Err(UrlError::UserInfo));
        assert_eq!(WorkerUrl::parse_unit("http://u:p@1"), Err(UrlError::Port));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for (given, error) in [
            ("", UrlError::Empty),
            ("127.0.0.1:8000", UrlError::Scheme),
            ("ftp://a", UrlError::Scheme),
            ("httpss://a", UrlError::Scheme),
            ("grpc://a:1", UrlError::NotSupported("grpc://")),
            ("http://", UrlError::NoHost),
            ("http://:80", UrlError::NoHost),
            ("http:///x", UrlError::NoHost),
            ("http://u:p@a", UrlError::UserInfo),
            ("http://a:1@0", UrlError::Rank),
            ("http://a b", UrlError::Host),
            ("http://127.1", UrlError::Host),
            ("http://0xa9fea9fe", UrlError::Host),
            ("http://169.254.169.0xFE", UrlError::Host),
            ("http://a.0x.", UrlError::Host),
            ("http://[::1", UrlError::Host),
            ("http://[::1]x", UrlError::Host),
            ("http://[a]", UrlError::Host),
            ("http://a:", UrlError::Port),
            ("http://a:0", UrlError::Port),
            ("http://a:+1", UrlError::Port),
            ("http://a:65536", UrlError::Port),
            ("http://a/x y", UrlError::Path),
            ("http://a/\r\nx", UrlError::Path),
            ("http://a?x", UrlError::Query),
            ("http://a/x#y", UrlError::Query),
        ] {
            assert_eq!(WorkerUrl::parse(given), Err(error), "{given:?}");
        }
    }
}
