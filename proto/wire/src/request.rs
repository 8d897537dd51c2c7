//! Request heads: strict parsing of what a client sends (RFC 9112 §3, §6).

use std::mem::MaybeUninit;

use crate::{
    head::{HeadError, HeadLimits, Header, Headers, Lengths, Persistence, Table, Version, check_bytes},
    limits::HEADERS_CAP,
};

/// What a server of HTTP/2 is sent first (RFC 9113 §3.4), as far as it looks like a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// A request head, borrowed from the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    /// The method, case-sensitive, as sent.
    pub method: &'a str,
    /// The path and query as sent, or `*`; an absolute-form target is reduced to its path and query.
    pub target: &'a str,
    /// The version of the request line.
    pub version: Version,
    /// Every header line in the order sent.
    pub headers: Headers<'a>,
    /// Where the body ends.
    pub framing: RequestFraming,
    /// Whether the client lets the connection outlive this exchange.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// The host with its port if any: of an absolute-form target, else of `Host`; empty if neither says.
    pub host: &'a [u8],
}

/// Where a request's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// No length was stated: there is no body.
    None,
    /// `Content-Length` in bytes, possibly 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`; read it with [`crate::ChunkedDecoder`].
    Chunked,
}

// === impl RequestHead ===

impl<'a> RequestHead<'a> {
    /// The target without its query.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first value of a header; `name_lowercase` must be in lower case.
    pub fn header(&self, name_lowercase: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.is(name_lowercase)).map(|header| header.value)
    }
}

/// Parses the head that [`crate::head_end`] delimited.
///
/// One empty line before the request line is skipped (RFC 9112 §2.2). An absolute-form target without a path
/// but with a query (`http://host?q`) is refused: its origin form is no slice of the head, and no client
/// sends it.
///
/// # Errors
///
/// The first defect found, with [`HeadError::status`] for the answer; the connection must then be closed, as
/// where the next request begins is unknown.
pub fn parse_request<'a>(head: &'a [u8], limits: &HeadLimits) -> Result<RequestHead<'a>, HeadError> {
    check_bytes(head, limits)?;
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    match head {
        [] | [b'\r', ..] => return Err(HeadError::StartLineInvalid),
        _ if head.starts_with(HTTP2_PREFACE) => return Err(HeadError::Http2Preface),
        _ => {}
    }

    let mut table: Table<'a> = [const { MaybeUninit::uninit() }; HEADERS_CAP];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut table[..limits.lines_max()]) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::Incomplete),
        Err(error) => return Err(HeadError::from_tokeniser(error, head)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HeadError::Incomplete);
    };
    let version = Version::from_minor(parsed.version);
    let (target, authority) = split_target(method, target)?;

    let mut headers = Headers::with_capacity(parsed.headers.len());
    let mut lines = Lines::default();
    for line in parsed.headers.iter() {
        let header = Header { name: line.name.as_bytes(), value: line.value };
        lines.note(&header)?;
        headers.push(header);
    }

    let framing = lines.framing(version)?;
    let host = lines.host(version, authority)?;
    let keep_alive = lines.persistence.keeps(version);
    let expect_continue = lines.expect_continue && version == Version::Http11;
    Ok(RequestHead { method, target, version, headers, framing, keep_alive, expect_continue, host })
}

/// What the header lines of a request say about its framing and its connection.
#[derive(Default)]
struct Lines<'a> {
    lengths: Lengths,
    persistence: Persistence,
    host: Option<&'a [u8]>,
    expect_continue: bool,
}

// === impl Lines ===

impl<'a> Lines<'a> {
    #[inline]
    fn note(&mut self, header: &Header<'a>) -> Result<(), HeadError> {
        // By length first: most names end here without a comparison.
        match header.name.len() {
            4 if header.is("host") => once(self.host.replace(header.value), HeadError::HostRepeated)?,
            6 if header.is("expect") => {
                self.expect_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if header.is("connection") => self.persistence.note(header.value),
            // Equal repeats are refused too: no client needs them, and a list of lengths is how requests are
            // split.
            14 if header.is("content-length") => {
                once(self.lengths.note_content_length(header.value)?, HeadError::ContentLengthRepeated)?;
            }
            17 if header.is("transfer-encoding") => self.lengths.note_transfer_encoding(header.value)?,
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<RequestFraming, HeadError> {
        self.lengths.check(version)?;
        Ok(match self.lengths.content_length {
            _ if self.lengths.chunked => RequestFraming::Chunked,
            Some(length) => RequestFraming::Length(length),
            None => RequestFraming::None,
        })
    }

    /// The host asked for: an absolute-form target overrides `Host`, which must be there all the same (RFC
    /// 9112 §3.2.2).
    fn host(&self, version: Version, authority: Option<&'a str>) -> Result<&'a [u8], HeadError> {
        match self.host {
            None if version == Version::Http11 => return Err(HeadError::HostMissing),
            Some(host) if !is_host(host) => return Err(HeadError::HostInvalid),
            _ => {}
        }
        Ok(authority.map(str::as_bytes).or(self.host).unwrap_or_default())
    }
}

/// Refuses a line whose like was there `before`.
fn once<T>(before: Option<T>, repeated: HeadError) -> Result<(), HeadError> {
    before.map_or(Ok(()), |_| Err(repeated))
}

/// The path and query of a target, and its authority when it names one (RFC 9112 §3.2).
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::ConnectUnsupported);
    }
    // The tokeniser has refused space and control bytes. A fragment never leaves a client (RFC 9110 §4.2.5).
    if !target.is_ascii() || target.contains('#') {
        return Err(HeadError::TargetInvalid);
    }
    if target.starts_with('/') {
        return Ok((target, None));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let rest = strip_scheme(target).ok_or(HeadError::TargetInvalid)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(HeadError::TargetInvalid);
    }
    match path {
        "" if method == "OPTIONS" => Ok(("*", Some(authority))),
        "" => Ok(("/", Some(authority))),
        _ if path.starts_with('?') => Err(HeadError::TargetInvalid),
        _ => Ok((path, Some(authority))),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Whether the bytes are `uri-host [ ":" port ]` (RFC 9110 §7.2); empty is allowed.
///
/// Stricter than the grammar in one point: a comma is refused, since it is what joins two hosts into one
/// line.
fn is_host(host: &[u8]) -> bool {
    let port = if let Some(bracketed) = host.strip_prefix(b"[") {
        let Some(end) = bracketed.iter().position(|&b| b == b']') else { return false };
        let (address, after) = (&bracketed[..end], &bracketed[end + 1..]);
        if address.is_empty() || !address.iter().all(|&b| b.is_ascii_hexdigit() || b == b':' || b == b'.') {
            return false;
        }
        after
    } else {
        let end = host.iter().position(|&b| b == b':').unwrap_or(host.len());
        if !host[..end].iter().all(|&b| is_host_byte(b)) {
            return false;
        }
        &host[end..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests;
