//! Headers: whose they are, which are dropped, and the request id on every answer.

use testkit::client::Request;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::chat;

fn empty_chat() -> Request {
    Request::json(CHAT, "{\"messages\":[]}")
}

#[test]
fn end_to_end_headers_pass_and_connection_headers_do_not() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let request = empty_chat()
        .header("Authorization", "Bearer client-key")
        .header("X-Custom", "one")
        .header("x-custom", "two")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("user-agent", "test/1")
        .header("accept-encoding", "gzip")
        .header("Connection", "keep-alive, X-Mine")
        .header("X-Mine", "dropped")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic x")
        .header("upgrade", "h2c");
    assert_eq!(gateway.ask(&request).status, 200);
    let headers = &worker.received()[0].headers;
    assert_eq!(headers.all("authorization"), ["Bearer client-key"]);
    assert_eq!(headers.all("x-custom"), ["one", "two"]);
    assert_eq!(headers.all("user-agent"), ["test/1"]);
    assert_eq!(headers.all("accept-encoding"), ["gzip"]);
    assert!(headers.get("traceparent").is_some());
    let host = worker.addr().to_string();
    assert_eq!(headers.all("host"), [host.as_str()]);
    for dropped in ["x-mine", "keep-alive", "te", "proxy-authorization", "upgrade", "expect"] {
        assert_eq!(headers.get(dropped), None, "{dropped}");
    }
}

#[test]
fn a_workers_own_key_replaces_the_clients() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().start_listening();
    let body = format!("{{\"url\":\"{}\",\"api_key\":\"worker-key\"}}", worker.url());
    assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    gateway.wait_healthy(1);
    for request in [empty_chat(), empty_chat().header("authorization", "Bearer client-key")] {
        assert_eq!(gateway.ask(&request).status, 200);
        let received = worker.received().pop().expect("received");
        assert_eq!(received.headers.all("authorization"), ["Bearer worker-key"]);
    }
}

#[test]
fn headers_of_an_answer_pass_but_for_its_connections() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    worker.answer_with(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Twice: a\r\nX-Twice: b\r\nServer: mock\r\n\
          Connection: keep-alive, x-mine\r\nX-Mine: dropped\r\nKeep-Alive: timeout=5\r\n\
          X-Request-Id: the-workers-own\r\nContent-Length: 2\r\n\r\n{}",
    );
    let response = gateway.ask(&chat("hello").header("x-request-id", "mine"));
    assert_eq!(response.headers.all("x-twice"), ["a", "b"]);
    assert_eq!(response.headers.all("server"), ["mock"]);
    assert_eq!(response.headers.all("x-request-id"), ["mine"]);
    assert_eq!(response.headers.all("content-length"), ["2"]);
    for dropped in ["x-mine", "keep-alive", "connection", "transfer-encoding"] {
        assert_eq!(response.headers.get(dropped), None, "{dropped}");
    }
}

#[test]
fn the_first_request_id_header_present_is_the_id() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let names = ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"];
    for first in 0..names.len() {
        // The later ones come before it: their order in the list decides, not the request's.
        let request =
            names[first..].iter().rev().fold(empty_chat(), |request, name| request.header(name, name));
        let response = gateway.ask(&request);
        assert_eq!(response.headers.all("x-request-id"), [names[first]]);
        let received = worker.received().pop().expect("received");
        assert_eq!(received.headers.all("x-request-id"), [names[first]]);
    }
}

#[test]
fn the_headers_of_request_ids_can_be_chosen() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--request-id-headers", "X-My-Id").worker(worker.url()).start();
    let request = empty_chat().header("x-request-id", "not-this").header("x-my-id", "this");
    assert_eq!(gateway.ask(&request).headers.all("x-request-id"), ["this"]);
    assert_eq!(worker.received()[0].headers.all("x-request-id"), ["this"]);
}

#[test]
fn a_request_without_an_id_gets_one_of_its_own() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut seen = Vec::new();
    for (path, prefix) in [
        (CHAT, "chatcmpl-"),
        ("/v1/completions", "cmpl-"),
        ("/generate", "gnt-"),
        ("/v1/responses", "resp-"),
        ("/v1/embeddings", "req-"),
    ] {
        let response = gateway.ask(&Request::json(path, "{}"));
        let id = response.headers.get("x-request-id").expect("an id").to_owned();
        assert!(id.starts_with(prefix) && id.len() == prefix.len() + 24, "{path}: {id}");
        let received = worker.received().pop().expect("received");
        assert_eq!(received.headers.all("x-request-id"), [id.as_str()]);
        assert!(!seen.contains(&id));
        seen.push(id);
    }
}

#[test]
fn every_answer_has_the_request_id() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for (request, status) in [
        (Request::get("/health"), 200),
        (Request::get("/readiness"), 200),
        (Request::get("/v1/models"), 200),
        (Request::get("/workers"), 200),
        (Request::get("/list_workers"), 200),
        (Request::get("/nowhere"), 404),
        (Request::get(CHAT), 405),
        (Request::json(CHAT, "not json"), 400),
        (Request::new("POST", "/add_worker"), 400),
        (Request::get("/workers/neither-uuid-nor-url"), 400),
    ] {
        let response = gateway.ask(&request.clone().header("x-request-id", "mine-7"));
        assert_eq!(response.status, status, "{request:?}: {}", response.text());
        assert_eq!(response.headers.all("x-request-id"), ["mine-7"], "{request:?}");
        let made = gateway.ask(&request);
        assert!(made.headers.get("x-request-id").is_some_and(|id| id.len() > 24), "{request:?}");
    }
}

#[test]
fn an_id_that_is_too_long_is_replaced() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let response = gateway.ask(&empty_chat().header("x-request-id", &"x".repeat(10_000)));
    assert!(response.headers.get("x-request-id").is_some_and(|id| id.starts_with("chatcmpl-")));
}
