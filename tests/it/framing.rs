//! Framing: what is malformed, ambiguous or too large is refused, its connection closed, and nobody else disturbed.

use testkit::client::Request;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    malformed_requests_are_refused_and_their_connection_closed
    a_body_larger_than_allowed_is_refused
}

/// What a request line and headers must not be, and the status that says so.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let post = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n";
    let text = |text: String| text.into_bytes();
    let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
    vec![
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n".to_vec(), 400),
        (
            "length and chunks",
            text(format!("{post}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{{}}")),
            400,
        ),
        ("two lengths", text(format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")), 400),
        ("a list of lengths", text(format!("{post}content-length: 2, 2\r\n\r\n{{}}")), 400),
        ("a negative length", text(format!("{post}content-length: -2\r\n\r\n{{}}")), 400),
        ("a signed length", text(format!("{post}content-length: +2\r\n\r\n{{}}")), 400),
        ("a hexadecimal length", text(format!("{post}content-length: 0x2\r\n\r\n{{}}")), 400),
        (
            "a length beyond 64 bits",
            text(format!("{post}content-length: 99999999999999999999\r\n\r\n{{}}")),
            400,
        ),
        ("an unknown coding", text(format!("{post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")), 501),
        (
            "a coding that only looks chunked",
            text(format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n")),
            501,
        ),
        ("chunked twice", text(format!("{post}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n")), 501),
        (
            "chunks in HTTP/1.0",
            b"POST /generate HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
        ),
        ("no host", b"GET /health HTTP/1.1\r\n\r\n".to_vec(), 400),
        ("two hosts", b"GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(), 400),
        ("bare line feeds", b"GET /health HTTP/1.1\nhost: a\n\n\r\n\r\n".to_vec(), 400),
        ("a folded header", b"GET /health HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n".to_vec(), 400),
        ("a space before the colon", b"GET /health HTTP/1.1\r\nhost : a\r\n\r\n".to_vec(), 400),
        ("a nul in a value", b"GET /health HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".to_vec(), 400),
        ("a bare return in a value", b"GET /health HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n".to_vec(), 400),
        ("a control byte in the target", b"GET /hea\x01lth HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 400),
        ("no target", b"GET HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 400),
        ("another version", b"GET /health HTTP/2.0\r\nhost: a\r\n\r\n".to_vec(), 505),
        ("a long line", text(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000))), 431),
        ("a long header", text(format!("{post}x: {}\r\n\r\n", "y".repeat(70_000))), 431),
        ("a head without end", text(format!("{post}x: {}", "y".repeat(200_000))), 431),
        ("too many headers", text(format!("{post}{many}\r\n")), 431),
        ("a chunk size that is none", text(format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n")), 400),
        (
            "a huge chunk size",
            text(format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n")),
            400,
        ),
        (
            "a chunk longer than it says",
            text(format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}}}\r\n0\r\n\r\n")),
            400,
        ),
    ]
}

fn malformed_requests_are_refused_and_their_connection_closed(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    let mut other = gateway.client();
    for (what, bytes, status) in malformed() {
        let mut client = gateway.client();
        // The refusal may come, and the connection go, before all of it is sent.
        let _ = client.try_send_bytes(&bytes);
        let response = client.response();
        assert_eq!(response.status, status, "{what}: {}", response.text());
        assert!(response.error_code().is_some(), "{what}: {response:?}");
        assert_eq!(response.headers.get("connection"), Some("close"), "{what}");
        assert!(client.is_closed(), "{what}: the connection lives on");
        assert_eq!(
            other.ask(&Request::get("/health")).status,
            200,
            "{what}: another connection is disturbed"
        );
    }
    assert!(worker.received().is_empty(), "none of it reaches a worker");
    assert_eq!(other.ask(&chat("hello")).status, 200);
    gateway.wait_idle();
}

fn a_body_larger_than_allowed_is_refused(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.launch().flag("--max-payload-size", 1000).worker(worker.url()).start();
    let chunked = "POST /generate HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
    for bytes in [
        Request::json("/generate", "x".repeat(1001)).bytes(),
        format!("{chunked}{}", chunk.repeat(4)).into_bytes(),
    ] {
        let mut client = gateway.client();
        client.send(&bytes);
        let response = client.response();
        assert_eq!(response.status, 413, "{}", response.text());
        assert_eq!(response.error_code().as_deref(), Some("payload_too_large"));
        assert!(client.is_closed());
    }
    assert!(worker.received().is_empty());
    let fits = format!("{{\"text\":\"{}\"}}", "x".repeat(989));
    assert_eq!(fits.len(), 1000);
    assert_eq!(gateway.ask(&Request::json("/generate", fits)).status, 200);
}

#[test]
fn a_refusal_reaches_a_client_that_sends_on() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--max-payload-size", 1000).worker(worker.url()).start();
    for _ in 0..20 {
        let mut client = gateway.client();
        // Closing on unread bytes would reset the connection and take the answer with it.
        let _ = client.try_send_bytes(&Request::json("/generate", "x".repeat(200_000)).bytes());
        assert_eq!(client.response().status, 413);
    }
}

#[test]
fn nothing_behind_a_refused_request_is_taken_for_another() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let smuggled = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    let both = format!(
        "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );
    let mut client = gateway.client();
    client.send(both.as_bytes());
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    drop(client);
    gateway.wait_idle();
    assert!(worker.received().is_empty());
}
