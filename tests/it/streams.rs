//! Streams: events pass as they come, and a worker's death is always told.

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    an_event_arrives_while_the_worker_holds_back_the_next
    a_death_between_events_is_told_in_an_event
    a_death_within_an_event_loses_only_that_event
    a_death_within_a_json_body_is_a_502
    a_death_before_the_answer_goes_to_another_worker
}

const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 33\r\n\r\n";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";

/// A client whose stream the worker begins to answer.
fn begin_stream(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    client
}

/// Reads an error event with the end of the stream behind it.
#[track_caller]
fn expect_error_and_end(client: &mut Client, code: &str) {
    let event = client.event().expect("an error event");
    let data: serde_json::Value =
        serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(data["error"]["code"], code, "{data}");
    assert!(data["error"]["message"].is_string() && data["error"]["type"].is_string(), "{data}");
    assert_eq!(client.event().as_deref(), Some("data: [DONE]"));
    assert_eq!(client.event(), None);
    assert!(client.is_closed());
}

fn an_event_arrives_while_the_worker_holds_back_the_next(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = begin_stream(&gateway);
    let mut exchange = worker.exchange();
    exchange.open_stream();
    for at in 0..20 {
        exchange.event(&format!("{{\"n\":{at}}}"));
        // The head comes with the first.
        if at == 0 {
            assert_eq!(client.head().0, 200);
        }
        // The worker sends nothing more before this one has arrived.
        assert_eq!(client.event(), Some(format!("data: {{\"n\":{at}}}")));
    }
    exchange.close_stream();
    assert_eq!(client.event().as_deref(), Some("data: [DONE]"));
    assert_eq!(client.event(), None);
    // The connection serves on.
    client.send(&chat("more").bytes());
    worker.exchange().answer("{\"more\":1}");
    assert_eq!(client.response().text(), "{\"more\":1}");
    assert_eq!(worker.received().len(), 2);
    gateway.wait_idle();
}

fn a_death_between_events_is_told_in_an_event(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for resets in [false, true] {
        let mut client = begin_stream(&gateway);
        let mut exchange = worker.exchange();
        exchange.open_stream();
        exchange.event("1");
        assert_eq!(client.head().0, 200);
        assert_eq!(client.event().as_deref(), Some("data: 1"));
        if resets {
            exchange.reset()
        } else {
            exchange.close()
        }
        expect_error_and_end(&mut client, "read_response_body_failed");
    }
    gateway.wait_idle();
    assert_eq!(gateway.metrics().sum("smg_http_broken_responses_total", &[]), 2.0);
}

fn a_death_within_an_event_loses_only_that_event(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = begin_stream(&gateway);
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    exchange.chunk(b"data: half of an ev");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    exchange.close();
    expect_error_and_end(&mut client, "read_response_body_failed");
}

#[test]
fn a_death_within_a_stream_of_known_length_is_told_too() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = begin_stream(&gateway);
    let mut exchange = worker.exchange();
    exchange.send(LENGTH);
    exchange.send(b"data: 1\n\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    exchange.close();
    expect_error_and_end(&mut client, "read_response_body_failed");
}

#[test]
fn malformed_chunks_are_told_in_an_event() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = begin_stream(&gateway);
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    exchange.send(b"no chunk size\r\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    expect_error_and_end(&mut client, "read_response_body_failed");
    exchange.wait_closed();
}

#[test]
fn streams_of_known_length_and_until_close_pass() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    for head in [LENGTH, UNTIL_CLOSE] {
        let mut client = begin_stream(&gateway);
        let mut exchange = worker.exchange();
        exchange.send(head);
        for event in ["data: 1\n\n", "data: 22\n\n"] {
            exchange.send(event.as_bytes());
        }
        exchange.send(b"data: [DONE]\n");
        assert_eq!(client.head().0, 200);
        assert_eq!(client.event().as_deref(), Some("data: 1"));
        assert_eq!(client.event().as_deref(), Some("data: 22"));
        exchange.send(b"\n");
        exchange.close();
        assert_eq!(client.events(), ["[DONE]"]);
    }
}

#[test]
fn events_cut_at_every_byte_arrive_whole() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = begin_stream(&gateway);
    let mut exchange = worker.exchange();
    exchange.open_stream();
    for byte in b"data: one\n\n: comment\n\nevent: x\ndata: two\n\n" {
        exchange.chunk(&[*byte]);
    }
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: one"));
    assert_eq!(client.event().as_deref(), Some(": comment"));
    assert_eq!(client.event().as_deref(), Some("event: x\ndata: two"));
    exchange.close_stream();
    assert_eq!(client.events(), ["[DONE]"]);
}

fn a_death_within_a_json_body_is_a_502(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.launch().switch("--disable-retries").worker(worker.url()).start();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for framing in
        ["content-length: 100\r\n\r\n{\"half\":", "transfer-encoding: chunked\r\n\r\n8\r\n{\"half\":\r\n"]
    {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        let mut exchange = worker.exchange();
        exchange.send(format!("{head}{framing}").as_bytes());
        exchange.close();
        let response = client.response();
        assert_eq!(response.status, 502, "{}", response.text());
        assert_eq!(response.error_code().as_deref(), Some("read_response_body_failed"));
        // The client's connection is none the worse for it.
        client.send(&chat("again").bytes());
        worker.exchange().answer("{}");
        assert_eq!(client.response().status, 200);
    }
    gateway.wait_idle();
}

#[test]
fn a_death_within_a_large_body_of_bytes_cuts_the_connection() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&Request::json("/v1/audio/speech", "{}").bytes());
    let mut exchange = worker.exchange();
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 1000000\r\n\r\nbeginning");
    exchange.close();
    // Bytes have no words for an error: the length that does not come is the error.
    assert!(client.try_response().is_err());
}

fn a_death_before_the_answer_goes_to_another_worker(setup: Setup) {
    let dying = Worker::manual();
    let living = Worker::answering();
    let gateway = setup.launch().worker(dying.url()).worker(living.url()).start();
    for resets in [false, true] {
        // Round robin: if this request does not go to the dying worker first, the next one does.
        let (mut client, mut exchange) = wait::some("a request at the dying worker", || {
            let mut client = gateway.client();
            client.send(&chat("hello").bytes());
            let exchange = wait::some("the request to go somewhere", || {
                let at_dying = dying.exchange_now();
                (at_dying.is_some() || client.has_answer()).then_some(at_dying)
            });
            exchange.map(|exchange| (client, exchange))
        });
        exchange.send(b"HTTP/1.1 200 OK\r\ncontent-ty");
        if resets {
            exchange.reset()
        } else {
            exchange.close()
        }
        let response = client.response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["worker"], living.url());
    }
    gateway.wait_idle();
}

#[test]
fn an_answer_that_is_not_http_is_a_502() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        let worker = Worker::answering();
        worker.answer_with(answer);
        let gateway = PLAIN.start(&[&worker]);
        let response = gateway.ask(&Request::json(CHAT, "{}"));
        assert_eq!(response.status, 502, "{:?}: {}", String::from_utf8_lossy(answer), response.text());
        assert_eq!(response.error_code().as_deref(), Some("call_upstream_decode_error"));
    }
}
