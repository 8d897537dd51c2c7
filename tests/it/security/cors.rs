//! Which pages may read answers: on pages, errors, relayed answers, streams and preflights.

use testkit::client::Request;
use testkit::client::Response;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    any_page_may_read_by_default
    listed_pages_may_read
}

const ALLOW: &str = "access-control-allow-origin";
const EXPOSE: &str = "access-control-expose-headers";

fn preflight(path: &str, origin: &str) -> Request {
    Request::new("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type")
}

/// An answer that says itself who may read it.
fn answer_with_cors(worker: &Worker) {
    worker.answer_with(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: https://worker\r\n\
          Access-Control-Allow-Credentials: true\r\nAccess-Control-Max-Age: 1\r\nVary: accept\r\n\
          Content-Length: 2\r\n\r\n{}",
    );
}

#[track_caller]
fn check(response: &Response, status: u16, allow: &[&str]) {
    assert_eq!((response.status, &response.headers.all(ALLOW)[..]), (status, allow), "{response:?}");
    assert_eq!(response.headers.all(EXPOSE).len(), allow.len(), "{response:?}");
    assert_eq!(response.headers.get("access-control-allow-credentials"), None);
}

fn any_page_may_read_by_default(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.launch().flag("--api-key", "sk-main").worker(worker.url()).start();
    answer_with_cors(&worker);
    let key = |request: Request| request.header("authorization", "Bearer sk-main");
    for (request, status) in [
        (Request::get("/health"), 200),
        (Request::get("/nowhere"), 404),
        (Request::get(CHAT), 405),
        (chat("hello"), 401),
        (key(chat("hello")), 200),
        (key(Request::json(CHAT, "[")), 400),
        (key(Request::get("/workers")), 200),
        (key(Request::get("/workers/x")), 400),
    ] {
        check(&gateway.ask(&request), status, &["*"]);
        check(&gateway.ask(&request.header("origin", "https://a.example")), status, &["*"]);
    }
    // Bytes that are no request.
    let mut client = gateway.client();
    client.send(b"nonsense\r\n\r\n");
    check(&client.response(), 400, &["*"]);
    for path in [CHAT, "/workers", "/nowhere", "/health"] {
        let response = gateway.ask(&preflight(path, "https://a.example"));
        check(&response, 200, &["*"]);
        let methods = response.headers.get("access-control-allow-methods").expect("methods");
        assert_eq!(methods, "GET, POST, PUT, DELETE, OPTIONS");
        assert_eq!(response.headers.get("access-control-allow-headers"), Some("*, authorization"));
        assert_eq!(response.headers.get("access-control-max-age"), Some("3600"));
        assert_eq!(response.body, b"");
    }
    assert_eq!(worker.received().len(), 2, "no preflight is a worker's matter");
}

fn listed_pages_may_read(setup: Setup) {
    let worker = Worker::answering();
    let (listed, other) = ("https://a.example", "https://b.example");
    let gateway = setup
        .launch()
        .flag("--cors-allowed-origins", "http://localhost:3000")
        .flag("--cors-allowed-origins", listed)
        .worker(worker.url())
        .start();
    answer_with_cors(&worker);
    for (request, status) in [
        (Request::get("/health"), 200),
        (Request::get("/nowhere"), 404),
        (chat("hello"), 200),
        (Request::json(CHAT, "["), 400),
        (Request::get("/workers/x"), 400),
    ] {
        let answer = gateway.ask(&request);
        check(&answer, status, &[]);
        let foreign = gateway.ask(&request.clone().header("origin", other));
        check(&foreign, status, &[]);
        let own = gateway.ask(&request.header("origin", listed));
        check(&own, status, &[listed]);
        for answer in [answer, foreign, own] {
            let vary = answer.headers.all("vary");
            assert!(vary.contains(&"origin") && answer.headers.all("access-control-max-age").is_empty());
            assert_eq!(
                vary.contains(&"accept"),
                status == 200 && answer.body == b"{}",
                "the worker's own stays"
            );
        }
    }
    let response = gateway.ask(&preflight(CHAT, listed));
    check(&response, 200, &[listed]);
    assert_eq!(response.headers.get("access-control-allow-headers"), Some("content-type, authorization"));
    assert_eq!(response.headers.get("allow"), Some("POST"));
    check(&gateway.ask(&preflight(CHAT, other)), 200, &[]);
}

#[test]
fn a_stream_may_be_read_too() {
    let worker = Worker::manual();
    let gateway = crate::setup::PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&crate::setup::chat_stream("hello").bytes());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    let (status, headers) = client.head();
    assert_eq!((status, headers.all(ALLOW)), (200, vec!["*"]));
    drop(exchange);
    // A further one on a connection of its own.
    let mut client = gateway.client();
    let _exchange = begin_stream(&mut client, &worker);
}

#[test]
fn a_preflight_has_no_large_body() {
    let gateway = PLAIN.launch().flag("--api-key", "sk-1").start_listening();
    let request = preflight("/generate", "https://a.example").body("x".repeat(5_000));
    let mut client = gateway.client();
    client.send(&request.bytes());
    assert_eq!(client.response().status, 413);
}
