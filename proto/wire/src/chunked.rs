//! The chunked transfer coding: decoding it strictly and writing it (RFC 9112 §7.1).
//!
//! Invariants
//! - Data is handed out as slices of the input: nothing is copied or kept.
//! - After the end, the input is left at the first byte of what follows (pipelining).
//! - An error is final: every later call repeats it.

use std::fmt;

use crate::limits::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, TRAILER_BYTES_MAX,
};

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What [`ChunkedDecoder::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Bytes of the body, never empty; more of the same chunk may follow.
    Data(&'a [u8]),
    /// The input is used up and the body is not.
    NeedMore,
    /// The body is complete with its trailers; the input stands behind it.
    End,
}

/// Why a chunked body is refused; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkError {
    /// A chunk does not begin with a hexadecimal digit.
    SizeMissing,
    /// More digits than [`CHUNK_SIZE_DIGITS_MAX`]: the size might overflow.
    SizeTooLong,
    /// A byte after the size that begins neither an extension nor the line end.
    SizeInvalid,
    /// More than [`CHUNK_EXTENSION_BYTES_MAX`] in a chunk or [`CHUNK_EXTENSIONS_BYTES_MAX`] in the body.
    ExtensionTooLong,
    /// A control byte in an extension; a bare LF is one.
    ExtensionInvalid,
    /// A CR that no LF follows.
    BareCr,
    /// A chunk's data is longer than its size says, or not ended by CRLF.
    DataUnended,
    /// More than [`TRAILER_BYTES_MAX`] of trailers.
    TrailersTooLong,
    /// A trailer that is no header line; a bare LF makes it one.
    TrailerInvalid,
}

/// Decodes one chunked body, however it is cut.
///
/// ```text
///  Size ─';'─► Extension ─CR─┐
///   ▲ │                      ▼        size > 0
///   │ └──────CR────────► SizeLf ──────────────► Data ─► DataCr ─► DataLf ─┐
///   │                      │ size = 0                                     │
///   └──────────────────────┼──────────────────────────────────────────────┘
///                          ▼
///   End ◄─ EndLf ◄─CR─ TrailerStart ─► TrailerName ─':'─► TrailerValue ─CR─► TrailerLf ─► TrailerStart
/// ```
///
/// Any state leads to `Failed` on a byte it does not name.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The size being read, then the bytes of data still to come.
    remaining: u64,
    /// Extension bytes of the whole body.
    extensions_bytes: u32,
    trailer_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension { bytes: u16 },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
    Failed(ChunkError),
}

// === impl ChunkedDecoder ===

impl ChunkedDecoder {
    /// A decoder at the first byte of a body.
    pub fn new() -> Self {
        ChunkedDecoder {
            state: State::Size { digits: 0 },
            remaining: 0,
            extensions_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Reads from the front of `input` and moves it past what was read, up to the next piece of data.
    ///
    /// # Errors
    ///
    /// The first defect, and the same again on every later call.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Chunk<'a>, ChunkError> {
        loop {
            match self.state {
                State::End => return Ok(Chunk::End),
                State::Failed(error) => return Err(error),
                State::Data if !input.is_empty() => return Ok(Chunk::Data(self.take_data(input))),
                _ => {}
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(Chunk::NeedMore) };
            match self.on_byte(byte) {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
            *input = rest;
        }
    }

    /// Whether the body is complete with its trailers.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    fn take_data<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
        let (data, rest) = input.split_at(len);
        *input = rest;
        self.remaining -= len as u64;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
        data
    }

    /// The state after one byte of anything but data.
    #[inline]
    fn on_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::Size { digits } => self.on_size_byte(digits, byte),
            State::Extension { bytes } => self.on_extension_byte(bytes, byte),
            // SizeLf => (Data | TrailerStart)
            State::SizeLf => match (byte, self.remaining) {
                (b'\n', 0) => Ok(State::TrailerStart),
                (b'\n', _) => Ok(State::Data),
                _ => Err(ChunkError::BareCr),
            },
            // DataCr => DataLf
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            // DataLf => Size
            State::DataLf if byte == b'\n' => Ok(State::Size { digits: 0 }),
            State::DataCr | State::DataLf => Err(ChunkError::DataUnended),
            State::TrailerStart | State::TrailerName | State::TrailerValue => self.on_trailer_byte(byte),
            // TrailerLf => TrailerStart
            State::TrailerLf if byte == b'\n' => Ok(State::TrailerStart),
            // EndLf => End
            State::EndLf if byte == b'\n' => Ok(State::End),
            State::TrailerLf | State::EndLf => Err(ChunkError::BareCr),
            State::Data | State::End | State::Failed(_) => unreachable!("next() takes these states itself"),
        }
    }

    // Size => (Size | Extension | SizeLf)
    fn on_size_byte(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == CHUNK_SIZE_DIGITS_MAX {
                return Err(ChunkError::SizeTooLong);
            }
            // The first digit starts from a `remaining` of 0, and sixteen shifts of four bits cannot
            // overflow.
            self.remaining = self.remaining << 4 | u64::from(digit);
            return Ok(State::Size { digits: digits + 1 });
        }
        match byte {
            _ if digits == 0 => Err(ChunkError::SizeMissing),
            b'\r' => Ok(State::SizeLf),
            b';' => self.on_extension_byte(0, byte),
            _ => Err(ChunkError::SizeInvalid),
        }
    }

    // Extension => (Extension | SizeLf)
    fn on_extension_byte(&mut self, bytes: u16, byte: u8) -> Result<State, ChunkError> {
        if byte == b'\r' {
            return Ok(State::SizeLf);
        }
        if !is_text(byte) {
            return Err(ChunkError::ExtensionInvalid);
        }
        if bytes == CHUNK_EXTENSION_BYTES_MAX || self.extensions_bytes == CHUNK_EXTENSIONS_BYTES_MAX {
            return Err(ChunkError::ExtensionTooLong);
        }
        self.extensions_bytes += 1;
        Ok(State::Extension { bytes: bytes + 1 })
    }

    fn on_trailer_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        if self.state == State::TrailerStart && byte == b'\r' {
            return Ok(State::EndLf);
        }
        if self.trailer_bytes == TRAILER_BYTES_MAX {
            return Err(ChunkError::TrailersTooLong);
        }
        self.trailer_bytes += 1;
        match self.state {
            // TrailerStart => (EndLf | TrailerName)
            State::TrailerStart | State::TrailerName if is_token(byte) => Ok(State::TrailerName),
            // TrailerName => (TrailerName | TrailerValue)
            State::TrailerName if byte == b':' => Ok(State::TrailerValue),
            // TrailerValue => (TrailerValue | TrailerLf)
            State::TrailerValue if byte == b'\r' => Ok(State::TrailerLf),
            State::TrailerValue if is_text(byte) => Ok(State::TrailerValue),
            _ => Err(ChunkError::TrailerInvalid),
        }
    }
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

// === impl ChunkError ===

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkError::SizeMissing => "chunk size is missing",
            ChunkError::SizeTooLong => "chunk size is too long",
            ChunkError::SizeInvalid => "chunk size is malformed",
            ChunkError::ExtensionTooLong => "chunk extension is too long",
            ChunkError::ExtensionInvalid => "control byte in a chunk extension",
            ChunkError::BareCr => "carriage return without a line feed",
            ChunkError::DataUnended => "chunk data does not end where its size says",
            ChunkError::TrailersTooLong => "trailers are too long",
            ChunkError::TrailerInvalid => "trailer is malformed",
        })
    }
}

impl std::error::Error for ChunkError {}

/// Appends the line that announces a chunk of `len` bytes.
///
/// The chunk's data and a CRLF must follow. A `len` of 0 would end the body: [`LAST_CHUNK`] does that.
pub fn encode_chunk_head(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; usize::BITS as usize / 4 + 2];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = len;
    loop {
        at -= 1;
        line[at] = DIGITS[rest & 0xf];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&line[at..]);
}

/// A byte of a field value (RFC 9110 §5.5): visible, space, tab, or above ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A byte of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
