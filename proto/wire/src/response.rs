//! Response heads: strict parsing of what an engine sends (RFC 9112 §4, §6).

use std::mem::MaybeUninit;

use crate::{
    head::{HeadError, HeadLimits, Header, Headers, Lengths, Persistence, Table, Version, check_bytes},
    limits::HEADERS_CAP,
};

/// A response head, borrowed from the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct ResponseHead<'a> {
    /// The status, 100..=599.
    pub status: u16,
    /// The reason phrase; empty when absent or not ASCII.
    pub reason: &'a str,
    /// The version of the status line.
    pub version: Version,
    /// Every header line in the order sent.
    pub headers: Headers<'a>,
    /// Where the body ends.
    pub framing: ResponseFraming,
    /// Whether the connection may serve another request after this response's body.
    pub keep_alive: bool,
}

/// Where a response's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is no body, whatever the headers say: answers to `HEAD`, 1xx, 204, 304.
    None,
    /// `Content-Length` in bytes, possibly 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`; read it with [`crate::ChunkedDecoder`].
    Chunked,
    /// No length was stated: the body ends with the connection.
    UntilClose,
}

// === impl ResponseHead ===

impl<'a> ResponseHead<'a> {
    /// The first value of a header; `name_lowercase` must be in lower case.
    pub fn header(&self, name_lowercase: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.is(name_lowercase)).map(|header| header.value)
    }

    /// Whether a further head follows for the same request (1xx but 101, which ends HTTP on the connection).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Parses the head that [`crate::head_end`] delimited, of the answer to a request made with `request_method`.
///
/// A 1xx head is handed to the caller as such. An empty line before the status line is refused: on a reused
/// connection it is a stray byte of the answer before. Equal repeats of `Content-Length` are accepted, as
/// RFC 9110 §8.6 allows, since some engines add one to that of their framework.
///
/// # Errors
///
/// The first defect found; the connection must be closed, as where the next response begins is unknown.
pub fn parse_response<'a>(
    head: &'a [u8],
    request_method: &str,
    limits: &HeadLimits,
) -> Result<ResponseHead<'a>, HeadError> {
    check_bytes(head, limits)?;
    if matches!(head, [] | [b'\r', ..]) {
        return Err(HeadError::StartLineInvalid);
    }

    let mut table: Table<'a> = [const { MaybeUninit::uninit() }; HEADERS_CAP];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let table = &mut table[..limits.lines_max()];
    match config.parse_response_with_uninit_headers(&mut parsed, head, table) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::Incomplete),
        Err(error) => return Err(HeadError::from_tokeniser(error, head)),
    }
    let status = parsed.code.filter(|status| (100..=599).contains(status)).ok_or(HeadError::StatusInvalid)?;
    let version = Version::from_minor(parsed.version);

    let mut headers = Headers::with_capacity(parsed.headers.len());
    let mut lengths = Lengths::default();
    let mut persistence = Persistence::default();
    for line in parsed.headers.iter() {
        let header = Header { name: line.name.as_bytes(), value: line.value };
        match header.name.len() {
            10 if header.is("connection") => persistence.note(header.value),
            14 if header.is("content-length") => {
                let before = lengths.note_content_length(header.value)?;
                if before.is_some() && before != lengths.content_length {
                    return Err(HeadError::ContentLengthRepeated);
                }
            }
            17 if header.is("transfer-encoding") => lengths.note_transfer_encoding(header.value)?,
            _ => {}
        }
        headers.push(header);
    }

    let framing = framing(status, request_method, lengths, version)?;
    let keep_alive = framing != ResponseFraming::UntilClose && persistence.keeps(version);
    let reason = parsed.reason.unwrap_or_default();
    Ok(ResponseHead { status, reason, version, headers, framing, keep_alive })
}

/// The rules of RFC 9112 §6.3 in their order.
fn framing(
    status: u16,
    request_method: &str,
    lengths: Lengths,
    version: Version,
) -> Result<ResponseFraming, HeadError> {
    lengths.check(version)?;
    if status < 200 || status == 204 {
        // An engine that announces a body here may well send one, and it would be read as the next response.
        if lengths.chunked || lengths.content_length.is_some_and(|length| length > 0) {
            return Err(HeadError::BodyForbidden);
        }
        return Ok(ResponseFraming::None);
    }
    Ok(match lengths.content_length {
        _ if status == 304 || request_method == "HEAD" => ResponseFraming::None,
        _ if lengths.chunked => ResponseFraming::Chunked,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
    })
}

#[cfg(test)]
mod tests;
