//! A client that leaves closes its upstream exchange, in every phase, and leaves nothing counted.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::place;
use testkit::tls::Authority;
use testkit::wait;
use testkit::worker::Exchange;
use testkit::worker::Unreachable;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    before_the_first_byte
    in_the_middle_of_a_stream
    in_the_middle_of_a_body_that_is_held
    while_it_takes_nothing
    while_it_waits_for_admission
    while_the_gateway_waits_to_try_again
    while_the_gateway_connects
    while_the_request_is_sent_to_the_worker
    before_its_own_request_is_complete
    after_a_pipelined_request
}

/// Far beyond what the kernel holds for two connections.
const MANY_BYTES: usize = 96 * 1024 * 1024;

/// Ways to leave: in good order, by a reset, and by saying that nothing more will come, which is as good as leaving.
#[derive(Clone, Copy, Debug)]
enum Way {
    Close,
    Reset,
    EndOfSending,
}

const WAYS: [Way; 3] = [Way::Close, Way::Reset, Way::EndOfSending];

/// Leaves. What is returned is still connected.
fn leave(client: Client, way: Way) -> Option<Client> {
    match way {
        Way::Close => drop(client),
        Way::Reset => client.reset(),
        Way::EndOfSending => {
            client.end_of_sending();
            return Some(client);
        }
    }
    None
}

/// Who has only ended its sending is closed, with nothing more said.
#[track_caller]
fn expect_closed(client: Option<Client>) {
    assert!(client.is_none_or(|mut client| client.is_closed()));
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
    for way in WAYS {
        for request in [chat("hello"), chat_stream("hello")] {
            let mut client = gateway.client();
            client.send(&request.bytes());
            let exchange = worker.exchange();
            // The one that left may be counted out a moment after its connection has ended.
            wait::until("it alone counts", || gateway.load_of(&worker.url()) == Some(1));
            let left = leave(client, way);
            exchange.wait_closed();
            expect_closed(left);
        }
    }
    expect_aborts(&gateway, 6.0);
}

fn in_the_middle_of_a_stream(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for way in WAYS {
        let mut client = gateway.client();
        let exchange = begin_stream(&mut client, &worker);
        let left = leave(client, way);
        exchange.wait_closed();
        expect_closed(left);
    }
    expect_aborts(&gateway, 3.0);
}

fn in_the_middle_of_a_body_that_is_held(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for way in WAYS {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        let mut exchange = worker.exchange();
        exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{");
        let left = leave(client, way);
        exchange.wait_closed();
        expect_closed(left);
    }
    expect_aborts(&gateway, 3.0);
}

fn while_it_takes_nothing(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    for way in WAYS {
        let mut client = gateway.client();
        client.send(&chat_stream("hello").bytes());
        let mut exchange = worker.exchange();
        fill(&mut exchange);
        let _left = leave(client, way);
        exchange.wait_closed();
    }
    expect_aborts(&gateway, 3.0);
}

/// Sends a stream until the gateway waits for its client.
#[track_caller]
fn fill(exchange: &mut Exchange) {
    exchange.open_stream();
    let event = format!("data: {}\n\n", "x".repeat(1000));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    assert!(exchange.send_until_stuck(chunk.as_bytes(), MANY_BYTES) < MANY_BYTES);
}

#[test]
fn while_it_takes_nothing_over_tls() {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::manual();
    let gateway = PLAIN
        .launch()
        .listen(place::free_port(authority.ip))
        .flag("--tls-cert-path", pair.cert.display())
        .flag("--tls-key-path", pair.key.display())
        .worker(worker.url())
        .start_listening();
    wait::until("the worker is healthy", || {
        let mut client = authority.connect(gateway.addr(), &[]);
        client.write_all(&Request::get("/readiness").bytes()).expect("it is taken");
        let mut status = [0; b"HTTP/1.1 200".len()];
        client.read_exact(&mut status).is_ok() && status.ends_with(b"200")
    });
    // With TLS's own goodbye, and without it.
    for says_goodbye in [true, false] {
        let mut client = authority.connect(gateway.addr(), &[]);
        client.write_all(&chat_stream("hello").bytes()).expect("it is taken");
        let mut exchange = worker.exchange();
        fill(&mut exchange);
        if says_goodbye {
            client.conn.send_close_notify();
            client.conn.write_tls(&mut client.sock).expect("there is room");
        } else {
            client.sock.shutdown(Shutdown::Write).expect("it is connected");
        }
        exchange.wait_closed();
    }
}

fn while_it_waits_for_admission(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.launch().worker(worker.url()).flag("--max-concurrent-requests", 1).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let exchange = worker.exchange();
    let depth = || gateway.metrics().sum("smg_scheduler_queue_depth", &[]);
    for way in WAYS {
        let mut client = gateway.client();
        client.send(&chat("leaves").bytes());
        wait::until("the request waits", || depth() == 1.0);
        let left = leave(client, way);
        wait::until("its place is free", || depth() == 0.0);
        expect_closed(left);
    }
    exchange.answer("{}");
    assert_eq!(first.response().status, 200);
    expect_aborts(&gateway, 3.0);
    assert_eq!(worker.received().len(), 1, "who left was sent to nobody");
}

fn while_the_gateway_waits_to_try_again(setup: Setup) {
    let worker = Worker::manual();
    worker.answer_with(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let gateway = setup
        .launch()
        .worker(worker.url())
        .flag("--retry-initial-backoff-ms", 3_600_000)
        .flag("--retry-max-backoff-ms", 3_600_000)
        .start();
    for (at, way) in WAYS.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(&chat("leaves").bytes());
        wait::until("the pause has begun", || {
            gateway.metrics().sum("smg_worker_retry_backoff_seconds_count", &[]) == (at + 1) as f64
        });
        let left = leave(client, way);
        expect_aborts(&gateway, (at + 1) as f64);
        expect_closed(left);
    }
}

fn while_the_gateway_connects(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    worker.kill();
    let unreachable = Unreachable::at(worker.addr());
    for (at, way) in WAYS.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        wait::until("the request is under way", || gateway.load_of(&worker.url()) == Some(1));
        let left = leave(client, way);
        expect_aborts(&gateway, (at + 1) as f64);
        expect_closed(left);
    }
    drop(unreachable);
}

fn while_the_request_is_sent_to_the_worker(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    worker.hand_over_unread();
    for (at, way) in WAYS.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(&chat(&"x".repeat(16 * 1024 * 1024)).bytes());
        let mut exchange = worker.exchange();
        let left = leave(client, way);
        expect_aborts(&gateway, (at + 1) as f64);
        expect_closed(left);
        assert!(exchange.is_broken_off(), "the worker is told");
    }
}

fn before_its_own_request_is_complete(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    for way in WAYS {
        let mut client = gateway.client();
        let bytes = chat("hello").bytes();
        client.send(&bytes[..bytes.len() - 1]);
        wait::until("the request is counted", || {
            gateway.metrics().sum("smg_http_requests_active", &[]) == 1.0
        });
        let left = leave(client, way);
        gateway.wait_idle();
        expect_closed(left);
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
