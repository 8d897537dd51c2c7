//! Peers that say more, less or sooner than they should: nobody else may notice.

use std::time::Duration;

use testkit::client::Request;
use testkit::wait;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    unasked_bytes_of_a_worker_reach_no_client
    an_early_answer_is_the_answer_and_no_failure
    a_client_that_sends_a_byte_more_and_leaves_is_noticed
}

fn unasked_bytes_of_a_worker_reach_no_client(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let mut exchange = worker.exchange();
    exchange.send(&json_answer("{\"for\":\"first\"}"));
    assert_eq!(first.response().text(), "{\"for\":\"first\"}");
    exchange.send(&json_answer("{\"for\":\"nobody\"}"));
    for name in ["second", "third"] {
        let mut client = gateway.client();
        client.send(&chat(name).bytes());
        worker.exchange().answer(&format!("{{\"for\":\"{name}\"}}"));
        assert_eq!(client.response().text(), format!("{{\"for\":\"{name}\"}}"));
    }
    exchange.wait_closed();
}

fn an_early_answer_is_the_answer_and_no_failure(setup: Setup) {
    let worker = Worker::manual();
    worker.hand_over_unread();
    let gateway = setup.start(&[&worker]);
    for _ in 0..4 {
        let mut client = gateway.client();
        let body = format!("{{\"prompt\":\"{}\"}}", "x".repeat(8 << 20));
        client.send(&Request::json("/v1/completions", body).bytes());
        let mut exchange = worker.exchange();
        exchange.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().status, 413);
        exchange.close();
    }
    assert_eq!(gateway.workers().len(), 1, "it is still there");
    gateway.wait_idle();
}

fn a_client_that_sends_a_byte_more_and_leaves_is_noticed(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for more in [&b"\r\n"[..], b"G", b"POST / HTTP/1.1\r\n"] {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        let exchange = worker.exchange();
        client.send(more);
        drop(client);
        exchange.wait_closed();
    }
    gateway.wait_idle();
}

#[test]
fn an_empty_line_after_a_body_is_no_request() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for _ in 0..3 {
        let mut bytes = chat("hello").bytes();
        bytes.extend_from_slice(b"\r\n");
        client.send(&bytes);
        assert_eq!(client.response().status, 200);
    }
    gateway.wait_idle();
}

#[test]
fn a_broken_messages_stream_ends_in_that_apis_error_event() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    let body = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    client.send(&Request::json("/v1/messages", body).bytes());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("{\"type\":\"message_start\"}");
    assert_eq!(client.head().0, 200);
    assert!(client.event().is_some_and(|event| event.contains("message_start")));
    exchange.reset();
    let rest = client.try_rest().expect("an end");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("event: error\ndata: {\"type\":\"error\",\"error\":{"), "{rest}");
    assert!(!rest.contains("[DONE]"));
}

#[test]
fn compressed_events_pass_as_they_come() {
    let worker = Worker::manual();
    // Tokens cannot be told in them, so none is waited for.
    let gateway = PLAIN.launch().flag("--first-token-timeout-secs", 1).worker(worker.url()).start();
    let mut client = gateway.client();
    client.send(&Request::json(CHAT, "{\"stream\":true,\"messages\":[]}").bytes());
    let mut exchange = worker.exchange();
    exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.head().0, 200);
    for piece in [&b"\x1f\x8b\x08\x00"[..], b"\xff\xfe", b"\x00"] {
        exchange.chunk(piece);
        assert_eq!(client.piece().as_deref(), Some(piece));
    }
    exchange.close_stream();
}

#[test]
fn dots_do_not_lead_out_of_an_endpoint() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for path in ["/v1/audio/../../flush_cache", "/v1/images/%2e%2e/%2e%2e/flush_cache", "/v1/audio/./x"] {
        assert_eq!(gateway.ask(&Request::json(path, "{}")).status, 404, "{path}");
    }
    assert!(worker.received().is_empty());
}

#[test]
fn a_body_far_over_the_limit_gets_its_413() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--max-payload-size", 1000).worker(worker.url()).start();
    let mut client = gateway.client();
    client.send(&Request::json(CHAT, "x".repeat(16 << 20)).bytes());
    let response = client.response();
    assert_eq!((response.status, response.error_code().as_deref()), (413, Some("payload_too_large")));
}

#[test]
fn flag_values_that_would_overflow_are_refused() {
    for flag in ["--max-payload-size", "--worker-startup-timeout-secs", "--request-timeout-secs"] {
        let ended = PLAIN.launch().flag(flag, u64::MAX).run_to_end();
        assert_eq!(ended.code, Some(2), "{flag}");
    }
}

#[test]
fn a_slow_answer_to_a_body_in_pieces_is_waited_for() {
    let worker = Worker::manual();
    let launch = PLAIN.launch().flag("--body-timeout-secs", 1).worker(worker.url());
    let gateway = launch.start();
    let mut client = gateway.client();
    // The second round goes over a kept worker connection.
    for _ in 0..2 {
        let bytes = chat("in two pieces").bytes();
        let (first, second) = bytes.split_at(bytes.len() - 5);
        client.send(first);
        wait::until("the request has begun", || gateway.metrics().sum("smg_http_requests_active", &[]) > 0.0);
        client.send(second);
        let mut exchange = worker.exchange();
        assert!(!exchange.closes_within(Duration::from_millis(1500)), "longer than the body timeout");
        exchange.answer("{}");
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn an_interim_answer_does_not_end_an_upload() {
    let worker = Worker::manual();
    worker.hand_over_unread();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    let body = format!("{{\"prompt\":\"{}\"}}", "x".repeat(16 << 20));
    client.send(&Request::json("/v1/completions", body.clone()).bytes());
    let mut exchange = worker.exchange();
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    assert!(exchange.read_body() == body.as_bytes());
    exchange.answer("{\"done\":1}");
    assert_eq!(client.response().text(), "{\"done\":1}");
}
