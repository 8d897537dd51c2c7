//! Circuit breakers: who fails gets no requests for a while, and the client's own mistakes are nobody's failure.

use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 6\r\n\r\nbroken";
const WRONG: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nwrong";
const BUSY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nbusy";

on_every_setup! {
    the_threshold_is_exact_over_connections_and_shards
    what_the_client_did_wrong_opens_nothing
}

fn state_of(gateway: &Gateway, worker: &Worker) -> f64 {
    gateway.metrics().sum("smg_worker_cb_state", &[&format!("worker=\"{}\"", worker.url())])
}

fn the_threshold_is_exact_over_connections_and_shards(setup: Setup) {
    let worker = Worker::answering();
    worker.answer_with(BROKEN);
    let launch = setup.launch().switch("--disable-retries").flag("--cb-failure-threshold", 7);
    let gateway = launch.worker(worker.url()).start();
    for _ in 0..7 {
        // A new connection each time: with two shards, they spread.
        assert_eq!(gateway.ask(&chat("hello")).status, 500);
    }
    let refused = gateway.ask(&chat("hello"));
    assert_eq!((refused.status, refused.error_code().as_deref()), (503, Some("no_available_workers")));
    assert_eq!(worker.received().len(), 7);
    assert_eq!(state_of(&gateway, &worker), 1.0);
    wait::until("readiness tells the truth", || gateway.get("/readiness").status == 503);
    let moved = gateway.metrics().sum("smg_worker_cb_transitions_total", &["from=\"closed\"", "to=\"open\""]);
    assert_eq!(moved, 1.0);
    wait::until("the log says so", || gateway.has_logged(&["WARN", "circuit breaker", &worker.url()]));
    gateway.wait_idle();
}

fn what_the_client_did_wrong_opens_nothing(setup: Setup) {
    let worker = Worker::answering();
    let launch = setup.launch().switch("--disable-retries").flag("--cb-failure-threshold", 2);
    let gateway = launch.worker(worker.url()).start();
    for (answer, status) in [(WRONG, 400), (BUSY, 429)] {
        worker.answer_with(answer);
        for _ in 0..10 {
            assert_eq!(gateway.ask(&chat("hello")).status, status);
        }
    }
    assert_eq!(state_of(&gateway, &worker), 0.0);
    gateway.wait_idle();
}

#[test]
fn a_worker_comes_back_after_its_probes() {
    let (failing, well) = (Worker::answering(), Worker::answering());
    failing.answer_with(BROKEN);
    let gateway = PLAIN
        .launch()
        .flag("--cb-failure-threshold", 2)
        .flag("--cb-success-threshold", 2)
        .flag("--cb-timeout-duration-secs", 1)
        .flag("--recovery-ramp-secs", 0)
        .worker(failing.url())
        .worker(well.url())
        .start();
    let mut client = gateway.client();
    wait::until("the breaker opens, and no client sees why", || {
        assert_eq!(client.ask(&chat("hello")).status, 200);
        state_of(&gateway, &failing) == 1.0
    });
    failing.answer_with(&testkit::worker::json_answer("{}"));
    let before = failing.received().len();
    wait::until("it is closed again", || {
        assert_eq!(client.ask(&chat("hello")).status, 200);
        state_of(&gateway, &failing) == 0.0
    });
    assert_eq!(failing.received().len() - before, 2, "as many probes as close it");
    let turns = |worker: &Worker| worker.received().len();
    wait::until("turn and turn about again, once control has heard of it", || {
        let counted = (turns(&failing), turns(&well));
        (0..10).for_each(|_| assert_eq!(client.ask(&chat("hello")).status, 200));
        (turns(&failing) - counted.0, turns(&well) - counted.1) == (5, 5)
    });
}

#[test]
fn a_probe_whose_client_leaves_makes_room_for_another() {
    let worker = Worker::manual();
    let gateway = PLAIN
        .launch()
        .switch("--disable-retries")
        .flag("--cb-failure-threshold", 1)
        .flag("--cb-success-threshold", 1)
        .flag("--cb-timeout-duration-secs", 1)
        .worker(worker.url())
        .start();
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let mut exchange = worker.exchange();
    exchange.send(BROKEN);
    exchange.close();
    assert_eq!(client.response().status, 500);
    wait::until("some requests may try it", || state_of(&gateway, &worker) == 2.0);
    let mut leaving = gateway.client();
    leaving.send(&chat("leaves").bytes());
    let exchange = worker.exchange();
    assert_eq!(client.ask(&chat("one at a time")).status, 503);
    leaving.reset();
    exchange.wait_closed();
    gateway.wait_idle();
    client.send(&chat("probes").bytes());
    worker.exchange().answer("{}");
    assert_eq!(client.response().status, 200);
    assert_eq!(state_of(&gateway, &worker), 0.0);
}

#[test]
fn a_disabled_breaker_never_opens() {
    let worker = Worker::answering();
    worker.answer_with(BROKEN);
    let launch = PLAIN.launch().switch("--disable-retries").switch("--disable-circuit-breaker");
    let gateway = launch.flag("--cb-failure-threshold", 1).worker(worker.url()).start();
    for _ in 0..20 {
        assert_eq!(gateway.ask(&Request::json(CHAT, r#"{"messages":[]}"#)).status, 500);
    }
    assert_eq!(worker.received().len(), 20);
}
