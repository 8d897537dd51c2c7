//! How many requests are in flight at a time, who waits, and who goes first, seen from clients and workers.

mod changes;
mod classes;

use std::time::Instant;

use testkit::client::Client;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::gateway::Signal;
use testkit::wait;
use testkit::worker::Exchange;
use testkit::worker::Worker;

use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    the_cap_is_exact
    who_waits_goes_in_order_of_arrival
    who_leaves_frees_its_place
    a_wait_ends_in_time
    a_full_queue_refuses_at_once
    a_stream_keeps_its_permit_to_its_end
    a_client_that_leaves_frees_its_permit
    a_failure_frees_its_permit
    draining_refuses_who_waits
    a_flood_leaves_room_for_others
    starts_keep_to_their_rate
    pages_and_admin_calls_pass
}

fn limited(setup: Setup, worker: &Worker, places: u32, queue: u32) -> Launch {
    setup
        .launch()
        .worker(worker.url())
        .flag("--max-concurrent-requests", places)
        .flag("--queue-size", queue)
        .flag("--queue-timeout-secs", 20)
}

fn depth(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("smg_scheduler_queue_depth", &[])
}

fn in_flight(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("smg_scheduler_inflight", &[])
}

/// Nobody waits and nobody is in flight.
#[track_caller]
fn wait_empty(gateway: &Gateway) {
    wait::until("every permit is back", || in_flight(gateway) == 0.0 && depth(gateway) == 0.0);
    gateway.wait_idle();
}

/// A client whose request waits, as the so many-th.
#[track_caller]
fn waits(gateway: &Gateway, request: &Request, position: u32) -> Client {
    let mut client = gateway.client();
    client.send(&request.bytes());
    wait::until("the request waits", || depth(gateway) == f64::from(position));
    client
}

fn text(exchange: &Exchange) -> String {
    String::from_utf8_lossy(&exchange.request.body).into_owned()
}

#[track_caller]
fn expect_refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.error_code().as_deref()), (status, Some(code)), "{response:?}");
    let retry_after = response.headers.get("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| (1..=30).contains(&seconds)), "{response:?}");
}

fn the_cap_is_exact(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 3, 100).start();
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(&chat("hello").bytes());
    }
    let mut exchanges: Vec<Exchange> = (0..3).map(|_| worker.exchange()).collect();
    wait::until("the others wait", || depth(&gateway) == 27.0);
    for left in (0..27).rev() {
        assert!(worker.exchange_now().is_none(), "three are at the worker");
        exchanges.remove(0).answer("{}");
        exchanges.push(worker.exchange());
        wait::until("one less waits", || depth(&gateway) == f64::from(left));
        assert_eq!(in_flight(&gateway), 3.0);
    }
    exchanges.into_iter().for_each(|exchange| exchange.answer("{}"));
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    wait_empty(&gateway);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_http_rate_limit_total", &["result=\"allowed\""]), 30.0);
    assert_eq!(metrics.sum("smg_scheduler_queue_wait_seconds_count", &[]), 27.0);
}

fn who_waits_goes_in_order_of_arrival(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 100).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let mut exchange = worker.exchange();
    let waiting: Vec<Client> =
        (1..=10).map(|at| waits(&gateway, &chat(&format!("number {at};")), at)).collect();
    for at in 1..=10 {
        exchange.answer("{}");
        exchange = worker.exchange();
        assert!(text(&exchange).contains(&format!("number {at};")), "{}", text(&exchange));
    }
    exchange.answer("{}");
    for mut client in waiting {
        assert_eq!(client.response().status, 200);
    }
    wait_empty(&gateway);
    // Lines are written by a thread of their own, after the answer.
    wait::until("the wait is logged", || gateway.has_logged(&["queued_us"]));
}

fn who_leaves_frees_its_place(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 1).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let exchange = worker.exchange();
    for resets in [false, true] {
        let leaves = waits(&gateway, &chat("leaves"), 1);
        expect_refused(&gateway.ask(&chat("refused")), 429, "scheduler_queue_full");
        if resets {
            leaves.reset()
        } else {
            drop(leaves)
        }
        wait::until("the place is free", || depth(&gateway) == 0.0);
    }
    let mut stays = waits(&gateway, &chat("stays"), 1);
    exchange.answer("{}");
    let exchange = worker.exchange();
    assert!(text(&exchange).contains("stays"));
    exchange.answer("{}");
    assert_eq!((first.response().status, stays.response().status), (200, 200));
    wait_empty(&gateway);
    let left = gateway.metrics().sum("smg_scheduler_admit_total", &["outcome=\"client_left\""]);
    assert_eq!(left, 2.0);
}

fn a_wait_ends_in_time(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup
        .launch()
        .worker(worker.url())
        .flag("--max-concurrent-requests", 1)
        .flag("--queue-timeout-secs", 1)
        .start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let exchange = worker.exchange();
    let mut client = gateway.client();
    expect_refused(&client.ask(&chat("late")), 408, "scheduler_queue_timeout");
    assert_eq!(depth(&gateway), 0.0);
    // The connection lives, and so does the request that was in flight all the time.
    exchange.answer("{}");
    assert_eq!(first.response().status, 200);
    client.send(&chat("again").bytes());
    worker.exchange().answer("{}");
    assert_eq!(client.response().status, 200);
    wait_empty(&gateway);
}

fn a_full_queue_refuses_at_once(setup: Setup) {
    let worker = Worker::manual();
    for queue in [0, 2] {
        let gateway = limited(setup, &worker, 1, queue).start();
        let mut first = gateway.client();
        first.send(&chat("first").bytes());
        let exchange = worker.exchange();
        let waiting: Vec<Client> = (1..=queue).map(|at| waits(&gateway, &chat("waits"), at)).collect();
        let mut client = gateway.client();
        for _ in 0..20 {
            expect_refused(&client.ask(&chat("refused")), 429, "scheduler_queue_full");
        }
        let rejected = gateway.metrics().sum("smg_http_rate_limit_total", &["result=\"rejected\""]);
        assert_eq!(rejected, 20.0);
        exchange.answer("{}");
        for mut client in waiting {
            worker.exchange().answer("{}");
            assert_eq!(client.response().status, 200);
        }
        wait_empty(&gateway);
    }
}

fn a_stream_keeps_its_permit_to_its_end(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 5).start();
    let mut client = gateway.client();
    let mut stream = begin_stream(&mut client, &worker);
    let mut waiting = waits(&gateway, &chat("waits"), 1);
    for at in 2..5 {
        stream.event(&at.to_string());
        assert_eq!(client.event(), Some(format!("data: {at}")));
        assert!(worker.exchange_now().is_none() && in_flight(&gateway) == 1.0);
    }
    stream.close_stream();
    assert_eq!(client.events(), ["[DONE]"]);
    worker.exchange().answer("{}");
    assert_eq!(waiting.response().status, 200);
    wait_empty(&gateway);
}

fn a_client_that_leaves_frees_its_permit(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 5).start();
    for resets in [false, true] {
        let leave = |client: Client| if resets { client.reset() } else { drop(client) };
        let mut before = gateway.client();
        before.send(&chat("before the first byte").bytes());
        let first = worker.exchange();
        let mut stream = waits(&gateway, &chat_stream("hello"), 1);
        leave(before);
        let mut second = worker.exchange();
        first.wait_closed();
        second.open_stream();
        second.event("1");
        assert_eq!(stream.head().0, 200);
        let mut last = waits(&gateway, &chat("last"), 1);
        leave(stream);
        worker.exchange().answer("{}");
        second.wait_closed();
        assert_eq!(last.response().status, 200);
    }
    wait_empty(&gateway);
}

fn a_failure_frees_its_permit(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 0).switch("--disable-retries").start();
    let mut client = gateway.client();
    client.send(&chat("broken").bytes());
    worker.exchange().close();
    assert_eq!(client.response().status, 502);
    assert_eq!(client.ask(&Request::json("/v1/chat/completions", "no json")).status, 400);
    worker.kill();
    for _ in 0..3 {
        assert!(matches!(client.ask(&chat("nobody")).status, 502 | 503));
    }
    wait_empty(&gateway);
}

fn draining_refuses_who_waits(setup: Setup) {
    let worker = Worker::manual();
    let mut gateway = limited(setup, &worker, 1, 5).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let exchange = worker.exchange();
    let mut waiting = waits(&gateway, &chat("waits"), 1);
    gateway.signal(Signal::TERM);
    let response = waiting.response();
    expect_refused(&response, 503, "shutting_down");
    assert_eq!(response.headers.get("connection"), Some("close"));
    assert!(waiting.is_closed());
    exchange.answer("{}");
    assert_eq!(first.response().status, 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_flood_leaves_room_for_others(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 4).switch("--trust-tenant-header").start();
    let ask = |tenant: &str| chat(&format!("of {tenant};")).header("x-smg-tenant-id", tenant);
    let mut first = gateway.client();
    first.send(&ask("flood").bytes());
    let mut exchange = worker.exchange();
    let mut flood: Vec<Client> = (1..=4).map(|at| waits(&gateway, &ask("flood"), at)).collect();
    let mut other = gateway.client();
    other.send(&ask("other").bytes());
    // The last of the flood makes room.
    expect_refused(&flood.remove(3).response(), 429, "scheduler_queue_full");
    expect_refused(&gateway.ask(&ask("flood")), 429, "scheduler_queue_full");
    let mut order = Vec::new();
    for _ in 0..4 {
        exchange.answer("{}");
        exchange = worker.exchange();
        order.push(text(&exchange).contains("of other;"));
    }
    exchange.answer("{}");
    assert!(order[..2].contains(&true), "the other is not behind the whole flood: {order:?}");
    assert_eq!(other.response().status, 200);
    for mut client in flood {
        assert_eq!(client.response().status, 200);
    }
    wait_empty(&gateway);
}

fn starts_keep_to_their_rate(setup: Setup) {
    const PER_S: u32 = 50;
    const BURST: u32 = 2;
    let worker = Worker::answering();
    let gateway = limited(setup, &worker, BURST, 100).flag("--rate-limit-tokens-per-second", PER_S).start();
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
    let begun = Instant::now();
    for client in &mut clients {
        client.send(&chat("hello").bytes());
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // 28 starts beyond the burst, one every 20 ms: they cannot all have been in less.
    let floor = (30 - BURST) * 1000 / PER_S;
    assert!(begun.elapsed().as_millis() >= u128::from(floor), "{:?}", begun.elapsed());
    wait_empty(&gateway);
}

fn pages_and_admin_calls_pass(setup: Setup) {
    let worker = Worker::manual();
    let gateway = limited(setup, &worker, 1, 0).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let exchange = worker.exchange();
    for page in ["/health", "/readiness", "/v1/models", "/workers", "/loads"] {
        assert_eq!(gateway.get(page).status, 200, "{page}");
    }
    exchange.answer("{}");
    assert_eq!(first.response().status, 200);
    wait_empty(&gateway);
}

#[test]
fn without_a_limit_there_is_no_gate() {
    let worker = Worker::answering();
    let gateway = crate::setup::PLAIN.start(&[&worker]);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    let metrics = gateway.metrics();
    assert!(!metrics.has("smg_scheduler_inflight") && !metrics.has("smg_http_rate_limit_total"));
}
