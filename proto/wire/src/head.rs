//! What request and response heads share: finding the end, checking lines, naming defects.
//!
//! The tokenising is httparse's; what it tolerates for the sake of old peers (a bare LF, any number of empty
//! lines before the start line) is refused here, because a proxy that reads a head more generously than its
//! neighbour is how requests are smuggled.

use memchr::memchr_iter;
use smallvec::SmallVec;

mod error;

pub use error::HeadError;

use crate::limits::{HEAD_BYTES_MAX, HEADERS_CAP, HEADERS_INLINE, HEADERS_MAX};

/// A table for the tokeniser, left uninitialised: zeroing it would cost more than most heads take to parse.
pub(crate) type Table<'a> = [std::mem::MaybeUninit<httparse::Header<'a>>; HEADERS_CAP];

/// The headers of one head in the order sent; the first [`HEADERS_INLINE`] need no heap.
pub type Headers<'a> = SmallVec<[Header<'a>; HEADERS_INLINE]>;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the start line to the empty line, both included.
    pub head_bytes_max: usize,
    /// Header lines; above [`HEADERS_CAP`] the cap holds.
    pub headers_max: usize,
}

/// The protocol version of a message (RFC 9112 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    Http11,
}

/// One header line (RFC 9112 §5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name in the case it was sent in.
    pub name: &'a [u8],
    /// The value without the white space around it; bytes above 0x7f are possible, control bytes but tab are
    /// not.
    pub value: &'a [u8],
}

// === impl HeadLimits ===

impl HeadLimits {
    /// The lines to accept, never above the tokeniser's table.
    pub(crate) fn lines_max(&self) -> usize {
        self.headers_max.min(HEADERS_CAP)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { head_bytes_max: HEAD_BYTES_MAX, headers_max: HEADERS_MAX }
    }
}

// === impl Version ===

impl Version {
    pub(crate) fn from_minor(minor: Option<u8>) -> Self {
        if minor == Some(1) { Version::Http11 } else { Version::Http10 }
    }
}

// === impl Header ===

impl Header<'_> {
    /// Whether this is the header called `name_lowercase`, which must be in lower case.
    #[inline]
    pub fn is(&self, name_lowercase: &str) -> bool {
        self.name.len() == name_lowercase.len() && self.name.eq_ignore_ascii_case(name_lowercase.as_bytes())
    }
}

impl std::fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

/// Finds the end of a head: `buf[..n]` is the head with its final empty line.
///
/// `searched` is how many leading bytes of `buf` an earlier call looked through in vain (0 at first), so that
/// a head that arrives in many reads is searched once. `None` asks for more bytes; the caller enforces
/// [`HeadLimits::head_bytes_max`] on what it has buffered by then.
///
/// An empty line ended by a bare LF also ends the head here: [`crate::parse_request`] then refuses it at
/// once, where waiting for a CR would leave the peer without an answer until its timeout.
pub fn head_end(buf: &[u8], searched: usize) -> Option<usize> {
    // The two bytes before may be the LF and CR of an end whose last byte has just come.
    let from = searched.saturating_sub(2).min(buf.len());
    for lf in memchr_iter(b'\n', &buf[from..]) {
        let after_lf = from + lf + 1;
        match buf[after_lf..] {
            [b'\r', b'\n', ..] => return Some(after_lf + 2),
            [b'\n', ..] => return Some(after_lf + 1),
            _ => {}
        }
    }
    None
}

/// Whether a header concerns one connection only and is dropped by a proxy (RFC 9110 §7.6.1), in any case.
///
/// The headers named by `Connection` are hop-by-hop too: see [`connection_names`].
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let known: &[u8] = match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
        (2, _) => b"te",
        (7, Some(b't')) => b"trailer",
        (7, _) => b"upgrade",
        (10, Some(b'k')) => b"keep-alive",
        (10, _) => b"connection",
        (16, _) => b"proxy-connection",
        (17, _) => b"transfer-encoding",
        (18, _) => b"proxy-authenticate",
        (19, _) => b"proxy-authorization",
        _ => return false,
    };
    name.eq_ignore_ascii_case(known)
}

/// The options listed by every `Connection` header, as sent: header names that are hop-by-hop in this
/// message, besides `close` and `keep-alive`.
pub fn connection_names<'h, 'a>(headers: &'h [Header<'a>]) -> impl Iterator<Item = &'a [u8]> + use<'h, 'a> {
    headers.iter().filter(|header| header.is("connection")).flat_map(|header| list(header.value))
}

/// The members of a comma-separated list without empty ones (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(|member| member.trim_ascii()).filter(|member| !member.is_empty())
}

/// Whether the connection outlives this message (RFC 9112 §9.3).
#[derive(Clone, Copy, Default)]
pub(crate) struct Persistence {
    close: bool,
    keep_alive: bool,
}

// === impl Persistence ===

impl Persistence {
    /// Notes the options of one `Connection` value.
    pub(crate) fn note(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// `close` wins over all; without a word 1.1 persists and 1.0 does not.
    pub(crate) fn keeps(self, version: Version) -> bool {
        !self.close && (self.keep_alive || version == Version::Http11)
    }
}

/// Checks what must hold of the raw bytes before they are tokenised: the size, and a CR before every LF.
///
/// A CR without its LF needs no check here: the tokeniser takes a CR as half of a line end or not at all.
pub(crate) fn check_bytes(head: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    if head.len() > limits.head_bytes_max {
        return Err(HeadError::HeadTooLong);
    }
    if memchr_iter(b'\n', head).any(|lf| lf == 0 || head[lf - 1] != b'\r') {
        return Err(HeadError::BareLf);
    }
    Ok(())
}

/// The lengths a message may state, gathered over its header lines.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lengths {
    /// `Content-Length`, when stated.
    pub(crate) content_length: Option<u64>,
    /// `Transfer-Encoding: chunked` was stated.
    pub(crate) chunked: bool,
}

// === impl Lengths ===

impl Lengths {
    /// Notes a `Content-Length` (RFC 9110 §8.6): digits only, no sign, no list, no overflow.
    ///
    /// Hands back the length stated before, for the caller to say whether a repeat is a defect.
    pub(crate) fn note_content_length(&mut self, value: &[u8]) -> Result<Option<u64>, HeadError> {
        if value.is_empty() {
            return Err(HeadError::ContentLengthInvalid);
        }
        let mut length = 0u64;
        for &b in value {
            if !b.is_ascii_digit() {
                return Err(HeadError::ContentLengthInvalid);
            }
            length = length
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(b - b'0')))
                .ok_or(HeadError::ContentLengthInvalid)?;
        }
        Ok(self.content_length.replace(length))
    }

    /// Notes a `Transfer-Encoding` (RFC 9112 §6.1): one line, exactly `chunked`.
    pub(crate) fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferEncodingUnsupported);
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(HeadError::TransferEncodingRepeated);
        }
        Ok(())
    }

    /// Checks what the lines say together (RFC 9112 §6.1 and §6.3).
    pub(crate) fn check(self, version: Version) -> Result<(), HeadError> {
        if self.chunked && self.content_length.is_some() {
            return Err(HeadError::ContentLengthAndTransferEncoding);
        }
        if self.chunked && version == Version::Http10 {
            return Err(HeadError::TransferEncodingOnHttp10);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
