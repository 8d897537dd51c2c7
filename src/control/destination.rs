//! Where workers may be: anywhere but at link-local addresses and at the metadata services of clouds, from which a
//! gateway that asks wherever it is told could be made to fetch credentials.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::control::url::UrlError;
use crate::control::url::WorkerUrl;

/// Metadata services outside the link-local ranges: Alibaba's, Azure's and Oracle's.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// Amazon's.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
const METADATA_NAMES: [&str; 7] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "instance-data",
    "instance-data.ec2.internal",
];

/// Which addresses workers may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// Any that no cloud keeps secrets at.
    Usual,
    /// Any at all (`--allow-link-local-workers`).
    Any,
}

// === impl Destinations ===

impl Destinations {
    /// Whether a worker may be at this address.
    pub fn allows(self, address: IpAddr) -> bool {
        self == Self::Any || !is_link_local_or_metadata(address)
    }

    /// Refuses a worker whose URL names a place where none may be. Other names are looked at when they are resolved.
    pub(crate) fn check(self, url: &WorkerUrl) -> Result<(), UrlError> {
        let is_refused = self == Self::Usual
            && match url.literal_address() {
                Some(address) => is_link_local_or_metadata(address.ip()),
                None => is_metadata_name(&url.host),
            };
        if is_refused { Err(UrlError::Destination) } else { Ok(()) }
    }
}

/// Whether a name is that of a metadata service.
pub(crate) fn is_metadata_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Whether an address is link-local or that of a metadata service, in any of its spellings.
pub(crate) fn is_link_local_or_metadata(address: IpAddr) -> bool {
    match embedded_v4(address) {
        IpAddr::V4(v4) => v4.is_link_local() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, or by a translator (RFC 6052).
pub(crate) fn embedded_v4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => address,
    }
}

fn v4(high: u16, low: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_in_networks_not_at_metadata_services() {
        let check =
            |destinations: Destinations, url: &str| destinations.check(&WorkerUrl::parse(url).expect(url));
        for good in [
            "http://127.0.0.1:1",
            "http://10.0.0.1",
            "http://192.168.0.1",
            "http://100.64.0.1",
            "http://[::1]",
            "http://[fd00::1]",
            "http://localhost",
            "http://metadata.example",
            "http://worker-1",
        ] {
            assert_eq!(check(Destinations::Usual, good), Ok(()), "{good}");
        }
        for bad in [
            "http://169.254.169.254",
            "http://169.254.0.1:8000/v1",
            "http://[fe80::1]:8000",
            "http://[febf::1]",
            "http://[::ffff:169.254.169.254]",
            "http://[::169.254.169.254]",
            "http://[64:ff9b::169.254.169.254]",
            "http://[fd00:ec2::254]",
            "http://100.100.100.200",
            "http://168.63.129.16",
            "http://192.0.0.192",
            "http://metadata.google.internal",
            "http://Metadata.Google.Internal.:80",
            "http://instance-data",
        ] {
            assert_eq!(check(Destinations::Usual, bad), Err(UrlError::Destination), "{bad}");
            assert_eq!(check(Destinations::Any, bad), Ok(()), "{bad}");
        }
    }
}
