//! Listening sockets: one per shard on the same address, which the kernel balances (SO_REUSEPORT).

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

/// Connections the kernel queues per listener before it refuses; `net.core.somaxconn` may cut it.
const BACKLOG: i32 = 4096;

/// How long a port that is in use is tried again. The kernel takes a ring of a process that has just ended apart in
/// the background, and until then the listener in it holds the port: a restart must outlast that.
const IN_USE_WAIT: Duration = Duration::from_millis(500);
/// Pause between two tries.
const IN_USE_PAUSE: Duration = Duration::from_millis(5);

/// Binds `count` listeners to `address`. A first probe without SO_REUSEPORT makes a port that anyone else holds an
/// error, also when the holder would share it.
///
/// # Errors
/// When the address is not ours, or the port is taken and stays so for half a second.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let probe = probe(address)?;
    let port = probe.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port());
    drop(probe);
    let address = SocketAddr::new(address.ip(), port);
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
