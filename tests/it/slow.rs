//! Slow peers: they slow whoever sends to them, and cost the gateway no memory.

use testkit::worker::Worker;

use crate::setup::Setup;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    a_client_that_does_not_read_stops_its_worker
    a_worker_that_does_not_read_stops_its_client
}

/// Far beyond what the kernel holds for two connections.
const MANY_BYTES: usize = 96 * 1024 * 1024;
/// What the gateway may grow by for a peer that stands still.
const GROWTH_BYTES_MAX: u64 = 12 * 1024 * 1024;

fn a_client_that_does_not_read_stops_its_worker(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let before = gateway.resident_bytes();
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    let data = format!("data: {}\n\n", "x".repeat(1000));
    let event = format!("{:x}\r\n{data}\r\n", data.len());
    let taken = exchange.send_until_stuck(event.as_bytes(), MANY_BYTES);
    assert!(taken < MANY_BYTES, "the worker is never stopped");
    let growth = gateway.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes for a client that does not read");
    // Another client is served meanwhile.
    let mut other = gateway.client();
    other.send(&chat_stream("hello").bytes());
    worker.exchange().answer("{}");
    assert_eq!(other.response().status, 200);
    // What was taken arrives, once the client reads.
    assert_eq!(client.head().0, 200);
    let expect = data.trim_end();
    for _ in 0..taken / event.len() {
        assert_eq!(client.event().as_deref(), Some(expect));
    }
    let rest = taken % event.len();
    exchange.send(&event.as_bytes()[rest..]);
    if rest > 0 || taken == 0 {
        assert_eq!(client.event().as_deref(), Some(expect));
    }
    exchange.close_stream();
    let last = client.events();
    assert_eq!(last.last().map(String::as_str), Some("[DONE]"));
    gateway.wait_idle();
}

fn a_worker_that_does_not_read_stops_its_client(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    worker.hand_over_unread();
    // Larger than what the kernel holds: the gateway has to wait for the worker.
    let text = "y".repeat(16 * 1024 * 1024);
    let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
    let mut client = gateway.client();
    let request = testkit::client::Request::json(crate::setup::CHAT, body.clone());
    client.send(&request.bytes());
    let mut exchange = worker.exchange();
    // Nothing but the head was read: another client is served all the same.
    assert_eq!(gateway.get("/health").status, 200);
    assert!(exchange.read_body() == body.as_bytes());
    exchange.answer("{}");
    assert_eq!(client.response().status, 200);
    gateway.wait_idle();
}
