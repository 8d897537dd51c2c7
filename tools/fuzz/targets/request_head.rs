//! Request heads: whatever is accepted is sound, and reads the same when it is written anew.

use wire::{HeadLimits, RequestFraming, parse_request};

use super::{check_head_end, check_headers, version_text, write_head};

/// One input: bytes a client sent.
pub fn fuzz_request_head(data: &[u8]) {
    let limits = HeadLimits { head_bytes_max: usize::MAX, ..HeadLimits::default() };
    let end = check_head_end(data).unwrap_or(data.len());
    let Ok(head) = parse_request(&data[..end], &limits) else { return };

    check_headers(&head.headers);
    assert!(head.target.bytes().all(|b| b.is_ascii_graphic()), "{:?}", head.target);
    assert!(head.target.starts_with('/') || head.target == "*", "{:?}", head.target);
    assert!(
        !data[..end].split(|&b| b == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r")),
        "a bare LF"
    );
    let lengths = head.headers.iter().filter(|header| header.is("content-length")).count();
    let codings = head.headers.iter().filter(|header| header.is("transfer-encoding")).count();
    let expected = match head.framing {
        RequestFraming::None => (0, 0),
        RequestFraming::Length(_) => (1, 0),
        RequestFraming::Chunked => (0, 1),
    };
    assert_eq!((lengths, codings), expected, "what the lines say is how the body is read");

    let start_line = format!("{} {} {}", head.method, head.target, version_text(head.version));
    let written = write_head(&start_line, &head.headers);
    let again = parse_request(&written, &limits).expect("what was accepted is accepted again");
    assert_eq!((again.method, again.target, again.framing), (head.method, head.target, head.framing));
    assert_eq!((again.keep_alive, again.expect_continue), (head.keep_alive, head.expect_continue));
    assert_eq!(again.headers.as_slice(), head.headers.as_slice());
}
