//! HTTP/1.1 responses, parsed as their bytes arrive.

use std::fmt;

/// Largest head, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in a head.
const HEADERS_MAX: usize = 64;
/// Longest line that gives a chunk's size, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// One response in the making.
///
/// ```text
/// Head ─┬─► Length ──────────────────────────────► Done
///       ├─► ChunkSize ─► ChunkData ─► ChunkEnd ─┐    ▲
///       │       ▲  └─► Trailer ────────────────────┤
///       │       └───────────────────────────────┘    │
///       └─► UntilClose ──────── end of input ────────┘
/// ```
#[derive(Debug)]
pub(crate) struct ResponseParser {
    state: State,
    /// Bytes of the head or of a line that is not complete.
    held: Vec<u8>,
    status: u16,
    keeps_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length { bytes_left: u64 },
    ChunkSize,
    ChunkData { bytes_left: u64 },
    ChunkEnd,
    Trailer,
    UntilClose,
    Done,
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadResponse {
    Head,
    Framing,
    TooLarge,
    /// Bytes follow the response although nothing more was asked.
    Surplus,
}

// === impl ResponseParser ===

impl ResponseParser {
    pub(crate) fn new() -> ResponseParser {
        ResponseParser { state: State::Head, held: Vec::new(), status: 0, keeps_alive: true }
    }

    /// The status, or 0 before the head is complete.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the connection may be used again after this response.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }

    /// Takes `bytes` and gives the body's part of them to `body`, piece by piece.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8])) -> Result<(), BadResponse> {
        while !bytes.is_empty() {
            bytes = match self.state {
                // Head => (Head | Length | ChunkSize | UntilClose | Done)
                State::Head => self.push_head(bytes)?,
                // Length => (Length | Done)
                State::Length { bytes_left } => {
                    let (data, rest) = split(bytes, bytes_left);
                    body(data);
                    let bytes_left = bytes_left - data.len() as u64;
                    self.state = if bytes_left == 0 { State::Done } else { State::Length { bytes_left } };
                    rest
                }
                // ChunkSize => (ChunkSize | ChunkData | Trailer)
                State::ChunkSize => {
                    let (line, rest) = self.line(bytes)?;
                    if let Some(line) = line {
                        self.state = match chunk_bytes(&line)? {
                            0 => State::Trailer,
                            bytes_left => State::ChunkData { bytes_left },
                        };
                    }
                    rest
                }
                // ChunkData => (ChunkData | ChunkEnd)
                State::ChunkData { bytes_left } => {
                    let (data, rest) = split(bytes, bytes_left);
                    body(data);
                    let bytes_left = bytes_left - data.len() as u64;
                    self.state =
                        if bytes_left == 0 { State::ChunkEnd } else { State::ChunkData { bytes_left } };
                    rest
                }
                // ChunkEnd => (ChunkEnd | ChunkSize)
                State::ChunkEnd => {
                    let (line, rest) = self.line(bytes)?;
                    match line {
                        Some(line) if line.is_empty() => self.state = State::ChunkSize,
                        Some(_) => return Err(BadResponse::Framing),
                        None => {}
                    }
                    rest
                }
                // Trailer => (Trailer | Done)
                State::Trailer => {
                    let (line, rest) = self.line(bytes)?;
                    if line.is_some_and(|line| line.is_empty()) {
                        self.state = State::Done;
                    }
                    rest
                }
                // UntilClose => UntilClose
                State::UntilClose => {
                    body(bytes);
                    &[]
                }
                // Done: the peer says more than it was asked.
                State::Done => return Err(BadResponse::Surplus),
            };
        }
        Ok(())
    }

    /// The peer closed; whether that ends the response well.
    pub(crate) fn end(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.keeps_alive = false;
        self.state == State::Done
    }

    fn push_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], BadResponse> {
        let held_before = self.held.len();
        self.held.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let head_bytes = match head.parse(&self.held).map_err(|_| BadResponse::Head)? {
            httparse::Status::Complete(head_bytes) => head_bytes,
            httparse::Status::Partial if self.held.len() >= HEAD_BYTES_MAX => {
                return Err(BadResponse::TooLarge);
            }
            httparse::Status::Partial => return Ok(&[]),
        };
        let status = head.code.unwrap_or(0);
        let is_http_11 = head.version == Some(1);
        let find = |name: &str| {
            let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let connection = find("connection").unwrap_or("").to_ascii_lowercase();
        let is_chunked = find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = match find("content-length") {
            Some(length) => Some(length.parse().map_err(|_| BadResponse::Framing)?),
            None => None,
        };
        self.held.clear();
        let rest = &bytes[head_bytes - held_before..];
        if (100..200).contains(&status) {
            return Ok(rest);
        }
        self.status = status;
        self.keeps_alive = is_http_11 && connection != "close";
        self.state = match (is_chunked, length) {
            _ if status == 204 || status == 304 => State::Done,
            (true, None) => State::ChunkSize,
            (true, Some(_)) => return Err(BadResponse::Framing),
            (false, Some(0)) => State::Done,
            (false, Some(bytes_left)) => State::Length { bytes_left },
            (false, None) => State::UntilClose,
        };
        Ok(rest)
    }

    /// The next line without its end, if it is complete, and what follows.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<(Option<Vec<u8>>, &'a [u8]), BadResponse> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.held.extend_from_slice(bytes);
            if self.held.len() > CHUNK_LINE_BYTES_MAX {
                return Err(BadResponse::TooLarge);
            }
            return Ok((None, &[]));
        };
        let mut line = std::mem::take(&mut self.held);
        line.extend_from_slice(&bytes[..end]);
        if line.pop() != Some(b'\r') {
            return Err(BadResponse::Framing);
        }
        Ok((Some(line), &bytes[end + 1..]))
    }
}

fn split(bytes: &[u8], most: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len()))
}

fn chunk_bytes(line: &[u8]) -> Result<u64, BadResponse> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(digits).map_err(|_| BadResponse::Framing)?.trim_ascii();
    // The parser of numbers would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(BadResponse::Framing);
    }
    u64::from_str_radix(digits, 16).map_err(|_| BadResponse::Framing)
}

impl fmt::Display for BadResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            BadResponse::Head => "the head is malformed",
            BadResponse::Framing => "the framing is malformed",
            BadResponse::TooLarge => "the head or a line is too large",
            BadResponse::Surplus => "bytes follow the response",
        })
    }
}

#[cfg(test)]
mod tests;
