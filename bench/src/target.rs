//! Where the load goes: a URL, taken apart and resolved once.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An `http://` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port as they stand in the URL, for the `host` header.
    pub authority: String,
    /// What precedes every path, without a final slash; mostly empty.
    pub base_path: String,
}

/// Why a URL is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTarget {
    url: String,
}

// === impl Target ===

impl Target {
    /// The first address the host resolves to.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let has_port = match self.authority.rfind(']') {
            Some(bracket) => self.authority[bracket..].contains(':'),
            None => self.authority.contains(':'),
        };
        let with_port = if has_port { self.authority.clone() } else { format!("{}:80", self.authority) };
        with_port.to_socket_addrs()?.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.authority))
        })
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(url: &str) -> Result<Target, BadTarget> {
        let bad = || BadTarget { url: url.to_owned() };
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(bad()),
            None => url,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(bad());
        }
        let path = path.trim_end_matches('/');
        let base_path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Target { authority: authority.to_owned(), base_path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority, self.base_path)
    }
}

impl fmt::Display for BadTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is not a target: give http://HOST:PORT", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        let target: Target = "http://[::1]:9000/base/".parse().expect("a target");
        assert_eq!((target.authority.as_str(), target.base_path.as_str()), ("[::1]:9000", "/base"));
        assert_eq!(target.resolve().expect("an address").port(), 9000);
        assert_eq!("127.0.0.1".parse::<Target>().expect("a target").to_string(), "http://127.0.0.1");
        assert!("https://a".parse::<Target>().is_err());
    }
}
