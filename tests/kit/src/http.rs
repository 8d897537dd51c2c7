//! HTTP/1.1 as tests read it: heads, and bodies by length, by chunks or until the connection ends.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::wait::DEADLINE;

const READ_BYTES: usize = 64 * 1024;

/// Header lines in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// A message's head.
#[derive(Clone, Debug)]
pub struct Head {
    /// All its bytes, the empty line included.
    pub bytes: Vec<u8>,
    /// Its first line.
    pub start: String,
    /// The lines below.
    pub headers: Headers,
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Whatever comes.
    UntilClose,
}

/// A socket with what was read from it and not used yet.
#[derive(Debug)]
pub struct Wire {
    /// The socket; reads give up after [`DEADLINE`].
    pub stream: TcpStream,
    buf: Vec<u8>,
}

// === impl Headers ===

impl Headers {
    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

// === impl Head ===

impl Head {
    fn parse(bytes: Vec<u8>) -> io::Result<Head> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = lines.map(header).collect::<Option<Vec<_>>>();
        let headers = Headers(headers.ok_or_else(|| malformed(&format!("a header line in {text:?}")))?);
        Ok(Head { bytes, start, headers })
    }

    /// The body that `Content-Length` or `Transfer-Encoding` announce; `otherwise` when neither is there.
    ///
    /// # Errors
    /// When both are there, or what they say cannot be read.
    pub fn body(&self, otherwise: Body) -> io::Result<Body> {
        match (self.headers.get("content-length"), self.headers.get("transfer-encoding")) {
            (Some(_), Some(_)) => Err(malformed("a length and chunks")),
            (Some(length), None) => match length.parse() {
                Ok(0) => Ok(Body::Done),
                Ok(length) => Ok(Body::Length(length)),
                Err(_) => Err(malformed("a content length")),
            },
            (None, Some("chunked")) => Ok(Body::Chunked),
            (None, Some(_)) => Err(malformed("a transfer encoding")),
            (None, None) => Ok(otherwise),
        }
    }
}

// === impl Wire ===

impl Wire {
    /// Takes over a socket.
    pub fn new(stream: TcpStream) -> Wire {
        // A test writes in small pieces, and means each to leave at once.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(DEADLINE));
        let _ = stream.set_write_timeout(Some(DEADLINE));
        Wire { stream, buf: Vec::new() }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the other end has gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads a head; none when the connection ends before its first byte.
    ///
    /// # Errors
    /// When it ends within the head, or is silent for too long.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                let rest = self.buf.split_off(at + 4);
                return Head::parse(std::mem::replace(&mut self.buf, rest)).map(Some);
            }
            if self.fill()? == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(cut("a head")) };
            }
        }
    }

    /// The next piece of a body, none at its end.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub fn piece(&mut self, body: &mut Body) -> io::Result<Option<Vec<u8>>> {
        match body {
            Body::Done => Ok(None),
            Body::Length(left) => {
                self.some("a body")?;
                let take = self.buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                if *left == 0 {
                    *body = Body::Done;
                }
                Ok(Some(self.buf.drain(..take).collect()))
            }
            Body::Chunked => {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).map_err(|_| malformed("a chunk size"))?;
                let data = self.exactly(size)?;
                if !self.line()?.is_empty() {
                    return Err(malformed("the end of a chunk"));
                }
                if size == 0 {
                    *body = Body::Done;
                    return Ok(None);
                }
                Ok(Some(data))
            }
            Body::UntilClose => {
                if self.buf.is_empty() && self.fill()? == 0 {
                    *body = Body::Done;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buf)))
            }
        }
    }

    /// The rest of a body.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub fn rest(&mut self, body: &mut Body) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        while let Some(piece) = self.piece(body)? {
            rest.extend_from_slice(&piece);
        }
        Ok(rest)
    }

    /// Whether the other end closes or resets the connection within `limit`, with nothing more to read.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(limit));
        let closes = self.buf.is_empty() && self.fill().map_or_else(|error| !is_timeout(&error), |n| n == 0);
        let _ = self.stream.set_read_timeout(Some(DEADLINE));
        closes
    }

    /// Whether there is something to read, an end included, without waiting for it.
    pub fn has_input(&mut self) -> bool {
        let _ = self.stream.set_nonblocking(true);
        let has_input = !self.stream.peek(&mut [0]).is_err_and(|error| is_timeout(&error));
        let _ = self.stream.set_nonblocking(false);
        has_input || !self.buf.is_empty()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        // Only then does closing send RST; without it the test sees an orderly end and fails on its own terms.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more will be sent.
    pub fn end_of_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buf, b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|_| malformed("a line"));
            }
            if self.fill()? == 0 {
                return Err(cut("a line"));
            }
        }
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buf.len() < len {
            if self.fill()? == 0 {
                return Err(cut("a chunk"));
            }
        }
        Ok(self.buf.drain(..len).collect())
    }

    fn some(&mut self, what: &str) -> io::Result<()> {
        if self.buf.is_empty() && self.fill()? == 0 {
            return Err(cut(what));
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let have = self.buf.len();
        self.buf.resize(have + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buf[have..]);
        self.buf.truncate(have + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// Whether a read gave up waiting.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn cut(what: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("the connection ended within {what}"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed: {what}"))
}
