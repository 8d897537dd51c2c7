//! What an exchange reads and writes: bytes in both directions, whatever carries them.
//!
//! Nothing here waits: moving bytes says at once what could be moved, and [`Socket::readable`] and
//! [`Socket::writable`] are waited for apart.

use std::io;

use monoio::net::TcpStream;

use crate::rt::tcp;

/// What a receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// The peer has closed its side.
    End,
    /// Nothing yet.
    WouldBlock,
}

/// One connection of an exchange, towards a client or a worker.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Plain TCP.
    Tcp(TcpStream),
}

// === impl Socket ===

impl Socket {
    /// Receives into a slice.
    pub(crate) fn recv(&self, into: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::recv(stream, into),
        }
    }

    /// Receives into the spare capacity of `into`, which must not be empty, and lengthens it.
    pub(crate) fn recv_spare(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::recv_spare(stream, into),
        }
    }

    /// Looks whether bytes or a close are waiting, without taking them.
    pub(crate) fn peek(&self) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::peek(stream),
        }
    }

    /// Sends what there is room for now; 0 when there is none. Whoever is told 0 sends the same bytes again.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => tcp::send(stream, bytes),
        }
    }

    /// Sends two pieces as one, as [`Socket::send`] does.
    pub(crate) fn send_two(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => tcp::send_two(stream, first, second),
        }
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Self::Tcp(stream) => tcp::shutdown_write(stream),
        }
    }

    /// Waits until there is something to receive, or nothing more will come.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            // Epoll must check readiness anew (`relaxed` is false), since reads happen behind the driver's back.
            Self::Tcp(stream) => stream.readable(false).await,
        }
    }

    /// Waits until there is room to send.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable(false).await,
        }
    }
}
