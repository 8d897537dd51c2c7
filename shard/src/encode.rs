//! Heads as they leave the gateway: requests to workers, responses to clients.

use fleet::secret::Secret;
use fleet::snapshot::Worker;
use otlp::SpanContext;
use wire::Header;
use wire::RequestHead;
use wire::ResponseHead;

use crate::explain;
use crate::respond;
use crate::respond::Connection;

/// Appends the head of a request to a worker: the client's, without what belongs to its own connection, and with the key
/// that goes before the client's.
pub(crate) fn request_head(
    head: &RequestHead<'_>,
    (worker, key): (&Worker, Option<&Secret>),
    request_id: &str,
    span: Option<&SpanContext>,
    body_len: usize,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(worker.base_path.as_bytes());
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    respond::header("host", &worker.host, out);
    let named = has_connection_names(&head.headers);
    let mut is_authorized = key.is_some();
    for header in &head.headers {
        let is_ours = match header.name.len() {
            4 => header.is("host"),
            6 => header.is("expect"),
            11 => span.is_some() && header.is("traceparent"),
            12 => header.is("x-request-id"),
            // One of several is enough.
            13 => header.is("authorization") && std::mem::replace(&mut is_authorized, true),
            14 => header.is("content-length"),
            _ => false,
        };
        if !is_ours && !is_connection_header(header, &head.headers, named) {
            copy(header, out);
        }
    }
    if let Some(key) = key {
        respond::header("authorization", key, out);
    }
    respond::header("x-request-id", request_id, out);
    if let Some(span) = span {
        out.extend_from_slice(b"traceparent: ");
        out.extend_from_slice(&span.traceparent());
        out.extend_from_slice(b"\r\n");
    }
    // A POST says its length even when it has no body (RFC 9110 §8.6).
    if body_len > 0 || head.method != "GET" {
        respond::content_length(body_len as u64, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// What names of CORS headers begin with.
const CORS_PREFIX: &[u8] = b"access-control-";

/// How a response's body is delimited towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// There is none: the status or the method forbids a body. A length the worker stated is passed on.
    NoBody,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection's end.
    Close,
}

/// Appends the head of a response to a client: the worker's, without what belongs to its own connection.
pub(crate) fn response_head(
    head: &ResponseHead<'_>,
    request_id: &str,
    delimiter: Delimiter,
    connection: Connection,
    explanation: Option<&str>,
    cors: &[u8],
    out: &mut Vec<u8>,
) {
    respond::status_line(head.status, out);
    let named = has_connection_names(&head.headers);
    for header in &head.headers {
        let is_ours = match header.name.len() {
            12 => header.is("x-request-id"),
            14 => header.is("content-length") && delimiter != Delimiter::NoBody,
            // Which pages may read an answer is the gateway's to say, not a worker's.
            22.. => header.name[..CORS_PREFIX.len()].eq_ignore_ascii_case(CORS_PREFIX),
            _ => false,
        };
        if !is_ours && !is_connection_header(header, &head.headers, named) {
            copy(header, out);
        }
    }
    respond::header("x-request-id", request_id, out);
    out.extend_from_slice(cors);
    if let Some(explanation) = explanation {
        respond::header(explain::HEADER, explanation, out);
    }
    match delimiter {
        Delimiter::NoBody | Delimiter::Close => {}
        Delimiter::Length(length) => respond::content_length(length, out),
        Delimiter::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    respond::connection(connection, out);
    out.extend_from_slice(b"\r\n");
}

/// Whether `Connection` names headers beyond those that are hop-by-hop anyway: rarely.
fn has_connection_names(all: &[Header<'_>]) -> bool {
    wire::connection_names(all).any(|name| !wire::is_hop_by_hop(name) && !name.eq_ignore_ascii_case(b"close"))
}

/// Hop-by-hop by its own name, or because `Connection` names it (RFC 9110 §7.6.1).
fn is_connection_header(header: &Header<'_>, all: &[Header<'_>], has_names: bool) -> bool {
    wire::is_hop_by_hop(header.name)
        || (has_names && wire::connection_names(all).any(|name| name.eq_ignore_ascii_case(header.name)))
}

fn copy(header: &Header<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(header.name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(header.value);
    out.extend_from_slice(b"\r\n");
}
