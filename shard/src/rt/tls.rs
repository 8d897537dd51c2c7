//! TLS over a TCP socket, without waiting: rustls does the protocol, plain system calls move its records.
//!
//! A send counts bytes as sent only once the kernel has every record that carries them. Until then it answers 0 and is
//! called again with the same bytes, so nothing is left behind when an exchange is over, and a slow peer is felt.

use std::cell::RefCell;
use std::io;
use std::io::BufRead;
use std::io::ErrorKind;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;

use monoio::net::TcpStream;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::Connection;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::pki_types::ServerName;

use crate::limits;
use crate::rt::socket::Received;
use crate::rt::tcp;

/// The name of HTTP/2 in ALPN.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Tls {
    tcp: TcpStream,
    session: RefCell<Session>,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    /// Bytes encrypted whose records the kernel has not all taken.
    taken: usize,
    /// The peer does not speak TLS, or not as it should; it stays so.
    is_broken: bool,
}

/// The socket as rustls sees it.
struct Records<'a>(&'a TcpStream);

impl Read for Records<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match tcp::recv(self.0, into)? {
            Received::Bytes(n) => Ok(n),
            Received::End => Ok(0),
            Received::WouldBlock => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match tcp::send_pieces(self.0, pieces)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shakes hands with a client.
///
/// # Errors
/// When the client leaves, does not speak TLS, or agrees to nothing we offer; it has been told by an alert.
pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Tls> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    shake_hands(tcp, Connection::Server(connection)).await
}

/// Shakes hands with a worker.
///
/// # Errors
/// When the worker leaves, does not speak TLS, or its certificate is not good for `name`: then the error's inner error
/// is rustls's.
pub(crate) async fn connect(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<Tls> {
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    shake_hands(tcp, Connection::Client(connection)).await
}

async fn shake_hands(tcp: TcpStream, mut connection: Connection) -> io::Result<Tls> {
    connection.set_buffer_limit(Some(limits::TLS_SEND_BYTES_MAX));
    let tls = Tls { tcp, session: RefCell::new(Session { connection, taken: 0, is_broken: false }) };
    loop {
        let (is_flushed, is_shaking) = {
            let mut session = tls.session.borrow_mut();
            (session.flush(&tls.tcp)?, session.connection.is_handshaking())
        };
        if !is_flushed {
            tls.tcp.writable(false).await?;
        } else if is_shaking {
            if !tls.session.borrow_mut().fill(&tls.tcp)? {
                tls.tcp.readable(false).await?;
            }
        } else {
            return Ok(tls);
        }
    }
}

// === impl Session ===

impl Session {
    /// Reads and processes records once; false when there are none now.
    fn fill(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        if self.is_broken {
            return Err(ErrorKind::InvalidData.into());
        }
        match self.connection.read_tls(&mut Records(tcp)) {
            Ok(0) if self.connection.is_handshaking() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let processed = self.connection.process_new_packets();
        // Alerts, tickets and key updates leave at once if they can; if not, with whatever is sent next.
        let flushed = self.flush(tcp);
        match processed {
            Ok(_) => flushed.map(|_| true),
            Err(error) => {
                self.is_broken = true;
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    /// Hands records to the kernel; true when it has all of them.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Records(tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Hands what has been decrypted, reading more if there is nothing, to `take`, which says how much of it it took.
    fn pull(&mut self, tcp: &TcpStream, take: impl FnOnce(&[u8]) -> usize) -> io::Result<Received> {
        loop {
            let mut reader = self.connection.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(Received::End),
                Ok(bytes) => {
                    let taken = take(bytes);
                    reader.consume(taken);
                    return Ok(Received::Bytes(taken));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The connection ended without the TLS close: an answer that ends so may have been cut.
                Err(error) => return Err(error),
            }
            if !self.fill(tcp)? {
                return Ok(Received::WouldBlock);
            }
        }
    }
}

// === impl Tls ===

impl Tls {
    /// Whether both sides agreed on HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.borrow().connection.alpn_protocol() == Some(ALPN_HTTP2)
    }

    /// Receives into a slice.
    pub(crate) fn recv(&self, into: &mut [u8]) -> io::Result<Received> {
        self.session.borrow_mut().pull(&self.tcp, |bytes| {
            let n = bytes.len().min(into.len());
            into[..n].copy_from_slice(&bytes[..n]);
            n
        })
    }

    /// Receives into the spare capacity of `into` and lengthens it.
    pub(crate) fn recv_spare(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        self.session.borrow_mut().pull(&self.tcp, |bytes| {
            let n = bytes.len().min(into.capacity() - into.len());
            into.extend_from_slice(&bytes[..n]);
            n
        })
    }

    /// Looks whether bytes or a close are waiting. Records that carry neither, such as tickets, are no bytes.
    pub(crate) fn peek(&self) -> io::Result<Received> {
        let found = self.session.borrow_mut().pull(&self.tcp, |_| 0)?;
        Ok(if found == Received::Bytes(0) { Received::Bytes(1) } else { found })
    }

    /// Sends what there is room for; 0 when there is none.
    pub(crate) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        if session.taken == 0 {
            if !session.flush(&self.tcp)? {
                return Ok(0);
            }
            session.taken = session.connection.writer().write_vectored(pieces)?;
        }
        debug_assert!(
            session.taken <= pieces.iter().map(|piece| piece.len()).sum(),
            "the same bytes are sent again"
        );
        if session.flush(&self.tcp)? { Ok(std::mem::take(&mut session.taken)) } else { Ok(0) }
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        let mut session = self.session.borrow_mut();
        session.connection.send_close_notify();
        // A socket without room at this point belongs to a peer that reads nothing: it needs no goodbye.
        let _ = session.flush(&self.tcp);
        tcp::shutdown_write(&self.tcp);
    }

    /// Waits until there is something to receive, or nothing more will come.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // Records that carry no bytes do not end the wait, and neither does half a record.
        while let Ok(Received::WouldBlock) = self.peek() {
            self.tcp.readable(false).await?;
        }
        Ok(())
    }

    /// Waits until there is room to send.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable(false).await
    }
}
