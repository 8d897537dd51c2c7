//! A socket as tokio's I/O traits, which the HTTP/2 library reads and writes.

use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::rt::socket::Received;
use crate::rt::socket::Socket;
use crate::rt::wait::Readiness;
use crate::rt::wait::Watch;

/// A socket, with bytes that were read from it before.
pub(crate) struct Io {
    socket: Rc<Socket>,
    early: Vec<u8>,
    early_read: usize,
    readable: Pin<Box<dyn Readiness>>,
    writable: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

// === impl Io ===

impl Io {
    pub(crate) fn new(socket: Rc<Socket>, early: Vec<u8>) -> Self {
        let watched = Rc::clone(&socket);
        let readable = Box::pin(Watch::new(move || {
            let socket = Rc::clone(&watched);
            async move { socket.readable().await }
        }));
        Self { socket, early, early_read: 0, readable, writable: None }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let early = &this.early[this.early_read..];
        if !early.is_empty() {
            let n = early.len().min(into.remaining());
            into.put_slice(&early[..n]);
            this.early_read += n;
            if this.early_read == this.early.len() {
                this.early = Vec::new();
                this.early_read = 0;
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.socket.recv(into.initialize_unfilled()) {
                Ok(Received::Bytes(n)) => {
                    into.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Received::End) => return Poll::Ready(Ok(())),
                Ok(Received::WouldBlock) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(this.readable.as_mut().poll_ready(cx))?;
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            if let Some(writable) = &mut this.writable {
                ready!(writable.as_mut().poll(cx))?;
                this.writable = None;
            }
            match this.socket.send_pieces(pieces)? {
                0 => {
                    let socket = Rc::clone(&this.socket);
                    this.writable = Some(Box::pin(async move { socket.writable().await }));
                }
                n => return Poll::Ready(Ok(n)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
