//! Request heads: what is read, and every form that is refused with its defect.

use super::*;

fn parse(head: &[u8]) -> Result<RequestHead<'_>, HeadError> {
    parse_request(head, &HeadLimits::default())
}

/// Heads refused, each with its defect and the status that answers it.
const REFUSED: &[(&[u8], HeadError, u16)] = &[
    // Ends and lines.
    (b"", HeadError::StartLineInvalid, 400),
    (b"\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n", HeadError::Incomplete, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx", HeadError::Incomplete, 400),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::BareLf, 400),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::BareLf, 400),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", HeadError::BareLf, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", HeadError::BareLf, 400),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", HeadError::BareCr, 400),
    (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", HeadError::BareCr, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", HeadError::BareCr, 400),
    // Request line.
    (b"GET\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET /\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::MethodInvalid, 400),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::MethodInvalid, 400),
    (b"GET / HTTP\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", HeadError::StartLineInvalid, 400),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", HeadError::VersionUnsupported, 505),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", HeadError::VersionUnsupported, 505),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", HeadError::VersionUnsupported, 505),
    (b"PRI * HTTP/2.0\r\n\r\n", HeadError::Http2Preface, 505),
    // Target.
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::ConnectUnsupported, 501),
    (b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    (b"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetInvalid, 400),
    // Header lines.
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadError::ObsFold, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", HeadError::ObsFold, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n", HeadError::ObsFold, 400),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", HeadError::SpaceBeforeColon, 400),
    (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", HeadError::SpaceBeforeColon, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", HeadError::HeaderNameEmpty, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", HeadError::HeaderNameInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): 1\r\n\r\n", HeadError::HeaderNameInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3: 1\r\n\r\n", HeadError::HeaderNameInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", HeadError::HeaderNameInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", HeadError::HeaderValueInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", HeadError::HeaderValueInvalid, 400),
    (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789abcdef0123456789\x1f\r\n\r\n",
        HeadError::HeaderValueInvalid,
        400,
    ),
    (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789abcdef0123456789\x7f\r\n\r\n",
        HeadError::HeaderValueInvalid,
        400,
    ),
    // Host.
    (b"GET / HTTP/1.1\r\n\r\n", HeadError::HostMissing, 400),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", HeadError::HostMissing, 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::HostRepeated, 400),
    (b"GET / HTTP/1.0\r\nHost: a\r\nhOST: b\r\n\r\n", HeadError::HostRepeated, 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: []\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: [a b]\r\n\r\n", HeadError::HostInvalid, 400),
    (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", HeadError::HostInvalid, 400),
];

/// Framing lines refused on an otherwise sound request.
const FRAMING_REFUSED: &[(&str, &str, HeadError, u16)] = &[
    ("1.1", "Content-Length:", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: +1", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: -1", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 0x1", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 1 1", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 1, 1", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 1;", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 18446744073709551616", HeadError::ContentLengthInvalid, 400),
    ("1.1", "Content-Length: 1\r\nContent-Length: 1", HeadError::ContentLengthRepeated, 400),
    ("1.1", "Content-Length: 1\r\ncontent-length: 2", HeadError::ContentLengthRepeated, 400),
    (
        "1.1",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        HeadError::ContentLengthAndTransferEncoding,
        400,
    ),
    (
        "1.1",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        HeadError::ContentLengthAndTransferEncoding,
        400,
    ),
    ("1.0", "Transfer-Encoding: chunked", HeadError::TransferEncodingOnHttp10, 400),
    (
        "1.1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        HeadError::TransferEncodingRepeated,
        400,
    ),
    ("1.1", "Transfer-Encoding:", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: identity", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: gzip, chunked", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: chunked, chunked", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: chunked,", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: chunked;q=1", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: \"chunked\"", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: xchunked", HeadError::TransferEncodingUnsupported, 501),
    ("1.1", "Transfer-Encoding: \u{b}chunked", HeadError::HeaderValueInvalid, 400),
];

#[test]
fn every_defect_is_named() {
    for &(head, defect, status) in REFUSED {
        assert_eq!(parse(head).err(), Some(defect), "{}", head.escape_ascii());
        assert_eq!(defect.status(), status, "{defect:?}");
    }
}

#[test]
fn every_defect_of_framing_is_named() {
    for &(version, lines, defect, status) in FRAMING_REFUSED {
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n");
        assert_eq!(parse(head.as_bytes()).err(), Some(defect), "{lines:?}");
        assert_eq!(defect.status(), status, "{defect:?}");
    }
}

#[test]
fn a_usual_head_is_read_without_the_heap() {
    let head = parse(
        b"POST /v1/chat/completions?x=1?2 HTTP/1.1\r\nHOST: gateway:30000\r\nContent-Type:application/json\r\n\
          X-Tab:\t a b \t\r\nX-Empty:\r\nContent-Length: 18446744073709551615\r\nExpect: 100-Continue\r\n\r\n",
    )
    .expect("the head is sound");
    assert_eq!(
        (head.method, head.target, head.version),
        ("POST", "/v1/chat/completions?x=1?2", Version::Http11)
    );
    assert_eq!((head.path(), head.query()), ("/v1/chat/completions", Some("x=1?2")));
    assert_eq!(head.framing, RequestFraming::Length(u64::MAX));
    assert!(head.keep_alive && head.expect_continue);
    assert_eq!(head.host, b"gateway:30000");
    assert_eq!(head.headers[0].name, b"HOST");
    assert_eq!(head.header("content-type"), Some(b"application/json".as_slice()));
    assert_eq!(head.header("x-tab"), Some(b"a b".as_slice()));
    assert_eq!(head.header("x-empty"), Some(b"".as_slice()));
    assert_eq!(head.header("x-none"), None);
    assert!(!head.headers.spilled());
}

#[test]
fn targets_and_hosts_are_read_in_every_form() {
    for (method, target, host, path, query, authority) in [
        ("GET", "/", "a", "/", None, "a"),
        ("GET", "/?", "", "/", Some(""), ""),
        ("GET", "//x/../y", "[::1]:80", "//x/../y", None, "[::1]:80"),
        ("OPTIONS", "*", "a:", "*", None, "a:"),
        ("OPTIONS", "http://b", "a", "*", None, "b"),
        ("GET", "http://b", "a", "/", None, "b"),
        ("GET", "HTTPS://b:1/c?d", "a", "/c", Some("d"), "b:1"),
        ("M-SEARCH", "/%20|{}", "a_b%20.c", "/%20|{}", None, "a_b%20.c"),
    ] {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let head = parse(bytes.as_bytes()).expect(&bytes);
        assert_eq!((head.method, head.path(), head.query()), (method, path, query), "{bytes:?}");
        assert_eq!(head.host, authority.as_bytes(), "{bytes:?}");
        assert_eq!(head.framing, RequestFraming::None);
    }
}

#[test]
fn one_empty_line_may_come_first() {
    assert!(parse(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn http_10_needs_no_host_and_waits_for_no_continue() {
    let head = parse(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n").expect("sound");
    assert_eq!((head.version, head.framing), (Version::Http10, RequestFraming::Length(0)));
    assert!(!head.keep_alive && !head.expect_continue && head.host.is_empty());
}

#[test]
fn chunked_is_known_in_any_case() {
    let head = parse(b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: \tChunked \r\n\r\n").expect("sound");
    assert_eq!(head.framing, RequestFraming::Chunked);
}

#[test]
fn limits_hold_to_the_byte_and_the_line() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(9));
    let with = |head_bytes_max, headers_max| {
        parse_request(head.as_bytes(), &HeadLimits { head_bytes_max, headers_max })
            .map(|head| head.headers.len())
    };
    assert_eq!(with(head.len(), 10), Ok(10));
    assert_eq!(with(head.len() - 1, 10), Err(HeadError::HeadTooLong));
    assert_eq!(with(head.len(), 9), Err(HeadError::TooManyHeaders));
    assert_eq!((HeadError::HeadTooLong.status(), HeadError::TooManyHeaders.status()), (431, 431));

    let crowded = |lines| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(lines));
    let limits = HeadLimits { headers_max: usize::MAX, ..HeadLimits::default() };
    assert!(parse_request(crowded(HEADERS_CAP - 1).as_bytes(), &limits).is_ok());
    assert_eq!(
        parse_request(crowded(HEADERS_CAP).as_bytes(), &limits).err(),
        Some(HeadError::TooManyHeaders)
    );
}

#[test]
fn a_head_cut_short_is_never_accepted() {
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    for len in 0..head.len() {
        assert!(parse(&head[..len]).is_err(), "{len} bytes");
    }
}
