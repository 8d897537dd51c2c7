//! Retries: to another worker before the first byte, never after it, and within the limits.

use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    a_refused_connect_goes_to_the_next_worker
    a_dead_reused_connection_is_retried_on_a_fresh_one_of_the_same_worker
    retries_never_follow_the_first_byte
}

fn a_refused_connect_goes_to_the_next_worker(setup: Setup) {
    let (dead, alive) = (Worker::answering(), Worker::answering());
    let gateway = setup.start(&[&dead, &alive]);
    dead.kill();
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(client.ask(&chat("hello")).json()["worker"], alive.url());
    }
    assert_eq!(alive.received().len(), 20);
    gateway.wait_idle();
}

fn a_dead_reused_connection_is_retried_on_a_fresh_one_of_the_same_worker(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    for round in 0..10 {
        client.send(&chat("keeps").bytes());
        worker.exchange().answer("{}");
        assert_eq!(client.response().status, 200);
        // The next request takes the kept connection, and the worker ends it instead of answering.
        client.send(&chat("dies").bytes());
        let exchange = worker.exchange();
        if round % 2 == 0 {
            exchange.close()
        } else {
            exchange.reset()
        }
        let again = worker.exchange();
        assert!(String::from_utf8_lossy(&again.request.body).contains("dies"));
        again.answer("{\"second\":1}");
        assert_eq!(client.response().text(), "{\"second\":1}");
    }
    // None of this counts against the worker.
    assert_eq!(gateway.workers()[0]["is_healthy"], true);
    assert_eq!(gateway.metrics().sum("smg_worker_failures_in_a_row", &[]), 0.0);
    gateway.wait_idle();
}

#[test]
fn a_connection_closed_while_idle_is_not_used_again() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(client.ask(&chat("hello")).status, 200);
        worker.drop_connections();
    }
    assert_eq!(worker.received().len(), 20);
}

fn retries_never_follow_the_first_byte(setup: Setup) {
    let (first, second) = (Worker::manual(), Worker::manual());
    let gateway = setup.start(&[&first, &second]);
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let (mut exchange, other) = wait::some("the request at either worker", || {
        let at_first = first.exchange_now().map(|exchange| (exchange, &second));
        at_first.or_else(|| second.exchange_now().map(|exchange| (exchange, &first)))
    });
    exchange.open_stream();
    exchange.event("1");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    exchange.reset();
    assert!(client.event().is_some_and(|event| event.contains("error")));
    assert_eq!(client.event().as_deref(), Some("data: [DONE]"));
    gateway.wait_idle();
    assert!(other.received().is_empty(), "the other worker was asked too");
    assert_eq!(gateway.metrics().sum("smg_worker_retries_total", &[]), 0.0);
}

#[test]
fn a_worker_that_fails_three_times_in_a_row_is_removed_and_said_so() {
    let (dead, alive) = (Worker::answering(), Worker::answering());
    let gateway =
        PLAIN.launch().flag("--max-worker-retries", 3).worker(dead.url()).worker(alive.url()).start();
    dead.kill();
    let mut client = gateway.client();
    let listed = |url: &str| gateway.get("/list_workers").text().contains(url);
    wait::until("the dead worker is removed", || {
        assert_eq!(client.ask(&chat("hello")).status, 200);
        !listed(&dead.url())
    });
    assert!(listed(&alive.url()));
    let errors = gateway.metrics().sum("smg_worker_errors_total", &[]);
    assert!((3.0..=4.0).contains(&errors), "{errors} failures until it was removed");
    assert_eq!(gateway.metrics().sum("smg_worker_removals_total", &["reason=\"failing\""]), 1.0);
    wait::until("a log line says so", || gateway.has_logged(&["WARN", "removed", &dead.url()]));
}

#[test]
fn a_success_in_between_forgives_failures() {
    let worker = Worker::manual();
    let launch = PLAIN.launch().flag("--max-worker-retries", 2).switch("--disable-retries");
    let gateway = launch.worker(worker.url()).start();
    for _ in 0..4 {
        let mut client = gateway.client();
        client.send(&chat("dies").bytes());
        let mut exchange = worker.exchange();
        // Half a head: a failure that no fresh connection mends.
        exchange.send(b"HTTP/1.1 2");
        exchange.close();
        assert_eq!(client.response().status, 502);
        client.send(&chat("lives").bytes());
        worker.exchange().answer("{}");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(gateway.workers().len(), 1);
}

#[test]
fn attempts_end_at_the_total() {
    let workers: Vec<Worker> = (0..5).map(|_| Worker::answering()).collect();
    let launch = PLAIN.launch().flag("--max-total-retries", 3);
    let gateway = workers.iter().fold(launch, |launch, worker| launch.worker(worker.url())).start();
    workers.iter().for_each(Worker::kill);
    let response = gateway.ask(&chat("hello"));
    assert_eq!(response.status, 502, "{}", response.text());
    assert_eq!(response.error_code().as_deref(), Some("call_upstream_connection_failed"));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_worker_errors_total", &[]), 3.0);
    assert_eq!(metrics.sum("smg_worker_retries_total", &[]), 2.0);
    assert_eq!(metrics.sum("smg_worker_retries_exhausted_total", &[]), 1.0);
}

#[test]
fn a_worker_that_was_never_up_gets_no_request() {
    let alive = Worker::answering();
    let refusing = format!("http://{}", place::refusing());
    let gateway = PLAIN.launch().worker(refusing).worker(alive.url()).start_listening();
    gateway.wait_healthy(1);
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.ask(&chat("hello")).status, 200);
    }
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}
