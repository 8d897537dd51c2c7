//! Beside the halves that read and write a connection: sees the client close it, and closes it at once.

use std::io;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::net::{RecvFlags, recv};

/// A second and a third handle of a connection's socket: one the runtime waits on, one for the calls the
/// runtime does not have.
#[derive(Debug)]
pub(crate) struct CloseWatch {
    waited: TcpStream,
    socket: StdTcpStream,
}

impl CloseWatch {
    pub(crate) fn of(socket: &StdTcpStream) -> io::Result<CloseWatch> {
        Ok(CloseWatch { waited: TcpStream::from_std(socket.try_clone()?)?, socket: socket.try_clone()? })
    }

    /// Waits until the client closes or resets. Bytes of a next request end the watch: from there on a
    /// close cannot be seen before they are read.
    pub(crate) async fn closed(&self) {
        loop {
            if self.waited.readable(false).await.is_err() {
                return;
            }
            let mut byte = [0; 1];
            match recv(&self.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => return,
                Ok(_) => return std::future::pending().await,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Closes both directions now.
    pub(crate) fn shut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Makes the coming close a reset.
    pub(crate) fn reset(&self) {
        set_reset_on_close(&self.socket);
    }
}

/// Makes the close of `socket` a reset.
pub(crate) fn set_reset_on_close(socket: &StdTcpStream) {
    // Failing, it is an ordinary close.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
