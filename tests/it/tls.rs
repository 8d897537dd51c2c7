//! TLS towards clients and workers.

use std::fs;
use std::io::Read;
use std::io::Write;

use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::http2::END_STREAM;
use testkit::http2::Http2;
use testkit::http2::Outcome;
use testkit::http2::request;
use testkit::place;
use testkit::tls::Authority;
use testkit::tls::Pair;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    clients_are_served_in_either_protocol
    a_worker_behind_tls_is_like_any_other
    a_large_body_passes_through_two_gateways
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/health")];

fn serving(setup: Setup, authority: &Authority, pair: &Pair, worker: &Worker) -> Gateway {
    setup
        .launch()
        .listen(place::free_port(authority.ip))
        .flag("--tls-cert-path", pair.cert.display())
        .flag("--tls-key-path", pair.key.display())
        .worker(worker.url())
        .start_listening()
}

/// A gateway that trusts `authority`, before another one.
fn before(setup: Setup, authority: &Authority, next: &Gateway) -> Gateway {
    setup
        .launch()
        .flag("--ca-cert-paths", authority.cert.display())
        .worker(format!("https://{}", next.addr()))
        .start()
}

/// An answer over HTTP/1.1 with TLS.
fn ask(authority: &Authority, gateway: &Gateway, asked: Request, alpn: &[&[u8]]) -> String {
    let mut stream = authority.connect(gateway.addr(), alpn);
    stream.write_all(&asked.header("connection", "close").bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends with the TLS close");
    answer
}

fn clients_are_served_in_either_protocol(setup: Setup) {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::answering();
    let gateway = serving(setup, &authority, &pair, &worker);
    wait::until("the worker is healthy", || {
        ask(&authority, &gateway, Request::get("/readiness"), &[]).contains(" 200 ")
    });
    for alpn in [&[b"http/1.1".as_slice()][..], &[]] {
        let answer = ask(&authority, &gateway, chat("hello"), alpn);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("{\"worker\":"), "{answer}");
    }
    let mut stream = authority.connect(gateway.addr(), &[b"h2", b"http/1.1"]);
    stream.flush().expect("a handshake");
    let mut client = Http2::silent(stream);
    client.begin().expect("the gateway speaks HTTP/2");
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    client.send(&request(1, &GET, END_STREAM)).expect("it is taken");
    assert_eq!(client.outcome(1), Outcome::Answer(200, b"OK".to_vec()));
    assert_eq!(worker.received().len(), 2);
}

#[test]
fn a_client_without_tls_is_closed() {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::answering();
    let gateway = serving(PLAIN, &authority, &pair, &worker);
    let mut client = gateway.client();
    client.send(&Request::get("/health").bytes());
    let rest = client.try_rest().unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert!(ask(&authority, &gateway, Request::get("/health"), &[]).contains(" 200 "));
}

#[test]
fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::answering();
    let gateway = serving(PLAIN, &authority, &pair, &worker);
    let shown = || {
        let mut stream = authority.connect(gateway.addr(), &[]);
        stream.write_all(&Request::get("/health").bytes()).expect("it is taken");
        stream.read_exact(&mut [0]).expect("an answer");
        stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let first = shown();
    assert_eq!(shown(), first);
    authority.issue("server");
    wait::until("the new certificate is shown", || shown() != first);
    let second = shown();
    fs::write(&pair.cert, "no certificate").expect("written");
    wait::until("the bad one is told of", || {
        gateway.has_logged(&["is not usable", "the one before it stays"])
    });
    assert_eq!(shown(), second);
}

#[test]
fn files_that_cannot_be_used_refuse_to_start() {
    let authority = Authority::generate();
    let (pair, other) = (authority.issue("server"), authority.issue("other"));
    let text = |path: &std::path::Path| path.display().to_string();
    let (cert, key, other_key) = (text(&pair.cert), text(&pair.key), text(&other.key));
    let none = text(&pair.cert.with_extension("none"));
    for (flags, expect) in [
        (&[("--tls-cert-path", &cert)][..], "--tls-cert-path needs --tls-key-path"),
        (&[("--tls-key-path", &key)], "--tls-key-path needs --tls-cert-path"),
        (&[("--client-cert-path", &cert)], "--client-cert-path needs --client-key-path"),
        (&[("--client-key-path", &key)], "--client-key-path needs --client-cert-path"),
        (&[("--tls-cert-path", &none), ("--tls-key-path", &key)], "cannot read"),
        (&[("--tls-cert-path", &cert), ("--tls-key-path", &none)], "cannot read"),
        (&[("--tls-cert-path", &key), ("--tls-key-path", &key)], "holds no certificate"),
        (&[("--tls-cert-path", &cert), ("--tls-key-path", &cert)], "is not usable"),
        (&[("--tls-cert-path", &cert), ("--tls-key-path", &other_key)], "is not usable"),
        (&[("--client-cert-path", &cert), ("--client-key-path", &other_key)], "is not usable"),
        (&[("--ca-cert-paths", &none)], "cannot read"),
        (&[("--ca-cert-paths", &key)], "holds no certificate"),
    ] {
        let launch = flags.iter().fold(PLAIN.launch(), |launch, (flag, value)| launch.flag(flag, value));
        let ended = launch.run_to_end();
        assert_eq!(ended.code, Some(2), "{flags:?}: {:?}", ended.stderr);
        assert!(ended.stderr.len() == 1 && ended.stderr[0].contains(expect), "{flags:?}: {:?}", ended.stderr);
    }
}

fn a_worker_behind_tls_is_like_any_other(setup: Setup) {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::manual();
    let next = serving(setup, &authority, &pair, &worker);
    let gateway = before(setup, &authority, &next);
    wait::until("the next gateway has its worker", || gateway.get("/v1/models").text().contains("mock"));
    let mut client = gateway.client();
    for name in ["first", "second"] {
        client.send(&chat(name).bytes());
        let exchange = worker.exchange();
        assert!(String::from_utf8_lossy(&exchange.request.body).contains(name));
        exchange.answer("{\"done\":1}");
        assert_eq!(client.response().text(), "{\"done\":1}");
    }
    let mut exchange = begin_stream(&mut client, &worker);
    exchange.event("2");
    assert_eq!(client.event().as_deref(), Some("data: 2"));
    exchange.event("[DONE]");
    exchange.close_stream();
    assert_eq!(client.events().last().map(String::as_str), Some("[DONE]"));
    // Who leaves is seen to have left by the worker at the far end.
    let exchange = begin_stream(&mut client, &worker);
    drop(client);
    exchange.wait_closed();
    // A worker that breaks off breaks the answer off.
    let mut client = gateway.client();
    let exchange = begin_stream(&mut client, &worker);
    exchange.reset();
    let rest = client.try_rest().expect("an end");
    assert!(String::from_utf8_lossy(&rest).contains("\"error\""), "{}", String::from_utf8_lossy(&rest));
    gateway.wait_idle();
}

fn a_large_body_passes_through_two_gateways(setup: Setup) {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::manual();
    let next = serving(setup, &authority, &pair, &worker);
    let gateway = before(setup, &authority, &next);
    let body = format!("{{\"prompt\":\"{}\"}}", "x".repeat(5_000_000));
    let answer = format!("{{\"text\":\"{}\"}}", "y".repeat(3_000_000));
    wait::until("the next gateway has its worker", || gateway.get("/v1/models").text().contains("mock"));
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send(&Request::json("/v1/completions", body.clone()).bytes());
        let exchange = worker.exchange();
        assert!(exchange.request.body == body.as_bytes());
        exchange.answer(&answer);
        assert!(client.response().body == answer.as_bytes());
    }
    gateway.wait_idle();
}

/// Its port is free as soon as it ends, so that the next one has it for itself.
const EPOLL: Setup = Setup { shards: 1, driver: "epoll" };

#[test]
fn a_certificate_that_is_not_good_is_named() {
    let authority = Authority::generate();
    let pair = authority.issue("server");
    let worker = Worker::answering();
    let next = serving(EPOLL, &authority, &pair, &worker);
    // Three bad certificates in a row would open the circuit.
    let launch = PLAIN.launch().switch("--disable-circuit-breaker");
    let launch = launch.flag("--ca-cert-paths", authority.cert.display());
    let gateway = launch.worker(format!("https://{}", next.addr())).start();
    let addr = next.addr();
    drop(next);
    let strange = Authority::generate();
    for (pair, reason) in [
        (
            strange.issue_for("server", &[&authority.ip.to_string()], 2100),
            "from an authority that is not trusted",
        ),
        (authority.issue_for("elsewhere", &["elsewhere"], 2100), "for another name"),
        (authority.issue_for("expired", &[&authority.ip.to_string()], 2001), "has expired"),
    ] {
        let launch = EPOLL.launch().listen(addr).worker(worker.url());
        let launch = launch.flag("--tls-cert-path", pair.cert.display());
        let next = launch.flag("--tls-key-path", pair.key.display()).start_listening();
        let answer = gateway.ask(&chat("hello"));
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(answer.error_code().as_deref(), Some("call_upstream_connection_failed"));
        assert!(answer.text().contains(reason), "{}", answer.text());
        drop(next);
    }
}
