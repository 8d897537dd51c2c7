//! A client that leaves closes its upstream exchange, in every phase, and leaves nothing counted.

use testkit::client::Client;
use testkit::gateway::Gateway;
use testkit::wait;
use testkit::worker::Unreachable;
use testkit::worker::Worker;

use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    before_the_first_byte
    in_the_middle_of_a_stream
    in_the_middle_of_a_body_that_is_held
    while_the_gateway_connects
    while_the_request_is_sent_to_the_worker
    before_its_own_request_is_complete
    after_a_pipelined_request
}

/// Both ways to leave: in good order, and by a reset.
fn leave(client: Client, resets: bool) {
    if resets { client.reset() } else { drop(client) }
}

fn expect_aborts(gateway: &Gateway, count: f64) {
    gateway.wait_idle();
    wait::until("the abort is counted", || {
        gateway.metrics().sum("smg_http_client_aborts_total", &[]) == count
    });
}

fn before_the_first_byte(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for resets in [false, true] {
        for request in [chat("hello"), chat_stream("hello")] {
            let mut client = gateway.client();
            client.send(&request.bytes());
            let exchange = worker.exchange();
            // The one that left may be counted out a moment after its connection has ended.
            wait::until("it alone counts", || gateway.load_of(&worker.url()) == Some(1));
            leave(client, resets);
            exchange.wait_closed();
        }
    }
    expect_aborts(&gateway, 4.0);
}

fn in_the_middle_of_a_stream(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for resets in [false, true] {
        let mut client = gateway.client();
        let exchange = begin_stream(&mut client, &worker);
        leave(client, resets);
        exchange.wait_closed();
    }
    expect_aborts(&gateway, 2.0);
}

fn in_the_middle_of_a_body_that_is_held(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let mut exchange = worker.exchange();
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{");
    leave(client, false);
    exchange.wait_closed();
    expect_aborts(&gateway, 1.0);
}

fn while_the_gateway_connects(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    worker.kill();
    let unreachable = Unreachable::at(worker.addr());
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    wait::until("the request is under way", || gateway.load_of(&worker.url()) == Some(1));
    leave(client, false);
    expect_aborts(&gateway, 1.0);
    drop(unreachable);
}

fn while_the_request_is_sent_to_the_worker(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    worker.hand_over_unread();
    let mut client = gateway.client();
    client.send(&chat(&"x".repeat(16 * 1024 * 1024)).bytes());
    let exchange = worker.exchange();
    leave(client, false);
    expect_aborts(&gateway, 1.0);
    drop(exchange);
}

fn before_its_own_request_is_complete(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    for resets in [false, true] {
        let mut client = gateway.client();
        let bytes = chat("hello").bytes();
        client.send(&bytes[..bytes.len() - 1]);
        wait::until("the request is counted", || {
            gateway.metrics().sum("smg_http_requests_active", &[]) == 1.0
        });
        leave(client, resets);
        gateway.wait_idle();
    }
    assert!(worker.received().is_empty());
}

fn after_a_pipelined_request(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&[chat_stream("one").bytes(), chat("two").bytes()].concat());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    client.reset();
    // A leaving that hides behind a waiting request shows when something is sent, at the latest.
    let gone = wait::holds_within(wait::DEADLINE, || {
        exchange.try_event("2").is_err() || exchange.closes_within(std::time::Duration::from_millis(20))
    });
    assert!(gone, "the gateway goes on for nobody");
    gateway.wait_idle();
}
