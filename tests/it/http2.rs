//! HTTP/2 with clients, over plain connections, and with workers that say they speak it.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::http2::DATA;
use testkit::http2::END_STREAM;
use testkit::http2::GOAWAY;
use testkit::http2::HEADERS;
use testkit::http2::Http2;
use testkit::http2::Outcome;
use testkit::http2::RST_STREAM;
use testkit::http2::frame;
use testkit::http2::request;
use testkit::wait;
use testkit::wait::DEADLINE;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    streams_of_one_connection_do_not_wait_for_each_other
    a_reset_stream_is_a_client_that_has_left
    a_client_that_gives_no_leave_stops_its_worker
    draining_says_goodbye_and_lets_streams_finish
    a_worker_that_speaks_http2_is_spoken_to_in_it
}

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/v1/chat/completions")];
const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/health")];
const BODY: &[u8] = b"{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";

fn connect(gateway: &Gateway) -> Http2<TcpStream> {
    let stream = TcpStream::connect(gateway.addr()).expect("the gateway listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let mut client = Http2::silent(stream);
    client.begin().expect("the gateway speaks HTTP/2");
    client
}

/// Begins a chat on a stream.
fn post(client: &mut Http2<TcpStream>, stream: u32) {
    let bytes = [request(stream, &POST, 0), frame(DATA, END_STREAM, stream, BODY)].concat();
    client.send(&bytes).expect("it is taken");
}

fn streams_of_one_connection_do_not_wait_for_each_other(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = connect(&gateway);
    let mut exchanges = Vec::new();
    for stream in [1, 3, 5] {
        post(&mut client, stream);
        exchanges.push(worker.exchange());
        assert_eq!(exchanges[exchanges.len() - 1].request.body, BODY);
    }
    // They are answered in the opposite order.
    for (stream, exchange) in [1, 3, 5].into_iter().zip(exchanges).rev() {
        exchange.answer(&format!("{{\"stream\":{stream}}}"));
        let expect = format!("{{\"stream\":{stream}}}").into_bytes();
        assert_eq!(client.outcome(stream), Outcome::Answer(200, expect));
    }
    gateway.wait_idle();
}

fn a_reset_stream_is_a_client_that_has_left(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = connect(&gateway);
    post(&mut client, 1);
    let waiting = worker.exchange();
    client.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).expect("it is taken");
    waiting.wait_closed();
    post(&mut client, 3);
    let mut streaming = worker.exchange();
    streaming.open_stream();
    streaming.event("1");
    while client.frame().expect("an answer").kind != HEADERS {}
    client.send(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])).expect("it is taken");
    streaming.wait_closed();
    post(&mut client, 5);
    let last = worker.exchange();
    drop(client);
    last.wait_closed();
    gateway.wait_idle();
}

fn a_client_that_gives_no_leave_stops_its_worker(setup: Setup) {
    const MANY_BYTES: usize = 96 * 1024 * 1024;
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = connect(&gateway);
    post(&mut client, 1);
    let mut stuck = worker.exchange();
    stuck.open_stream();
    let event = format!("{:x}\r\ndata: {}\n\n\r\n", 1008, "x".repeat(1000));
    assert!(stuck.send_until_stuck(event.as_bytes(), MANY_BYTES) < MANY_BYTES, "the worker is never stopped");
    drop(client);
    stuck.wait_closed();
    gateway.wait_idle();
}

fn draining_says_goodbye_and_lets_streams_finish(setup: Setup) {
    let worker = Worker::manual();
    let mut gateway = setup.start(&[&worker]);
    let mut client = connect(&gateway);
    post(&mut client, 1);
    let exchange = worker.exchange();
    gateway.signal(Signal::TERM);
    while client.frame().expect("a goodbye").kind != GOAWAY {}
    exchange.answer("{\"last\":1}");
    assert_eq!(client.outcome(1), Outcome::Answer(200, b"{\"last\":1}".to_vec()));
    assert!(gateway.wait_exit().success());
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let worker = Worker::answering();
    let launch = PLAIN.launch().flag("--keep-alive-timeout-secs", 1).worker(worker.url());
    let gateway = launch.start();
    let mut client = connect(&gateway);
    client.send(&request(1, &GET, END_STREAM)).expect("it is taken");
    assert_eq!(client.outcome(1), Outcome::Answer(200, b"OK".to_vec()));
    assert_eq!(client.outcome(3), Outcome::Closed);
    assert!(client.is_told_to_go);
}

#[test]
fn errors_are_the_same_as_in_http1() {
    let gateway = PLAIN.launch().start();
    let mut client = connect(&gateway);
    post(&mut client, 1);
    let Outcome::Answer(503, body) = client.outcome(1) else { unreachable!("there is no worker") };
    let body = String::from_utf8(body).expect("text");
    assert!(body.contains("\"code\":\"no_available_workers\""), "{body}");
}

fn a_worker_that_speaks_http2_is_spoken_to_in_it(setup: Setup) {
    let worker = Worker::manual();
    // Its worker is a gateway, which says that it speaks HTTP/2.
    let next = PLAIN.launch().worker(worker.url()).start();
    let gateway = setup.launch().worker(format!("http://{}", next.addr())).start();
    let mut clients: Vec<_> = (0..8).map(|_| gateway.client()).collect();
    for round in 0..5 {
        for client in &mut clients {
            client.send(&chat(&format!("round {round}")).bytes());
        }
        for _ in &clients {
            worker.exchange().answer("{\"done\":1}");
        }
        for client in &mut clients {
            assert_eq!(client.response().text(), "{\"done\":1}");
        }
    }
    assert!(next.metrics().sum("smg_shard_http2_streams_total", &[]) >= 40.0);
    // They shared a few connections, and were not given one each.
    assert!(gateway.metrics().sum("smg_shard_upstream_idle", &[]) <= 8.0);
    // A client that leaves resets its stream, and no other.
    let (mut leaver, mut stayer) = (gateway.client(), gateway.client());
    leaver.send(&chat("leaves").bytes());
    let left = worker.exchange();
    stayer.send(&chat("stays").bytes());
    let stays = worker.exchange();
    drop(leaver);
    left.wait_closed();
    stays.answer("{\"still\":1}");
    assert_eq!(stayer.response().text(), "{\"still\":1}");
    gateway.wait_idle();
}

#[test]
fn a_worker_that_goes_away_is_asked_again() {
    let worker = Worker::answering();
    // Epoll frees its port at once, so that the next one has it for itself.
    let launch = Setup { shards: 1, driver: "epoll" }.launch().worker(worker.url());
    let next = launch.start();
    let addr = next.addr();
    let gateway = PLAIN.launch().worker(format!("http://{addr}")).start();
    assert_eq!(gateway.ask(&chat("first")).status, 200);
    drop(next);
    let _next = launch.listen(addr).start();
    assert_eq!(gateway.ask(&chat("second")).status, 200);
}

#[test]
fn an_address_has_its_fill_of_connections() {
    let worker = Worker::answering();
    let launch = PLAIN.launch().flag("--max-connections-per-address", 3).worker(worker.url());
    let gateway = launch.start_listening();
    wait::until("room for three", || {
        let mut kept: Vec<_> = (0..3).map(|_| gateway.client()).collect();
        kept.iter_mut().all(|client| client.try_ask(&Request::get("/health")).is_ok())
    });
    let mut kept: Vec<_> = Vec::new();
    wait::until("three are in", || {
        let mut client = gateway.client();
        if client.try_ask(&Request::get("/health")).is_ok() {
            kept.push(client);
        }
        kept.len() == 3
    });
    for _ in 0..5 {
        assert!(gateway.client().is_closed());
    }
    assert!(gateway.metrics().sum("smg_shard_connections_over_address_total", &[]) >= 5.0);
    assert!(kept.iter_mut().all(|client| client.try_ask(&Request::get("/health")).is_ok()));
    kept.pop();
    wait::until("room again", || gateway.client().try_ask(&Request::get("/health")).is_ok());
}

#[test]
fn a_body_that_drips_is_refused() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().flag("--min-body-rate", 1000).worker(worker.url()).start();
    let mut client = gateway.client();
    client.send(b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
    // It is never silent for long.
    let pause = Duration::from_millis(100);
    assert!(wait::holds_within(DEADLINE, || {
        std::thread::sleep(pause);
        client.try_send_bytes(b"x").is_err() || client.has_answer()
    }));
    let response = client.response();
    assert_eq!((response.status, response.error_code().as_deref()), (408, Some("request_timeout")));
    assert!(worker.received().is_empty());
}
