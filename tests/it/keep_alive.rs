//! Connections: kept, pipelined, HTTP/1.0, HEAD, and how long they may be slow or idle.

use testkit::client::Request;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    a_hundred_requests_use_one_connection_on_both_sides
    pipelined_requests_are_answered_in_order
    slow_heads_and_bodies_time_out
}

fn a_hundred_requests_use_one_connection_on_both_sides(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    let probes = worker.accepted();
    let mut client = gateway.client();
    for _ in 0..100 {
        assert_eq!(client.ask(&chat("hello")).status, 200);
    }
    assert_eq!(worker.received().len(), 100);
    assert_eq!(worker.accepted() - probes, 1);
}

fn pipelined_requests_are_answered_in_order(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    let mut bytes = Vec::new();
    for at in 0..5 {
        bytes.extend_from_slice(&chat(&format!("number {at}")).bytes());
        bytes.extend_from_slice(&Request::get("/health").bytes());
    }
    client.send(&bytes);
    for at in 0..5 {
        let exchange = worker.exchange();
        let body = String::from_utf8_lossy(&exchange.request.body).into_owned();
        assert!(body.contains(&format!("number {at}")), "{body}");
        exchange.answer(&format!("{{\"n\":{at}}}"));
        assert_eq!(client.response().text(), format!("{{\"n\":{at}}}"));
        assert_eq!(client.response().text(), "OK");
    }
}

#[test]
fn a_client_that_ends_its_sending_still_counts_as_gone() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let exchange = worker.exchange();
    // Its end of sending is how a client's leaving looks.
    client.end_of_sending();
    exchange.wait_closed();
    gateway.wait_idle();
}

#[test]
fn connection_close_is_honoured() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for request in [chat("hello"), Request::get("/health")] {
        let mut client = gateway.client();
        let response = client.ask(&request.header("connection", "close"));
        assert_eq!(response.status, 200);
        assert_eq!(response.headers.get("connection"), Some("close"));
        assert!(client.is_closed());
    }
}

#[test]
fn http_1_0_closes_unless_it_asks_to_be_kept() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    client.send(b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), "OK");
    assert!(client.is_closed());

    let mut client = gateway.client();
    for _ in 0..3 {
        client.send(b"POST /generate HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}");
        let response = client.response();
        assert_eq!(response.status, 200);
        assert_eq!(response.headers.get("connection"), Some("keep-alive"));
    }
}

#[test]
fn http_1_0_gets_no_chunks() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    client.send(b"POST /generate HTTP/1.0\r\ncontent-length: 15\r\n\r\n{\"stream\":true}");
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    exchange.close_stream();
    let (status, headers) = client.head();
    assert_eq!((status, headers.get("transfer-encoding")), (200, None));
    assert_eq!(client.events(), ["1", "[DONE]"]);
    assert!(client.is_closed());
}

#[test]
fn head_is_answered_without_a_body() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for path in ["/health", "/liveness", "/readiness", "/v1/models"] {
        let body = client.ask(&Request::get(path)).body;
        let head = client.ask(&Request::new("HEAD", path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers.get("content-length"), Some(body.len().to_string().as_str()), "{path}");
    }
}

#[test]
fn an_absolute_target_is_read_as_its_path() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    let response = client.ask(&Request::json("http://gateway/v1/completions?x=1", "{}"));
    assert_eq!(response.status, 200);
    assert_eq!(worker.received()[0].line, "POST /v1/completions?x=1");
}

fn slow_heads_and_bodies_time_out(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup
        .launch()
        .flag("--head-timeout-secs", 1)
        .flag("--body-timeout-secs", 1)
        .flag("--keep-alive-timeout-secs", 1)
        .worker(worker.url())
        .start();
    // All three wait at the same time.
    let (mut head, mut body, mut idle) = (gateway.client(), gateway.client(), gateway.client());
    head.send(b"POST /generate HTTP/1.1\r\nhost: a\r\nx: ");
    body.send(b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{");
    assert_eq!(idle.ask(&Request::get("/health")).status, 200);
    for slow in [&mut head, &mut body] {
        let response = slow.response();
        assert_eq!(response.status, 408, "{}", response.text());
        assert_eq!(response.error_code().as_deref(), Some("request_timeout"));
        assert!(slow.is_closed());
    }
    assert!(idle.is_closed());
    assert!(worker.received().is_empty());
    gateway.wait_idle();
}

#[test]
fn a_head_that_drips_times_out_all_the_same() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--head-timeout-secs", 1).worker(worker.url()).start();
    let mut client = gateway.client();
    let mut drip = gateway.client();
    drip.send(b"GET /health HTTP/1.1\r\nhost: a\r\nx: ");
    // A byte now and then does not buy more time.
    let is_cut = testkit::wait::holds_within(testkit::wait::DEADLINE, || {
        assert_eq!(client.ask(&Request::get("/health")).status, 200);
        drip.try_send_bytes(b"y").is_err() || drip.has_answer()
    });
    assert!(is_cut);
}
