//! Failover: by status, with pauses and a budget; and streams that another worker takes over unseen.

use testkit::client::Client;
use testkit::gateway::Gateway;
use testkit::wait;
use testkit::worker::Exchange;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    statuses_that_another_worker_may_do_better_than_are_retried
    a_stream_whose_worker_dies_before_the_first_token_goes_on_elsewhere
    a_stream_that_stalls_before_the_first_token_goes_on_elsewhere
    a_json_answer_that_breaks_off_is_asked_for_again
}

fn answer(status: u16, more: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 4\r\n{more}\r\nfail").into_bytes()
}

fn statuses_that_another_worker_may_do_better_than_are_retried(setup: Setup) {
    let (failing, well) = (Worker::answering(), Worker::answering());
    let launch = setup.launch().flag("--retry-initial-backoff-ms", 1).switch("--disable-circuit-breaker");
    let gateway = launch.worker(failing.url()).worker(well.url()).start();
    let mut client = gateway.client();
    for status in [408, 429, 500, 502, 503, 504] {
        failing.answer_with(&answer(status, ""));
        for _ in 0..4 {
            assert_eq!(client.ask(&chat("hello")).json()["worker"], well.url());
        }
    }
    for status in [400, 401, 404, 422, 501] {
        failing.answer_with(&answer(status, ""));
        let statuses: Vec<u16> = (0..4).map(|_| client.ask(&chat("hello")).status).collect();
        assert_eq!(statuses.iter().filter(|&&other| other == status).count(), 2, "{statuses:?}");
    }
    let metrics = gateway.metrics();
    // A retry takes a turn too, so every first attempt falls on the one that fails.
    assert_eq!(metrics.sum("smg_worker_retries_total", &[]), 24.0);
    assert_eq!(metrics.sum("smg_worker_retry_backoff_seconds_count", &["attempt=\"1\""]), 24.0);
    gateway.wait_idle();
}

#[test]
fn when_everybody_fails_the_client_gets_the_last_answer() {
    let workers = [Worker::answering(), Worker::answering()];
    workers.iter().for_each(|worker| worker.answer_with(&answer(503, "x-from: the worker\r\n")));
    let launch = PLAIN.launch().flag("--retry-max-retries", 4).flag("--retry-initial-backoff-ms", 1);
    let gateway = launch.worker(workers[0].url()).worker(workers[1].url()).start();
    let response = gateway.ask(&chat("hello"));
    assert_eq!((response.status, response.text().as_str()), (503, "fail"));
    assert_eq!(response.headers.get("x-from"), Some("the worker"));
    // Nobody is asked twice while somebody has not been asked.
    assert_eq!(workers.map(|worker| worker.received().len()), [2, 2]);
    assert_eq!(gateway.metrics().sum("smg_worker_retries_exhausted_total", &[]), 1.0);
}

#[test]
fn retry_after_is_honoured_or_passed_on() {
    let worker = Worker::answering();
    let start = |max_backoff_ms: u64| {
        let launch = PLAIN.launch().flag("--retry-initial-backoff-ms", 1).flag("--retry-max-retries", 2);
        launch.flag("--retry-max-backoff-ms", max_backoff_ms).worker(worker.url()).start()
    };
    worker.answer_with(&answer(503, "retry-after: 7\r\n"));
    let response = start(1_000).ask(&chat("hello"));
    assert_eq!((response.status, response.headers.get("retry-after")), (503, Some("7")));
    assert_eq!(worker.received().len(), 1, "it asked to be left alone for longer than may be waited");
    worker.answer_with(&answer(503, "retry-after: 1\r\n"));
    let gateway = start(1_000);
    assert_eq!(gateway.ask(&chat("hello")).status, 503);
    assert_eq!(worker.received().len(), 3);
    let paused = gateway.metrics().sum("smg_worker_retry_backoff_seconds_sum", &[]);
    assert!((0.9..1.1).contains(&paused), "{paused} s");
}

#[test]
fn an_outage_is_not_multiplied() {
    let worker = Worker::answering();
    worker.answer_with(&answer(500, ""));
    let gateway = PLAIN
        .launch()
        .switch("--disable-circuit-breaker")
        .flag("--retry-initial-backoff-ms", 1)
        .flag("--retry-max-backoff-ms", 1)
        .flag("--retry-budget-percent", 0)
        .worker(worker.url())
        .start();
    let mut client = gateway.client();
    (0..200).for_each(|_| assert_eq!(client.ask(&chat("hello")).status, 500));
    let metrics = gateway.metrics();
    let (retries, denied) =
        (metrics.sum("smg_worker_retries_total", &[]), metrics.sum("smg_worker_retries_denied_total", &[]));
    assert_eq!(worker.received().len() as f64, 200.0 + retries);
    // A hundred saved up, and a trickle of ten a second.
    assert!((100.0..150.0).contains(&retries) && denied > 100.0, "{retries} retries, {denied} denied");
}

#[test]
fn who_cannot_be_connected_to_costs_no_budget() {
    let (gone, well) = (Worker::answering(), Worker::answering());
    let gateway = PLAIN
        .launch()
        .switch("--disable-circuit-breaker")
        .flag("--max-worker-retries", 10_000)
        .flag("--retry-budget-percent", 0)
        .worker(gone.url())
        .worker(well.url())
        .start();
    gone.kill();
    let mut client = gateway.client();
    (0..400).for_each(|_| assert_eq!(client.ask(&chat("hello")).status, 200));
    let metrics = gateway.metrics();
    // More than a hundred saved up, and a trickle.
    assert!(metrics.sum("smg_worker_retries_total", &[]) >= 200.0);
    assert_eq!(metrics.sum("smg_worker_retries_denied_total", &[]), 0.0);
    assert_eq!(metrics.sum("smg_worker_retry_backoff_seconds_count", &[]), 0.0, "nor any pause");
    gateway.wait_idle();
}

#[test]
fn a_client_that_leaves_during_a_pause_ends_it() {
    let worker = Worker::answering();
    worker.answer_with(&answer(503, ""));
    let gateway = PLAIN.launch().flag("--retry-initial-backoff-ms", 20_000).worker(worker.url()).start();
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    wait::until("it waits", || worker.received().len() == 1);
    client.reset();
    wait::until("it is noticed", || gateway.metrics().sum("smg_http_client_aborts_total", &[]) == 1.0);
    gateway.wait_idle();
    assert_eq!(worker.received().len(), 1);
}

/// Begins a stream and says where it went, and who else there is.
fn begin<'a>(gateway: &Gateway, workers: &'a [Worker; 2]) -> (Client, Exchange, &'a Worker) {
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let (exchange, other) = wait::some("the request at either worker", || {
        let at = |at: usize| workers[at].exchange_now().map(|exchange| (exchange, &workers[1 - at]));
        at(0).or_else(|| at(1))
    });
    (client, exchange, other)
}

/// The other worker serves the stream to its end.
fn finish(mut client: Client, other: &Worker) {
    let mut exchange = other.exchange();
    exchange.open_stream();
    exchange.event("1");
    exchange.close_stream();
    let (status, headers) = client.head();
    assert_eq!((status, headers.get("content-type")), (200, Some("text/event-stream")));
    let events: Vec<String> = client.events().into_iter().filter(|event| !event.starts_with(": ")).collect();
    assert_eq!(events, ["1", "[DONE]"]);
}

fn a_stream_whose_worker_dies_before_the_first_token_goes_on_elsewhere(setup: Setup) {
    let workers = [Worker::manual(), Worker::manual()];
    let launch = setup.launch().flag("--retry-initial-backoff-ms", 1).flag("--cb-failure-threshold", 100);
    let gateway = launch.worker(workers[0].url()).worker(workers[1].url()).start();
    let deaths: [fn(&mut Exchange); 5] = [
        |_| {},
        |exchange| exchange.send(b"HTTP/1.1 200 OK\r\ncontent-ty"),
        |exchange| exchange.open_stream(),
        |exchange| {
            exchange.open_stream();
            exchange.chunk(b"data: half an ev");
        },
        |exchange| {
            exchange.open_stream();
            exchange.chunk(b": still here\n\n");
        },
    ];
    for die in deaths {
        let (client, mut exchange, other) = begin(&gateway, &workers);
        die(&mut exchange);
        exchange.reset();
        finish(client, other);
    }
    let aborted = gateway.metrics().sum("smg_http_broken_responses_total", &[]);
    assert_eq!(aborted, 0.0);
    gateway.wait_idle();
}

#[test]
fn a_stream_has_moved_once_the_other_worker_has_begun() {
    let workers = [Worker::manual(), Worker::manual()];
    let launch = PLAIN.launch().flag("--retry-initial-backoff-ms", 1).flag("--retry-max-retries", 2);
    let gateway = launch.worker(workers[0].url()).worker(workers[1].url()).start();
    let moved = || gateway.metrics().sum("smg_http_streams_moved_total", &[]);
    let (mut client, mut exchange, other) = begin(&gateway, &workers);
    exchange.open_stream();
    exchange.reset();
    let mut second = other.exchange();
    second.open_stream();
    second.reset();
    assert_eq!(client.response().status, 502);
    assert_eq!(moved(), 0.0, "nobody took over");
    let (client, mut exchange, other) = begin(&gateway, &workers);
    exchange.open_stream();
    exchange.reset();
    finish(client, other);
    assert_eq!(moved(), 1.0);
    gateway.wait_idle();
}

#[test]
fn who_is_busy_counts_as_full_for_as_long_as_it_says() {
    let (busy, well) = (Worker::answering(), Worker::answering());
    busy.answer_with(&answer(429, "retry-after: 60\r\n"));
    let launch = binary().flag("--policy", "power_of_two").flag("--retry-initial-backoff-ms", 1);
    let gateway = launch.worker(busy.url()).worker(well.url()).start();
    let mut client = gateway.client();
    for n in 0..100 {
        assert_eq!(client.ask(&chat(&format!("hello {n}"))).json()["worker"], well.url());
    }
    assert!(busy.received().len() <= 1, "{} requests", busy.received().len());
    gateway.wait_idle();
}

fn a_stream_that_stalls_before_the_first_token_goes_on_elsewhere(setup: Setup) {
    let workers = [Worker::manual(), Worker::manual()];
    let launch = setup.launch().flag("--first-token-timeout-secs", 1).flag("--retry-initial-backoff-ms", 1);
    let gateway = launch.worker(workers[0].url()).worker(workers[1].url()).start();
    for stall in [false, true] {
        let (client, mut exchange, other) = begin(&gateway, &workers);
        if stall {
            exchange.open_stream();
            exchange.chunk(b": a comment is no token\n\n");
        }
        finish(client, other);
        exchange.wait_closed();
    }
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &["error_type=\"stall\""]), 2.0);
    assert_eq!(gateway.metrics().sum("smg_worker_cb_outcomes_total", &["outcome=\"failure\""]), 2.0);
    gateway.wait_idle();
}

#[test]
fn a_stream_that_stalls_between_tokens_ends_with_an_error_event() {
    let worker = Worker::manual();
    let gateway = PLAIN.launch().flag("--inter-token-timeout-secs", 1).worker(worker.url()).start();
    let mut client = gateway.client();
    let mut exchange = begin_stream(&mut client, &worker);
    // A comment is passed on and is no token.
    exchange.chunk(b": ping\n\n");
    assert_eq!(client.event().as_deref(), Some(": ping"));
    let error = client.event().expect("an error");
    assert!(error.contains("call_upstream_timeout"), "{error}");
    assert_eq!(client.event().as_deref(), Some("data: [DONE]"));
    exchange.wait_closed();
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &["error_type=\"stall\""]), 1.0);
}

fn a_json_answer_that_breaks_off_is_asked_for_again(setup: Setup) {
    let workers = [Worker::manual(), Worker::manual()];
    let launch = setup.launch().flag("--retry-initial-backoff-ms", 1);
    let gateway = launch.worker(workers[0].url()).worker(workers[1].url()).start();
    let (mut client, mut exchange, other) = begin(&gateway, &workers);
    exchange
        .send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half\":");
    exchange.close();
    other.exchange().answer("{\"whole\":1}");
    assert_eq!(client.response().text(), "{\"whole\":1}");
    gateway.wait_idle();
}
