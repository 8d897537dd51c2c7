//! Errors the gateway answers itself: one shape, one code each, and a request id.

use testkit::client::Request;
use testkit::client::Response;
use testkit::worker::Unreachable;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    a_worker_that_never_answers_is_a_504
    a_worker_that_cannot_be_reached_is_a_502
}

#[track_caller]
fn check(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.error_code().as_deref(), Some(code), "{response:?}");
    assert_eq!(response.headers.get("content-type"), Some("application/json"));
}

#[test]
fn bodies_that_are_not_json_objects_are_refused() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for body in [
        "",
        " ",
        "x",
        "{",
        "{\"a\":}",
        "{\"a\":1,}",
        "{'a':1}",
        "[]",
        "\"text\"",
        "1",
        "null",
        "true",
        "{}{}",
        "{} x",
        "{\"a\":01}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"model\":\"m\"",
    ] {
        for path in [CHAT, "/v1/completions", "/generate", "/v1/embeddings", "/rerank", "/v1/messages"] {
            check(&client.ask(&Request::json(path, body)), 400, "json_parse_error");
        }
    }
    check(&client.ask(&Request::json(CHAT, b"{\"a\":\"\xff\"}".to_vec())), 400, "json_parse_error");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    check(&client.ask(&Request::json(CHAT, deep)), 400, "json_parse_error");
    assert!(worker.received().is_empty());
}

#[test]
fn fields_that_routing_reads_must_have_their_type() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for (body, param) in [
        ("{\"model\":1}", "model"),
        ("{\"model\":[\"mock\"]}", "model"),
        ("{\"model\":{}}", "model"),
        ("{\"model\":true}", "model"),
        ("{\"stream\":\"yes\"}", "stream"),
        ("{\"stream\":1}", "stream"),
    ] {
        let response = client.ask(&Request::json(CHAT, body));
        check(&response, 400, "invalid_request");
        assert_eq!(response.json()["error"]["param"], param, "{body}");
    }
    for body in ["{\"model\":null}", "{\"stream\":null}", "{}", "{\"messages\":\"no list\",\"tools\":7}"] {
        assert_eq!(client.ask(&Request::json(CHAT, body)).status, 200, "{body}");
    }
}

#[test]
fn with_several_models_a_request_must_name_one_of_them() {
    let (left, right) = (Worker::answering_as("left"), Worker::answering_as("right"));
    let gateway = PLAIN.start(&[&left, &right]);
    let mut client = gateway.client();
    for (worker, model) in [(&left, "left"), (&right, "right")] {
        for _ in 0..3 {
            let response = client.ask(&Request::json(CHAT, format!("{{\"model\":\"{model}\"}}")));
            assert_eq!(response.json()["worker"], worker.url());
        }
    }
    let escaped = client.ask(&Request::json(CHAT, "{\"model\":\"\\u006ceft\"}"));
    assert_eq!(escaped.json()["worker"], left.url());
    for body in ["{}", "{\"model\":null}"] {
        let response = client.ask(&Request::json(CHAT, body));
        check(&response, 400, "model_required");
        assert!(response.text().contains("left") && response.text().contains("right"));
        assert_eq!(response.json()["error"]["param"], "model");
    }
    let response = client.ask(&Request::json(CHAT, "{\"model\":\"else\"}"));
    check(&response, 404, "model_not_found");
    assert_eq!(response.json()["error"]["param"], "model");
}

#[test]
fn with_one_model_any_name_goes_to_it() {
    let worker = Worker::answering_as("only");
    let gateway = PLAIN.start(&[&worker]);
    for body in ["{}", "{\"model\":\"only\"}", "{\"model\":\"gpt-4\"}", "{\"model\":\"\"}"] {
        assert_eq!(gateway.ask(&Request::json(CHAT, body)).status, 200, "{body}");
    }
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405() {
    let gateway = PLAIN.launch().start_listening();
    let mut client = gateway.client();
    for path in ["/", "/v1", "/v1/chat", "/v1/chat/completions/", "/V1/models", "/workers/", "/%2e%2e/health"]
    {
        for method in ["GET", "POST", "DELETE"] {
            check(&client.ask(&Request::new(method, path)), 404, "route_not_found");
        }
    }
    for (method, path, allow) in [
        ("GET", CHAT, "POST"),
        ("PUT", "/generate", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/workers", "GET, POST"),
        ("POST", "/workers/http%3A%2F%2Fa", "GET, PUT, DELETE"),
        ("GET", "/flush_cache", "POST"),
        ("POST", "/list_workers", "GET"),
    ] {
        let response = client.ask(&Request::new(method, path));
        check(&response, 405, "method_not_allowed");
        assert_eq!(response.headers.get("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn without_a_worker_requests_are_503_with_retry_after() {
    let gateway = PLAIN.launch().start_listening();
    let mut client = gateway.client();
    for request in [chat("hello"), chat_stream("hello"), Request::new("POST", "/v1/audio/speech").body("x")] {
        let response = client.ask(&request);
        check(&response, 503, "no_available_workers");
        assert!(response.headers.get("retry-after").is_some());
    }
}

fn a_worker_that_cannot_be_reached_is_a_502(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    worker.kill();
    let mut client = gateway.client();
    // Every attempt goes there, as there is nobody else; the row that removes it counts requests.
    for request in [chat("hello"), chat_stream("hello")] {
        check(&client.ask(&request), 502, "call_upstream_connection_failed");
    }
    gateway.wait_idle();
}

fn a_worker_that_never_answers_is_a_504(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.launch().flag("--request-timeout-secs", 1).worker(worker.url()).start();
    // One waits for a head, one for the rest of a body, one for the next event.
    let requests = [chat("head"), chat("body"), chat_stream("event")];
    let mut clients = requests.map(|request| {
        let mut client = gateway.client();
        client.send(&request.bytes());
        (client, worker.exchange())
    });
    clients[1].1.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{");
    clients[2].1.open_stream();
    clients[2].1.event("1");
    let [(mut head, at_head), (mut body, at_body), (mut event, at_event)] = clients;
    check(&head.response(), 504, "call_upstream_timeout");
    check(&body.response(), 504, "call_upstream_timeout");
    assert_eq!(event.head().0, 200);
    assert_eq!(event.event().as_deref(), Some("data: 1"));
    let told = event.event().expect("an error event");
    assert!(told.contains("\"call_upstream_timeout\""), "{told}");
    assert_eq!(event.event().as_deref(), Some("data: [DONE]"));
    assert_eq!(event.event(), None);
    at_head.wait_closed();
    at_body.wait_closed();
    at_event.wait_closed();
    gateway.wait_idle();
}

#[test]
fn a_connect_that_hangs_is_given_up_in_time() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--connect-timeout-secs", 1).worker(worker.url()).start();
    worker.kill();
    let unreachable = Unreachable::at(worker.addr());
    check(&gateway.ask(&chat("hello")), 504, "call_upstream_timeout");
    gateway.wait_idle();
    drop(unreachable);
}
