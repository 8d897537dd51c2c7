//! The sending half of a connection, with the faults that happen there: dripping and closing early.

use std::future::Future;
use std::io;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoVecBuf};
use monoio::io::{AsyncWriteRent, OwnedWriteHalf};
use monoio::net::TcpStream;

/// Sends a connection's bytes.
#[derive(Debug)]
pub(crate) struct Writer {
    half: OwnedWriteHalf<TcpStream>,
    /// Length of the last piece, when bytes drip.
    drip: Option<usize>,
    /// Bytes that may still be sent before the connection closes.
    bytes_left: Option<usize>,
}

impl Writer {
    pub(crate) fn new(half: OwnedWriteHalf<TcpStream>) -> Writer {
        Writer { half, drip: None, bytes_left: None }
    }

    /// Every write leaves in pieces of 1 to 7 bytes from here on, or no longer.
    pub(crate) fn set_drip(&mut self, drips: bool) {
        self.drip = drips.then_some(0);
    }

    /// After `bytes` more bytes, writes fail.
    pub(crate) fn cut_after(&mut self, bytes: usize) {
        self.bytes_left = Some(bytes);
    }

    fn piece_bytes(&mut self, wanted: usize) -> io::Result<usize> {
        let mut bytes = wanted;
        if let Some(last) = self.drip {
            let next = last % 7 + 1;
            self.drip = Some(next);
            bytes = bytes.min(next);
        }
        if let Some(left) = &mut self.bytes_left {
            bytes = bytes.min(*left);
            *left -= bytes;
            if bytes == 0 && wanted > 0 {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault"));
            }
        }
        Ok(bytes)
    }
}

impl AsyncWriteRent for Writer {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        let wanted = buf.bytes_init();
        match self.piece_bytes(wanted) {
            Err(error) => (Err(error), buf),
            Ok(bytes) if bytes == wanted => self.half.write(buf).await,
            Ok(bytes) => {
                let (result, piece) = self.half.write(buf.slice(..bytes)).await;
                (result, piece.into_inner())
            }
        }
    }

    fn writev<T: IoVecBuf>(&mut self, buf: T) -> impl Future<Output = BufResult<usize, T>> {
        self.half.writev(buf)
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        self.half.flush()
    }

    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> {
        self.half.shutdown()
    }
}
