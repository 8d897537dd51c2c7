//! What an exchange reads and writes: bytes in both directions, whatever carries them.
//!
//! Nothing here waits: moving bytes says at once what could be moved, and [`Socket::readable`] and
//! [`Socket::writable`] are waited for apart.

use std::future::poll_fn;
use std::io;
use std::io::IoSlice;

use monoio::net::TcpStream;

use crate::rt::pipe::Pipe;
use crate::rt::tcp;
use crate::rt::tls::Tls;

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
    /// TLS over TCP.
    Tls(Box<Tls>),
    /// One stream of an HTTP/2 connection, in the form of HTTP/1.1.
    Pipe(Pipe),
}

// === impl Socket ===

impl Socket {
    /// Receives into a slice.
    pub(crate) fn recv(&self, into: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::recv(stream, into),
            Self::Tls(tls) => tls.recv(into),
            Self::Pipe(pipe) => pipe.recv(into),
        }
    }

    /// Receives into the spare capacity of `into`, which must not be empty, and lengthens it.
    pub(crate) fn recv_spare(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::recv_spare(stream, into),
            Self::Tls(tls) => tls.recv_spare(into),
            Self::Pipe(pipe) => pipe.recv_spare(into),
        }
    }

    /// Looks whether bytes or a close are waiting, without taking them.
    pub(crate) fn peek(&self) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => tcp::peek(stream),
            Self::Tls(tls) => tls.peek(),
            Self::Pipe(pipe) => pipe.peek(),
        }
    }

    /// Sends what there is room for now; 0 when there is none. Whoever is told 0 and goes on sends the same bytes
    /// first.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => tcp::send(stream, bytes),
            Self::Tls(tls) => tls.send(&[IoSlice::new(bytes)]),
            Self::Pipe(pipe) => pipe.send(&[bytes]),
        }
    }

    /// Sends two pieces as one, as [`Socket::send`] does.
    pub(crate) fn send_two(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.send(&[first, second]),
            _ => self.send_pieces(&[IoSlice::new(first), IoSlice::new(second)]),
        }
    }

    /// Sends pieces as one, as [`Socket::send`] does.
    pub(crate) fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => tcp::send_pieces(stream, pieces),
            Self::Tls(tls) => tls.send(pieces),
            Self::Pipe(pipe) => pieces.first().map_or(Ok(0), |piece| pipe.send(&[piece])),
        }
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Self::Tcp(stream) => tcp::shutdown_write(stream),
            Self::Tls(tls) => tls.shutdown_write(),
            Self::Pipe(pipe) => pipe.shutdown_write(),
        }
    }

    /// Waits until there is something to receive, or nothing more will come.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            // Epoll must check readiness anew (`relaxed` is false), since reads happen behind the driver's back.
            Self::Tcp(stream) => stream.readable(false).await,
            // Boxed, so that an idle plain connection has no room set aside for it.
            Self::Tls(tls) => Box::pin(tls.readable()).await,
            Self::Pipe(pipe) => {
                poll_fn(|cx| pipe.poll_readable(cx)).await;
                Ok(())
            }
        }
    }

    /// Waits until there is room to send.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable(false).await,
            Self::Tls(tls) => tls.writable().await,
            Self::Pipe(pipe) => {
                poll_fn(|cx| pipe.poll_writable(cx)).await;
                Ok(())
            }
        }
    }
}
