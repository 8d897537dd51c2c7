//! Listening sockets: one per shard on the same address, which the kernel balances (SO_REUSEPORT).

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::SockFilter;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

/// Connections the kernel queues per listener before it refuses; `net.core.somaxconn` may cut it.
const BACKLOG: i32 = 4096;

/// How long a port that is in use is tried again. The kernel takes a ring of a process that has just ended apart in
/// the background, and until then the listener in it holds the port: a restart must outlast that.
const IN_USE_WAIT: Duration = Duration::from_millis(500);
/// Pause between two tries.
const IN_USE_PAUSE: Duration = Duration::from_millis(5);

/// A socket that listens, and whether somebody else has it too.
#[derive(Debug)]
pub struct Listener {
    /// The socket; it does not block.
    pub socket: TcpListener,
    /// Whether a service manager holds it open beyond this process: what waits in it is not lost when it is closed
    /// here, and nothing may be changed about it.
    pub is_shared: bool,
}

// === impl Listener ===

impl Listener {
    /// The same socket once more.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, is_shared: self.is_shared })
    }

    /// Takes back what a process that ended did to have nobody else come.
    pub fn welcome_newcomers(&self) {
        // There is nothing to take back unless that process was told to end while it handed over.
        let _ = SockRef::from(&self.socket).detach_filter();
    }

    /// Has the kernel ignore whoever begins to connect from now on, while those who have begun come through. A client
    /// tries again a second later, and is then refused or finds the next process; without this it would be let in, and
    /// reset when the listener is closed.
    pub(crate) fn refuse_newcomers(&self) -> io::Result<()> {
        SockRef::from(&self.socket).attach_filter(&DROP_SYN)
    }
}

/// Flags byte of a TCP header.
const FLAGS_AT: u32 = 13;
const SYN: u32 = 0x02;
const SYN_ACK: u32 = 0x12;

/// A classic BPF program over the TCP header: drops segments with SYN and without ACK.
const DROP_SYN: [SockFilter; 5] = [
    // Load the flags byte; keep SYN and ACK; is it SYN alone? Then keep no byte of it, else all.
    SockFilter::new(0x30, 0, 0, FLAGS_AT),
    SockFilter::new(0x54, 0, 0, SYN_ACK),
    SockFilter::new(0x15, 0, 1, SYN),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Binds `count` listeners to `address`. A first probe without SO_REUSEPORT makes a port that anyone else holds an
/// error, also when the holder would share it.
///
/// # Errors
/// When the address is not ours, or the port is taken and stays so for half a second.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let probe = probe(address)?;
    let port = probe.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port());
    drop(probe);
    join(SocketAddr::new(address.ip(), port), count)
}

/// Binds `count` more listeners to an address where this gateway, or the one that it takes over from, listens already.
///
/// # Errors
/// When the address is not ours, or somebody else has the port.
pub fn join(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    (0..count)
        .map(|_| {
            let socket = socket(address, Sharing::Shared)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn probe(address: SocketAddr) -> io::Result<Socket> {
    let mut waited = Duration::ZERO;
    loop {
        match socket(address, Sharing::Exclusive) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waited < IN_USE_WAIT => {
                std::thread::sleep(IN_USE_PAUSE);
                waited += IN_USE_PAUSE;
            }
            result => return result,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    Shared,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A dual-stack listener answers IPv4 too, as `--host ::` promises.
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_even_if_its_holder_shares() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let held = bind(any, 2).expect("a free port");
        let address = held[0].local_addr().expect("bound");
        assert_eq!(held[1].local_addr().expect("bound"), address);
        assert_eq!(bind(address, 1).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
