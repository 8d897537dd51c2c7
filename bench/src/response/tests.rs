//! Responses, whole and cut at every byte.

use super::*;

/// Parses `response` in two pieces, cut at `cut`.
fn parse(response: &[u8], cut: usize) -> (ResponseParser, Vec<u8>, Result<(), BadResponse>) {
    let mut parser = ResponseParser::new();
    let mut body = Vec::new();
    let mut result = Ok(());
    for piece in [&response[..cut], &response[cut..]] {
        result = result.and_then(|()| parser.push(piece, |data| body.extend_from_slice(data)));
    }
    (parser, body, result)
}

fn check(response: &str, status: u16, body: &str) {
    for cut in 0..=response.len() {
        let (parser, got, result) = parse(response.as_bytes(), cut);
        assert_eq!(result, Ok(()), "cut at {cut}");
        assert!(parser.is_done(), "cut at {cut}");
        assert_eq!((parser.status(), got.as_slice()), (status, body.as_bytes()), "cut at {cut}");
    }
}

fn check_bad(response: &str, bad: BadResponse) {
    for cut in 0..=response.len() {
        assert_eq!(parse(response.as_bytes(), cut).2, Err(bad), "cut at {cut}");
    }
}

#[test]
fn bodies_come_out_of_either_framing() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello");
    check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "");
    check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{chunked}5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"), 200, "hello world");
    check(&format!("{chunked}2\r\n\r\n\r\n0\r\ntrailer: 1\r\n\r\n"), 200, "\r\n");
    check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, "x");
}

#[test]
fn malformed_responses_are_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    check_bad(&format!("{chunked}+5\r\nhello\r\n0\r\n\r\n"), BadResponse::Framing);
    check_bad(&format!("{chunked}4\r\nhello\r\n0\r\n\r\n"), BadResponse::Framing);
    check_bad("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy", BadResponse::Surplus);
    check_bad("ICY 200 OK\r\n\r\n", BadResponse::Head);
}

#[test]
fn a_body_without_framing_ends_with_the_connection() {
    let (mut parser, body, result) = parse(b"HTTP/1.1 200 OK\r\n\r\nabc", 4);
    assert_eq!((result, body.as_slice()), (Ok(()), &b"abc"[..]));
    assert!(!parser.is_done());
    assert!(parser.end() && parser.is_done() && !parser.keeps_alive());
}

#[test]
fn a_cut_response_is_not_done() {
    let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for end in 0..response.len() {
        let (mut parser, _, result) = parse(&response.as_bytes()[..end], 0);
        assert_eq!(result, Ok(()));
        assert!(!parser.end(), "ended at {end}");
    }
}
