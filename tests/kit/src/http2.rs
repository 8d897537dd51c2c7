//! HTTP/2 by hand: frames written byte for byte and read back, so that a test can say what no library would.

use std::io;
use std::io::Read;
use std::io::Write;

/// How every connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub const DATA: u8 = 0;
/// Begins a stream.
pub const HEADERS: u8 = 1;
/// Breaks a stream off.
pub const RST_STREAM: u8 = 3;
/// What a peer allows.
pub const SETTINGS: u8 = 4;
/// Asks for a sign of life.
pub const PING: u8 = 6;
/// Ends a connection.
pub const GOAWAY: u8 = 7;
/// Leave to send more.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a header block.
pub const CONTINUATION: u8 = 9;

/// Flag of the last frame of a message.
pub const END_STREAM: u8 = 1;
/// Flag of an answer to SETTINGS or PING.
pub const ACK: u8 = 1;
/// Flag of the last frame of a header block.
pub const END_HEADERS: u8 = 4;

const FRAME_HEAD_BYTES: usize = 9;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer: its status and its body.
    Answer(u16, Vec<u8>),
    /// RST_STREAM with this code, before the answer was complete.
    Reset(u32),
    /// GOAWAY with this code, which is not 0.
    GoAway(u32),
    /// The connection ended.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Http2<S> {
    /// What it runs over.
    pub stream: S,
    /// Whether GOAWAY has been seen, with whatever code.
    pub is_told_to_go: bool,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block, every field a literal that is not to be remembered (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(name.as_bytes(), &mut bytes);
        text(value.as_bytes(), &mut bytes);
    }
    bytes
}

fn text(text: &[u8], bytes: &mut Vec<u8>) {
    const PREFIX_MAX: usize = 127;
    if text.len() < PREFIX_MAX {
        bytes.push(text.len() as u8);
    } else {
        bytes.push(PREFIX_MAX as u8);
        let mut left = text.len() - PREFIX_MAX;
        while left >= 128 {
            bytes.push((left % 128) as u8 | 128);
            left /= 128;
        }
        bytes.push(left as u8);
    }
    bytes.extend_from_slice(text);
}

/// A request without a body, or with more to come.
pub fn request(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

// === impl Http2 ===

impl<S: Read + Write> Http2<S> {
    /// A connection that has said nothing.
    pub fn silent(stream: S) -> Self {
        Self { stream, is_told_to_go: false }
    }

    /// Begins as it should, and waits until the peer has too.
    ///
    /// # Errors
    /// When the peer takes nothing.
    pub fn begin(&mut self) -> io::Result<()> {
        self.send(PREFACE)?;
        self.send(&frame(SETTINGS, 0, 0, &[]))?;
        while self.frame().ok_or(io::ErrorKind::UnexpectedEof)?.kind != SETTINGS {}
        Ok(())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the peer takes nothing.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next frame; none when the connection has ended. SETTINGS and PING are answered.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; FRAME_HEAD_BYTES];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let found = Frame { kind: head[3], flags: head[4], stream, payload };
        if found.flags & ACK == 0 && (found.kind == SETTINGS || found.kind == PING) {
            let payload = if found.kind == PING { found.payload.clone() } else { Vec::new() };
            // A peer that is already gone is noticed by the next read.
            let _ = self.send(&frame(found.kind, ACK, 0, &payload));
        }
        Some(found)
    }

    /// Reads until it is known what became of `stream`. What it has been sent is given leave for again.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(found) = self.frame() {
            let code = || {
                let at = if found.kind == GOAWAY { 4 } else { 0 };
                let bytes = found.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(u32::MAX, u32::from_be_bytes)
            };
            match found.kind {
                GOAWAY => {
                    self.is_told_to_go = true;
                    if code() != 0 {
                        return Outcome::GoAway(code());
                    }
                }
                RST_STREAM if found.stream == stream => return Outcome::Reset(code()),
                HEADERS if found.stream == stream => status = first_status(&found.payload),
                DATA if found.stream == stream => {
                    body.extend_from_slice(&found.payload);
                    if !found.payload.is_empty() {
                        let more = (found.payload.len() as u32).to_be_bytes();
                        let _ = self.send(&frame(WINDOW_UPDATE, 0, 0, &more));
                        let _ = self.send(&frame(WINDOW_UPDATE, 0, stream, &more));
                    }
                }
                _ => continue,
            }
            let is_end = found.stream == stream && found.flags & END_STREAM != 0;
            if is_end && status >= 200 && matches!(found.kind, HEADERS | DATA) {
                return Outcome::Answer(status, body);
            }
        }
        Outcome::Closed
    }
}

/// The status of an answer, which is the first field of its header block; 0 if this block has none.
fn first_status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        // A literal under the name at index 8: digits, plain or in Huffman's code.
        [name, length, digits @ ..] if name & 0x0f == 8 || *name == 0x48 => {
            let digits = &digits[..usize::from(length & 0x7f).min(digits.len())];
            if length & 0x80 == 0 { plain(digits) } else { huffman(digits) }
        }
        _ => 0,
    }
}

fn plain(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit.wrapping_sub(b'0')))
}

/// Digits in the code of RFC 7541 appendix B: 0, 1 and 2 have five bits, the others six.
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut number, mut at) = (0_u16, 0);
    let value = |bits: &[u8]| bits.iter().fold(0_u8, |value, bit| value << 1 | bit);
    while at + 5 <= bits.len() {
        match value(&bits[at..at + 5]) {
            short @ 0..=2 => {
                number = number * 10 + u16::from(short);
                at += 5;
            }
            _ if at + 6 <= bits.len() => {
                let digit = value(&bits[at..at + 6]);
                if !(0b01_1001..=0b01_1111).contains(&digit) {
                    break;
                }
                number = number * 10 + u16::from(digit - 0b01_1001 + 3);
                at += 6;
            }
            _ => break,
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(first_status(&[0x8c]), 400);
        assert_eq!(first_status(&[0x08, 3, b'4', b'3', b'1']), 431);
        // 421: 011010 00010 00001.
        assert_eq!(first_status(&[0x48, 0x82, 0b0110_1000, 0b0100_0001]), 421);
        assert_eq!(first_status(&[0x00, 1, b'x', 1, b'y']), 0);
    }
}
