//! The process: signals, what a shutdown waits for, and starts that cannot work.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Launch;
use testkit::gateway::Signal;
use testkit::gateway::run_to_end;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    sigterm_lets_a_running_stream_finish
    a_second_signal_stops_at_once
    the_grace_period_ends_what_does_not_end
    an_idle_gateway_ends_at_once
    whoever_is_let_in_is_answered_to_the_end
    readiness_says_draining_while_all_is_still_served
}

fn sigterm_lets_a_running_stream_finish(setup: Setup) {
    for signal in [Signal::TERM, Signal::INT] {
        let worker = Worker::manual();
        let mut gateway = setup.start(&[&worker]);
        let mut client = gateway.client();
        let mut exchange = begin_stream(&mut client, &worker);
        gateway.signal(signal);
        wait::until("new connections are refused", || Client::try_connect(gateway.addr()).is_err());
        for at in 2..10 {
            exchange.event(&at.to_string());
            assert_eq!(client.event(), Some(format!("data: {at}")));
        }
        assert!(gateway.is_running(), "it waits for the stream");
        exchange.close_stream();
        assert_eq!(client.events(), ["[DONE]"]);
        assert!(client.is_closed());
        assert_eq!(gateway.wait_exit().code(), Some(0));
    }
}

fn a_second_signal_stops_at_once(setup: Setup) {
    let worker = Worker::manual();
    let mut gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let exchange = worker.exchange();
    gateway.signal(Signal::TERM);
    wait::until("new connections are refused", || Client::try_connect(gateway.addr()).is_err());
    assert!(gateway.is_running());
    gateway.signal(Signal::TERM);
    let response = client.response();
    assert_eq!((response.status, response.error_code().as_deref()), (503, Some("shutting_down")));
    gateway.wait_exit();
    exchange.wait_closed();
}

fn the_grace_period_ends_what_does_not_end(setup: Setup) {
    let worker = Worker::manual();
    let launch = setup.launch().flag("--shutdown-grace-period-secs", 1).worker(worker.url());
    let mut gateway = launch.start();
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let exchange = worker.exchange();
    gateway.signal(Signal::TERM);
    gateway.wait_exit();
    exchange.wait_closed();
}

fn an_idle_gateway_ends_at_once(setup: Setup) {
    let worker = Worker::answering();
    let mut gateway = setup.start(&[&worker]);
    let mut idle = gateway.client();
    assert_eq!(idle.ask(&chat("hello")).status, 200);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(idle.is_closed());
}

/// Clients that connect all the time while it ends: each is refused, or answered. None is reset.
fn whoever_is_let_in_is_answered_to_the_end(setup: Setup) {
    let worker = Worker::answering();
    let mut gateway = setup.start(&[&worker]);
    let addr = gateway.addr();
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let served = Arc::clone(&served);
            thread::spawn(move || {
                while let Ok(mut client) = Client::try_connect(addr) {
                    let answer = client.try_ask(&chat("hello"));
                    assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    wait::until("clients are served", || served.load(Ordering::Relaxed) > 100);
    gateway.signal(Signal::TERM);
    for client in clients {
        client.join().expect("nobody was let in and left without an answer");
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn readiness_says_draining_while_all_is_still_served(setup: Setup) {
    let worker = Worker::answering();
    let mut gateway = setup.launch().flag("--drain-settle-secs", 2).worker(worker.url()).start();
    let mut kept = gateway.client();
    assert_eq!(kept.ask(&chat("hello")).status, 200);
    gateway.signal(Signal::TERM);
    wait::until("balancers are sent elsewhere", || gateway.get("/readiness").status == 503);
    let page = gateway.get("/readiness");
    assert_eq!((page.status, page.json()["reason"].as_str()), (503, Some("draining")));
    assert_eq!(gateway.get("/liveness").status, 200);
    assert_eq!(kept.ask(&chat("hello")).status, 200, "who is connected is served");
    assert_eq!(gateway.ask(&chat("hello")).status, 200, "and so is who comes");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

/// A connection with a request under way outlives the listener, and is told the truth.
#[test]
fn readiness_says_draining_on_connections_that_are_still_open() {
    let worker = Worker::manual();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    // Both requests are there before the end begins; the second is answered while it lasts.
    let both = [chat("hello").bytes(), Request::get("/readiness").bytes()].concat();
    client.send(&both);
    let exchange = worker.exchange();
    gateway.signal(Signal::TERM);
    wait::until("new connections are refused", || Client::try_connect(gateway.addr()).is_err());
    exchange.answer("{}");
    assert_eq!(client.response().status, 200);
    let closed = client.try_response();
    assert!(closed.is_err() || closed.is_ok_and(|page| page.status == 503), "it is not called ready");
}

#[track_caller]
fn check_refused(launch: &Launch, words: &[&str]) {
    let ended = launch.run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
    for word in words {
        assert!(ended.stderr[0].contains(word), "{word:?} is not in {:?}", ended.stderr);
    }
}

#[test]
fn a_port_in_use_ends_the_start() {
    let taken = TcpListener::bind((place::own_ip(), 0)).expect("a port");
    let addr = taken.local_addr().expect("bound");
    let port = addr.port().to_string();
    check_refused(&PLAIN.launch().listen(addr), &[&port, "in use"]);
    check_refused(&PLAIN.launch().prometheus(addr), &[&port, "in use"]);
}

#[test]
fn a_port_of_another_gateway_ends_the_start() {
    let first = PLAIN.launch().start_listening();
    check_refused(&PLAIN.launch().listen(first.addr()), &["in use"]);
    assert_eq!(first.get("/health").status, 200);
}

#[test]
fn command_lines_that_cannot_work_end_the_start_with_one_line() {
    for (name, value, words) in [
        ("--cpu-affinity", "0-", "--cpu-affinity"),
        ("--cpu-affinity", "x", "--cpu-affinity"),
        ("--cpu-affinity", "100000", "--cpu-affinity"),
        ("--cpu-affinity", "0,0", "--cpu-affinity"),
        ("--policy", "fastest", "fastest"),
        ("--io-driver", "kqueue", "kqueue"),
        ("--shards", "0", "--shards"),
        ("--shards", "two", "--shards"),
        ("--max-payload-size", "0", "--max-payload-size"),
        ("--request-timeout-secs", "0", "--request-timeout-secs"),
        ("--log-level", "loud", "loud"),
        ("--prefix-memory", "lots", "--prefix-memory"),
        ("--no-such-flag", "1", "--no-such-flag"),
        ("--health-check-endpoint", "health", "--health-check-endpoint"),
    ] {
        check_refused(&binary().flag(name, value), &[words]);
    }
}

#[test]
fn worker_urls_that_cannot_work_end_the_start_with_one_line() {
    for url in ["127.0.0.1:8000", "ftp://a", "http://", "http://:8000", "http://a:0", "http://a b", ""] {
        check_refused(&binary().worker("http://127.0.0.1:1").worker(url), &[url]);
    }
    check_refused(&binary().worker("http://a:1").worker("HTTP://A:1/"), &["twice"]);
}

#[test]
fn help_and_version_end_well_and_nonsense_does_not() {
    let program = Path::new(env!("CARGO_BIN_EXE_ringway"));
    for flag in ["--help", "--version", "-h", "-V"] {
        assert_eq!(run_to_end(program, &[flag]).code, Some(0), "{flag}");
    }
    for args in [&["no-such-command"][..], &["--host", "nowhere"], &["--port", "70000"], &["--port", "0"]] {
        let ended = run_to_end(program, args);
        assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{args:?}: {:?}", ended.stderr);
        assert!(ended.stderr[0].contains(args[0]), "{:?}", ended.stderr);
    }
}

#[test]
fn a_thousand_starts_of_connections_leave_nothing_open() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for _ in 0..1000 {
        drop(gateway.client());
    }
    // The page is asked on its own listener, so no connection of ours is left.
    wait::until("no connection is open", || gateway.metrics().sum("smg_http_connections_active", &[]) == 0.0);
    assert_eq!(gateway.ask(&Request::get("/health")).status, 200);
}
