//! Response heads: framing by status, method and headers, and every form that is refused with its defect.

use super::*;

fn parse<'a>(head: &'a [u8], request_method: &str) -> Result<ResponseHead<'a>, HeadError> {
    parse_response(head, request_method, &HeadLimits::default())
}

const REFUSED: &[(&[u8], HeadError)] = &[
    (b"", HeadError::StartLineInvalid),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", HeadError::StartLineInvalid),
    (b"HTTP/1.1 200 OK\r\n", HeadError::Incomplete),
    (b"HTTP/1.1 200 OK\r\n\r\nx", HeadError::Incomplete),
    (b"HTTP/1.1 200 OK\n\r\n", HeadError::BareLf),
    (b"HTTP/1.1 200 OK\r\nX: a\n\r\n", HeadError::BareLf),
    (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", HeadError::BareCr),
    (b"HTTP/2.0 200 OK\r\n\r\n", HeadError::VersionUnsupported),
    (b"HTTP/1.1\r\n\r\n", HeadError::StartLineInvalid),
    (b"ICY 200 OK\r\n\r\n", HeadError::StartLineInvalid),
    (b"HTTP/1.1  200 OK\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 20 OK\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 2000 OK\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 099 OK\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 600 OK\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 200 O\0K\r\n\r\n", HeadError::StatusInvalid),
    (b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", HeadError::ObsFold),
    (b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", HeadError::SpaceBeforeColon),
    (b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n", HeadError::HeaderNameEmpty),
    (b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n", HeadError::HeaderNameInvalid),
    (b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", HeadError::HeaderValueInvalid),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1a\r\n\r\n", HeadError::ContentLengthInvalid),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", HeadError::ContentLengthRepeated),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", HeadError::ContentLengthInvalid),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HeadError::TransferEncodingUnsupported),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::TransferEncodingRepeated,
    ),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::TransferEncodingOnHttp10),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        HeadError::ContentLengthAndTransferEncoding,
    ),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n", HeadError::BodyForbidden),
    (b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::BodyForbidden),
];

#[test]
fn every_defect_is_named() {
    for &(head, defect) in REFUSED {
        assert_eq!(parse(head, "POST").err(), Some(defect), "{}", head.escape_ascii());
    }
}

#[test]
fn framing_follows_status_then_method_then_headers() {
    let length = "Content-Length: 5\r\n";
    let zero = "Content-Length: 0\r\n";
    let chunked = "Transfer-Encoding: Chunked\r\n";
    for (method, status, lines, framing, keep_alive) in [
        ("GET", 200, length, ResponseFraming::Length(5), true),
        ("GET", 200, zero, ResponseFraming::Length(0), true),
        ("GET", 200, chunked, ResponseFraming::Chunked, true),
        ("GET", 200, "", ResponseFraming::UntilClose, false),
        ("GET", 200, "Connection: keep-alive\r\n", ResponseFraming::UntilClose, false),
        ("HEAD", 200, length, ResponseFraming::None, true),
        ("HEAD", 200, chunked, ResponseFraming::None, true),
        ("HEAD", 200, "", ResponseFraming::None, true),
        ("head", 200, length, ResponseFraming::Length(5), true),
        ("GET", 304, length, ResponseFraming::None, true),
        ("GET", 204, zero, ResponseFraming::None, true),
        ("GET", 100, "", ResponseFraming::None, true),
        ("GET", 101, "", ResponseFraming::None, true),
        ("GET", 503, "Content-Length: 5\r\nConnection: X, Close\r\n", ResponseFraming::Length(5), false),
        ("GET", 200, "Content-Length: 5\r\ncontent-length: 5\r\n", ResponseFraming::Length(5), true),
    ] {
        let bytes = format!("HTTP/1.1 {status} R\r\n{lines}\r\n");
        let head = parse(bytes.as_bytes(), method).expect(&bytes);
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{method} {bytes:?}");
        assert_eq!(head.status, status);
    }
}

#[test]
fn http_10_closes_unless_it_says_otherwise() {
    let closing = parse(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "GET").expect("sound");
    let keeping = parse(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", "GET")
        .expect("sound");
    assert!(!closing.keep_alive && keeping.keep_alive);
}

#[test]
fn the_reason_may_be_missing_or_no_ascii() {
    for (head, reason) in [
        (b"HTTP/1.1 200\r\n\r\n".as_slice(), ""),
        (b"HTTP/1.1 200 \r\n\r\n", ""),
        (b"HTTP/1.1 200 Not So Bad\r\n\r\n", "Not So Bad"),
        (b"HTTP/1.1 200 \xe9t\xe9\r\n\r\n", ""),
    ] {
        assert_eq!(parse(head, "GET").expect("sound").reason, reason);
    }
}

#[test]
fn interim_heads_are_told_from_the_switch_of_protocols() {
    let is_interim = |head: &'static [u8]| parse(head, "GET").expect("sound").is_interim();
    assert!(is_interim(b"HTTP/1.1 100 Continue\r\n\r\n"));
    assert!(is_interim(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"));
    assert!(!is_interim(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    assert!(!is_interim(b"HTTP/1.1 200 OK\r\n\r\n"));
}
