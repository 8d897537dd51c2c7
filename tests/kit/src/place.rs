//! Addresses that no two tests share.
//!
//! A port that was free a moment ago may be taken when the gateway binds it, by any outgoing connection. Every
//! gateway therefore gets a loopback address of its own: outgoing connections come from 127.0.0.1.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address nobody else uses: by process and by count.
pub fn own_ip() -> Ipv4Addr {
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = process::id().wrapping_mul(1021).wrapping_add(count) % 0x00fd_0000;
    // From 127.2.0.0 on, so that 127.0.0.1 and its neighbours stay out of it.
    Ipv4Addr::from(0x7f02_0000 + place)
}

/// A free port of `ip`.
pub fn free_port(ip: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a loopback address has free ports");
    listener.local_addr().expect("it is bound")
}

/// A path in the temporary directory, which ends in `name`, for a file that does not exist.
pub fn temporary(name: &str) -> PathBuf {
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ringway-{}-{count}-{name}", process::id()))
}

/// An address where connections are refused.
pub fn refusing() -> SocketAddr {
    SocketAddr::from((own_ip(), 9))
}
