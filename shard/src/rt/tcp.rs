//! Non-blocking sends and receives on a connected TCP socket.
//!
//! Waiting is the ring's work, moving bytes is a plain system call made when the socket is ready: no buffer is owned
//! by the kernel while a connection waits, so an idle connection holds none, and one scratch buffer serves a whole
//! shard. A send almost always finds room and completes without a trip through the loop.
#![expect(unsafe_code, reason = "a descriptor is lent to system calls that want a BorrowedFd")]

use std::io;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendFlags;

use crate::rt::socket::Received;

fn fd(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open as long as `stream`, which outlives the borrow returned.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

fn received(result: Result<usize, Errno>) -> io::Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(n) => Ok(Received::Bytes(n)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::WouldBlock),
        Err(error) => Err(error.into()),
    }
}

/// Receives into a slice.
pub(crate) fn recv(stream: &TcpStream, into: &mut [u8]) -> io::Result<Received> {
    received(rustix::net::recv(fd(stream), into, RecvFlags::DONTWAIT).map(|(n, _)| n))
}

/// Receives into the spare capacity of `into`, which must not be empty, and lengthens it.
pub(crate) fn recv_spare(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<Received> {
    debug_assert!(into.capacity() > into.len(), "room to receive");
    received(
        rustix::net::recv(fd(stream), rustix::buffer::spare_capacity(into), RecvFlags::DONTWAIT)
            .map(|(n, _)| n),
    )
}

/// Looks whether bytes or a close are waiting, without taking them.
pub(crate) fn peek(stream: &TcpStream) -> io::Result<Received> {
    received(
        rustix::net::recv(fd(stream), &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK)
            .map(|(n, _)| n),
    )
}

fn sent(result: Result<usize, Errno>) -> io::Result<usize> {
    match result {
        Ok(n) => Ok(n),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Sends what the socket takes now; 0 when it is full.
pub(crate) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    sent(rustix::net::send(fd(stream), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
}

/// Sends pieces as one, as much as the socket takes now; 0 when it is full.
pub(crate) fn send_pieces(stream: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sent(rustix::net::sendmsg(fd(stream), pieces, &mut SendAncillaryBuffer::default(), flags))
}

/// Tells the peer that nothing more will be sent.
pub(crate) fn shutdown_write(stream: &TcpStream) {
    // A socket that is already gone needs no goodbye.
    let _ = rustix::net::shutdown(fd(stream), rustix::net::Shutdown::Write);
}
