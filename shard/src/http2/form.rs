//! HTTP/2 heads in the form of HTTP/1.1 and back, without any socket.
//!
//! The text goes through the same strict parser as any request: what has no place in HTTP/1.1 is refused there, for
//! the same reason and in the same words.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http::request;
use http::response;
use wire::Header;
use wire::RequestHead;
use wire::ResponseHead;

/// How a body is delimited in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// There is no body.
    Nothing,
    /// By the length that a header of the message states.
    Stated,
    /// By chunks.
    Chunks,
}

impl Delimiter {
    /// What a message with these headers needs.
    pub(super) fn of(headers: &HeaderMap, has_body: bool) -> Self {
        match (has_body, headers.contains_key(header::CONTENT_LENGTH)) {
            (false, _) => Self::Nothing,
            (true, true) => Self::Stated,
            (true, false) => Self::Chunks,
        }
    }
}

/// Appends a client's request head.
pub(super) fn write_request(head: &request::Parts, delimiter: Delimiter, out: &mut Vec<u8>) {
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    if head.method == Method::CONNECT {
        out.extend_from_slice(authority.unwrap_or_default());
    } else {
        out.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // An authority that no host can have is left out: without a host the request is refused. One that the Host header
    // contradicts is written beside it: with two it is refused too.
    if let Some(authority) = authority.filter(|authority| is_host(authority))
        && head.headers.get(header::HOST).is_none_or(|host| !host.as_bytes().eq_ignore_ascii_case(authority))
    {
        line(b"host", authority, out);
    }
    write_headers(&head.headers, delimiter, out);
}

/// Appends header fields, the body's delimiter, and the end of the head.
fn write_headers(headers: &HeaderMap, delimiter: Delimiter, out: &mut Vec<u8>) {
    for (name, value) in headers {
        // Several Cookie fields are one in HTTP/1.1 (RFC 9113 §8.2.3).
        if name != header::COOKIE && !wire::is_hop_by_hop(name.as_str().as_bytes()) {
            line(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let Some(first) = cookies.next() {
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for cookie in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(cookie.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    if delimiter == Delimiter::Chunks {
        line(b"transfer-encoding", b"chunked", out);
    }
    out.extend_from_slice(b"\r\n");
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn is_host(authority: &[u8]) -> bool {
    let is_host_byte = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
    };
    !authority.is_empty() && authority.iter().all(is_host_byte)
}

/// The head of an answer as HTTP/2 has it; none if it cannot be said there.
pub(super) fn response(head: &ResponseHead<'_>) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = header_map(&head.headers)?;
    Some(response)
}

/// The head of a request to a worker as HTTP/2 has it; none if it cannot be said there.
pub(super) fn request(head: &RequestHead<'_>, scheme: &str) -> Option<Request<()>> {
    let mut request = Request::new(());
    let mut headers = header_map(&head.headers)?;
    let host = headers.remove(header::HOST)?;
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() =
        Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(head.target).build().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// Appends the head of a worker's answer. Its stream is good for one exchange, as it says.
pub(super) fn write_response(head: &response::Parts, delimiter: Delimiter, is_head: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.extend_from_slice(b" \r\nconnection: close\r\n");
    let may_have_body =
        !is_head && head.status != StatusCode::NO_CONTENT && head.status != StatusCode::NOT_MODIFIED;
    if delimiter == Delimiter::Nothing && may_have_body && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        line(b"content-length", b"0", out);
    }
    write_headers(&head.headers, delimiter, out);
}

/// Header fields without those of a connection.
fn header_map(headers: &[Header<'_>]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        if wire::is_hop_by_hop(header.name) {
            continue;
        }
        let name = HeaderName::from_bytes(header.name).ok()?;
        let value = HeaderValue::from_bytes(header.value).ok()?;
        map.try_append(name, value).ok()?;
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use wire::RequestFraming;
    use wire::ResponseFraming;

    use super::*;
    use crate::limits::OWN_HEAD_LIMITS;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request").into_parts().0
    }

    #[track_caller]
    fn check(head: &request::Parts, delimiter: Delimiter, expect: &str) {
        let mut text = Vec::new();
        write_request(head, delimiter, &mut text);
        assert_eq!(String::from_utf8_lossy(&text), expect);
    }

    #[test]
    fn a_request_is_written_as_http1_has_it() {
        check(
            &parts("POST", "http://a:1/generate?x=1", &[("x-b", "1"), ("content-length", "2")]),
            Delimiter::Stated,
            "POST /generate?x=1 HTTP/1.1\r\nhost: a:1\r\nx-b: 1\r\ncontent-length: 2\r\n\r\n",
        );
        check(
            &parts("POST", "http://a/", &[("te", "trailers")]),
            Delimiter::Chunks,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        check(
            &parts("GET", "http://a/", &[("cookie", "a=1"), ("cookie", "b=2")]),
            Delimiter::Nothing,
            "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2\r\n\r\n",
        );
        check(
            &parts("OPTIONS", "*", &[("host", "a")]),
            Delimiter::Nothing,
            "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        );
    }

    #[test]
    fn hosts_are_one_or_the_request_is_refused() {
        let refusal = |head: &request::Parts| {
            let mut text = Vec::new();
            write_request(head, Delimiter::Nothing, &mut text);
            wire::parse_request(&text, &OWN_HEAD_LIMITS).err().map(|error| error.status())
        };
        assert_eq!(refusal(&parts("GET", "http://a/", &[])), None);
        assert_eq!(refusal(&parts("GET", "http://a/", &[("host", "A")])), None);
        assert_eq!(refusal(&parts("GET", "/", &[("host", "a")])), None);
        assert_eq!(refusal(&parts("GET", "http://a/", &[("host", "b")])), Some(400));
        assert_eq!(refusal(&parts("GET", "http://a/", &[("host", "a"), ("host", "b")])), Some(400));
        assert_eq!(refusal(&parts("GET", "http://root@a/", &[])), Some(400));
        assert_eq!(refusal(&parts("GET", "/", &[])), Some(400));
    }

    #[test]
    fn a_request_to_a_worker_survives_the_way_there() {
        let text =
            b"POST /base/generate?x=1 HTTP/1.1\r\nhost: w:1\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\n";
        let head = wire::parse_request(text, &OWN_HEAD_LIMITS).expect("a head");
        assert_eq!(head.framing, RequestFraming::Length(2));
        let request = request(&head, "https").expect("it can be said");
        assert_eq!(request.uri().to_string(), "https://w:1/base/generate?x=1");
        assert_eq!((request.method().as_str(), request.headers().len()), ("POST", 2));
    }

    #[test]
    fn an_answer_says_how_it_ends() {
        let framing = |status: u16, length: Option<&str>, delimiter, method: &str| {
            let mut builder = Response::builder().status(status);
            if let Some(length) = length {
                builder = builder.header("content-length", length);
            }
            let head = builder.body(()).expect("an answer").into_parts().0;
            let mut text = Vec::new();
            write_response(&head, delimiter, method == "HEAD", &mut text);
            let head = wire::parse_response(&text, method, &OWN_HEAD_LIMITS).expect("a head");
            assert!(!head.keep_alive, "a stream is good for one exchange");
            head.framing
        };
        assert_eq!(framing(200, None, Delimiter::Chunks, "POST"), ResponseFraming::Chunked);
        assert_eq!(framing(200, Some("3"), Delimiter::Stated, "POST"), ResponseFraming::Length(3));
        assert_eq!(framing(200, None, Delimiter::Nothing, "POST"), ResponseFraming::Length(0));
        assert_eq!(framing(204, None, Delimiter::Nothing, "POST"), ResponseFraming::None);
        assert_eq!(framing(304, Some("3"), Delimiter::Nothing, "GET"), ResponseFraming::None);
        assert_eq!(framing(200, Some("3"), Delimiter::Nothing, "HEAD"), ResponseFraming::None);
    }

    #[test]
    fn an_answer_loses_what_belongs_to_a_connection() {
        let text =
            b"HTTP/1.1 200 OK\r\nConnection: close\r\ntransfer-encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
        let head = wire::parse_response(text, "GET", &OWN_HEAD_LIMITS).expect("a head");
        let response = response(&head).expect("it can be said");
        let named: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(named, [("x-a", &b"1"[..]), ("x-a", b"2")]);
    }
}
