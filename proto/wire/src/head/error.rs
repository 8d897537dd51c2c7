//! The defects of a head, each with the status that answers it.

use std::fmt;

use memchr::{memchr, memchr_iter};

/// Why a head is refused; the connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// More bytes than [`crate::HeadLimits::head_bytes_max`].
    HeadTooLong,
    /// More header lines than [`crate::HeadLimits::headers_max`].
    TooManyHeaders,
    /// The slice does not end where the head does; see [`crate::head_end`].
    Incomplete,
    /// A line end without its CR (RFC 9112 §2.2 lets a recipient accept it; a proxy had better not).
    BareLf,
    /// A CR that begins no line end.
    BareCr,
    /// No start line of three parts between single spaces, or an empty one.
    StartLineInvalid,
    /// The method is not a token.
    MethodInvalid,
    /// `CONNECT`: this is no tunnel.
    ConnectUnsupported,
    /// The target is not origin-form, absolute-form of `http` or `https`, or `OPTIONS *` in visible ASCII.
    TargetInvalid,
    /// A version of HTTP other than 1.0 and 1.1.
    VersionUnsupported,
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2Preface,
    /// A status outside 100..=599.
    StatusInvalid,
    /// A line folded onto the next (RFC 9112 §5.2).
    ObsFold,
    /// A header line that begins with its colon.
    HeaderNameEmpty,
    /// White space between name and colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A header name that is not a token, or a line without a colon.
    HeaderNameInvalid,
    /// A control byte in a header value.
    HeaderValueInvalid,
    /// No `Host` on HTTP/1.1 (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A `Host` that is not a host with an optional port.
    HostInvalid,
    /// A `Content-Length` that is not digits, or above `u64::MAX`.
    ContentLengthInvalid,
    /// More than one `Content-Length`; on a response, unequal ones.
    ContentLengthRepeated,
    /// A `Transfer-Encoding` other than exactly `chunked`.
    TransferEncodingUnsupported,
    /// More than one `Transfer-Encoding`.
    TransferEncodingRepeated,
    /// `Transfer-Encoding` on HTTP/1.0, which has none (RFC 9112 §6.1).
    TransferEncodingOnHttp10,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.3).
    ContentLengthAndTransferEncoding,
    /// A 1xx or 204 response that announces a body (RFC 9112 §6.1, RFC 9110 §8.6).
    BodyForbidden,
}

// === impl HeadError ===

impl HeadError {
    /// The status that answers a request with this defect. A defect of a response is the worker's fault: what
    /// the client then gets is the caller's choice.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::HeadTooLong | HeadError::TooManyHeaders => 431,
            HeadError::TransferEncodingUnsupported | HeadError::ConnectUnsupported => 501,
            HeadError::VersionUnsupported | HeadError::Http2Preface => 505,
            HeadError::Incomplete
            | HeadError::BareLf
            | HeadError::BareCr
            | HeadError::StartLineInvalid
            | HeadError::MethodInvalid
            | HeadError::TargetInvalid
            | HeadError::StatusInvalid
            | HeadError::ObsFold
            | HeadError::HeaderNameEmpty
            | HeadError::SpaceBeforeColon
            | HeadError::HeaderNameInvalid
            | HeadError::HeaderValueInvalid
            | HeadError::HostMissing
            | HeadError::HostRepeated
            | HeadError::HostInvalid
            | HeadError::ContentLengthInvalid
            | HeadError::ContentLengthRepeated
            | HeadError::TransferEncodingRepeated
            | HeadError::TransferEncodingOnHttp10
            | HeadError::ContentLengthAndTransferEncoding
            | HeadError::BodyForbidden => 400,
        }
    }

    /// Names the defect the tokeniser found; off the hot path, so it may read the head again.
    pub(crate) fn from_tokeniser(error: httparse::Error, head: &[u8]) -> Self {
        if memchr_iter(b'\r', head).any(|cr| head.get(cr + 1) != Some(&b'\n')) {
            return HeadError::BareCr;
        }
        match error {
            httparse::Error::HeaderName => name_defect(head),
            httparse::Error::HeaderValue => HeadError::HeaderValueInvalid,
            httparse::Error::NewLine => HeadError::StartLineInvalid,
            httparse::Error::Status => HeadError::StatusInvalid,
            httparse::Error::Token => token_defect(head),
            httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
            httparse::Error::Version => version_defect(head),
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::HeadTooLong => "head is too long",
            HeadError::TooManyHeaders => "too many headers",
            HeadError::Incomplete => "head is incomplete",
            HeadError::BareLf => "line ends in a bare line feed",
            HeadError::BareCr => "carriage return without a line feed",
            HeadError::StartLineInvalid => "start line is malformed",
            HeadError::MethodInvalid => "method is not a token",
            HeadError::ConnectUnsupported => "method CONNECT is not supported",
            HeadError::TargetInvalid => "request target is malformed",
            HeadError::VersionUnsupported => "version of HTTP is not supported, use HTTP/1.1",
            HeadError::Http2Preface => "HTTP/2 is not spoken on this connection, use HTTP/1.1",
            HeadError::StatusInvalid => "status code is malformed",
            HeadError::ObsFold => "header line is folded",
            HeadError::HeaderNameEmpty => "header name is empty",
            HeadError::SpaceBeforeColon => "white space before the colon of a header",
            HeadError::HeaderNameInvalid => "header name is not a token",
            HeadError::HeaderValueInvalid => "control byte in a header value",
            HeadError::HostMissing => "header Host is missing",
            HeadError::HostRepeated => "header Host is repeated",
            HeadError::HostInvalid => "header Host is malformed",
            HeadError::ContentLengthInvalid => "header Content-Length is not a number",
            HeadError::ContentLengthRepeated => "header Content-Length is repeated",
            HeadError::TransferEncodingUnsupported => "transfer coding is not supported, use chunked",
            HeadError::TransferEncodingRepeated => "header Transfer-Encoding is repeated",
            HeadError::TransferEncodingOnHttp10 => "header Transfer-Encoding on HTTP/1.0",
            HeadError::ContentLengthAndTransferEncoding => {
                "headers Content-Length and Transfer-Encoding exclude each other"
            }
            HeadError::BodyForbidden => "body announced on a response that has none",
        })
    }
}

impl std::error::Error for HeadError {}

/// Which rule the first bad header name breaks.
fn name_defect(head: &[u8]) -> HeadError {
    for line in lines(head).skip(1) {
        if matches!(line, [b' ' | b'\t', ..]) {
            return HeadError::ObsFold;
        }
        let Some(colon) = memchr(b':', line) else { continue };
        match line[..colon] {
            [] => return HeadError::HeaderNameEmpty,
            [.., b' ' | b'\t'] => return HeadError::SpaceBeforeColon,
            _ => {}
        }
    }
    HeadError::HeaderNameInvalid
}

/// Which part of the start line holds a byte that no part may hold.
fn token_defect(head: &[u8]) -> HeadError {
    let start_line = lines(head).next().unwrap_or_default();
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    match start_line.iter().position(|b| !is_tchar(b)) {
        None | Some(0) => HeadError::StartLineInvalid,
        // The method is whole, and so is the line if a target and a space follow.
        Some(at) if start_line[at] == b' ' => match memchr(b' ', &start_line[at + 1..]) {
            None | Some(0) => HeadError::StartLineInvalid,
            Some(_) => HeadError::TargetInvalid,
        },
        Some(_) => HeadError::MethodInvalid,
    }
}

/// Tells another version of HTTP from something that is none.
fn version_defect(head: &[u8]) -> HeadError {
    let start_line = lines(head).next().unwrap_or_default();
    // First in a status line, last in a request line.
    let mut parts = start_line.split(|&b| b == b' ');
    let ends = [parts.next(), parts.next_back()];
    if ends.into_iter().flatten().any(is_other_version) {
        HeadError::VersionUnsupported
    } else {
        HeadError::StartLineInvalid
    }
}

fn is_other_version(part: &[u8]) -> bool {
    match part {
        b"HTTP/1.0" | b"HTTP/1.1" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

/// The lines of a head without their ends; every LF is known to follow a CR.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}
