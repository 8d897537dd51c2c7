//! Prefill and decode workers: both halves of a request find each other, begin together and end together.

mod fleet;
mod vllm;

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::pairs::Plan;
use testkit::wait;
use testkit::worker::Exchange;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    both_halves_get_the_same_room
    a_stream_begins_when_the_decode_worker_does
    a_prefill_worker_that_dies_is_replaced_with_both_halves_anew
    a_decode_worker_that_dies_is_replaced_with_both_halves_anew
    a_client_that_leaves_ends_both_halves
    log_probabilities_of_the_prompt_come_from_both
}

/// A gateway in front of pairs, of which every prefill worker has the port 9000.
#[track_caller]
fn start(setup: Setup, prefill: &[&Worker], decode: &[&Worker]) -> Gateway {
    launch(setup, prefill, decode, &[])
}

#[track_caller]
fn launch(setup: Setup, prefill: &[&Worker], decode: &[&Worker], flags: &[(&str, &str)]) -> Gateway {
    let mut launch = setup.launch().switch("--pd-disaggregation");
    for worker in prefill {
        launch = launch.flag("--prefill", worker.url()).switch("9000");
    }
    for worker in decode {
        launch = launch.flag("--decode", worker.url());
    }
    for (name, value) in flags {
        launch = launch.flag(name, value);
    }
    let gateway = launch.start_listening();
    gateway.wait_healthy(prefill.len() + decode.len());
    gateway
}

fn body(exchange: &Exchange) -> Value {
    serde_json::from_slice(&exchange.request.body).expect("JSON")
}

/// The next request for any of these workers.
fn next_of<'a>(workers: &[&'a Worker]) -> (Exchange, &'a Worker) {
    wait::some("a request", || {
        workers.iter().find_map(|&worker| worker.exchange_now().map(|exchange| (exchange, worker)))
    })
}

/// How often requests to a worker ended so.
fn outcomes(gateway: &Gateway, worker: &Worker, outcome: &str) -> f64 {
    let labels = [format!("worker=\"{}\"", worker.url()), format!("outcome=\"{outcome}\"")];
    gateway.metrics().sum("smg_worker_cb_outcomes_total", &[&labels[0], &labels[1]])
}

fn both_halves_get_the_same_room(setup: Setup) {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    let mut rooms = Vec::new();
    for text in ["short".to_owned(), "long ".repeat(20_000)] {
        let sent = chat(&text);
        client.send(&sent.bytes());
        let (p, d) = (prefill.exchange(), decode.exchange());
        assert_eq!(p.request.body, d.request.body);
        assert_eq!(p.request.headers.get("x-request-id"), d.request.headers.get("x-request-id"));
        let Value::Object(mut members) = body(&p) else { unreachable!("an object") };
        assert_eq!(members.remove("bootstrap_host"), Some("127.0.0.1".into()));
        assert_eq!(members.remove("bootstrap_port"), Some(9000.into()));
        rooms.push(members.remove("bootstrap_room").and_then(|room| room.as_u64()).expect("a room"));
        assert_eq!(members["messages"][0]["content"], *text);
        assert_eq!(members.len(), 2, "nothing else is added");
        p.answer("{\"prefilled\":1}");
        d.answer("{\"decoded\":1}");
        assert_eq!(client.response().text(), "{\"decoded\":1}");
    }
    assert_ne!(rooms[0], rooms[1]);
    gateway.wait_idle();
    let connects = gateway.metrics().sum("smg_shard_upstream_connects_total", &[]);
    assert_eq!(connects, 2.0, "connections are kept");
    assert_eq!((outcomes(&gateway, &prefill, "success"), outcomes(&gateway, &decode, "success")), (2.0, 2.0));
}

fn a_stream_begins_when_the_decode_worker_does(setup: Setup) {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let (mut p, mut d) = (prefill.exchange(), decode.exchange());
    // The prefill worker has begun its answer and not ended it.
    p.open_stream();
    d.open_stream();
    d.event("1");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    p.event("prefilled");
    p.close_stream();
    d.event("2");
    d.close_stream();
    assert_eq!(client.events(), ["2", "[DONE]"]);
    gateway.wait_idle();
    wait::until("the prefill worker is done", || outcomes(&gateway, &prefill, "success") == 1.0);
}

fn a_prefill_worker_that_dies_is_replaced_with_both_halves_anew(setup: Setup) {
    let (first, second, decode) = (Worker::manual(), Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&first, &second], &[&decode]);
    for is_stream in [false, true] {
        let mut client = gateway.client();
        let request = if is_stream { chat_stream("hello") } else { chat("hello") };
        client.send(&request.bytes());
        let (p, dying) = next_of(&[&first, &second]);
        let mut d = decode.exchange();
        let room = body(&p)["bootstrap_room"].clone();
        if is_stream {
            // The head alone is no answer yet.
            d.open_stream();
        }
        p.reset();
        d.wait_closed();
        let (p, other) = next_of(&[&first, &second]);
        assert_ne!(dying.url(), other.url(), "whoever failed is not asked again");
        let mut d = decode.exchange();
        assert_eq!(body(&p)["bootstrap_room"], body(&d)["bootstrap_room"]);
        assert_ne!(body(&p)["bootstrap_room"], room, "a room is used once");
        p.answer("{}");
        if is_stream {
            d.open_stream();
            d.event("1");
            d.close_stream();
            assert_eq!(client.head().0, 200);
            assert_eq!(client.events(), ["1", "[DONE]"]);
        } else {
            d.answer("{\"decoded\":1}");
            assert_eq!(client.response().text(), "{\"decoded\":1}");
        }
    }
    gateway.wait_idle();
    let failed = outcomes(&gateway, &first, "failure") + outcomes(&gateway, &second, "failure");
    assert_eq!((failed, outcomes(&gateway, &decode, "failure")), (2.0, 0.0));
    assert_eq!(outcomes(&gateway, &decode, "success"), 2.0);
}

fn a_decode_worker_that_dies_is_replaced_with_both_halves_anew(setup: Setup) {
    let (prefill, first, second) = (Worker::manual(), Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&prefill], &[&first, &second]);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let p = prefill.exchange();
    let (d, dying) = next_of(&[&first, &second]);
    d.reset();
    p.wait_closed();
    let p = prefill.exchange();
    let (d, other) = next_of(&[&first, &second]);
    assert_ne!(dying.url(), other.url());
    p.answer("{}");
    d.answer("{\"decoded\":1}");
    assert_eq!(client.response().text(), "{\"decoded\":1}");
    gateway.wait_idle();
    assert_eq!((outcomes(&gateway, dying, "failure"), outcomes(&gateway, &prefill, "failure")), (1.0, 0.0));
}

fn a_client_that_leaves_ends_both_halves(setup: Setup) {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let (p, d) = (prefill.exchange(), decode.exchange());
    drop(client);
    p.wait_closed();
    d.wait_closed();
    gateway.wait_idle();
    assert_eq!(outcomes(&gateway, &prefill, "failure") + outcomes(&gateway, &decode, "failure"), 0.0);
}

fn log_probabilities_of_the_prompt_come_from_both(setup: Setup) {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(setup, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    let said = |list: &str| {
        format!("{{\"text\":\"t\",\"meta_info\":{{\"input_token_logprobs\":{list},\"x\":1e2}}}}")
    };
    client.send(&Request::json("/generate", "{\"text\":\"a\",\"return_logprob\":true}").bytes());
    let (p, d) = (prefill.exchange(), decode.exchange());
    d.answer(&said("[[3]]"));
    p.answer(&said("[[1],[2]]"));
    assert_eq!(client.response().text(), said("[[1],[2],[3]]"));
    client.send(
        &Request::json("/generate", "{\"text\":\"a\",\"stream\":true,\"return_logprob\":true}").bytes(),
    );
    let (mut p, mut d) = (prefill.exchange(), decode.exchange());
    d.open_stream();
    d.event(&said("[]"));
    p.open_stream();
    p.event(&said("[[1],[2]]"));
    p.close_stream();
    d.event(&said("[[3]]"));
    d.close_stream();
    assert_eq!(client.head().0, 200);
    assert_eq!(client.events(), [said("[[1],[2]]"), said("[[1],[2],[3]]"), "[DONE]".to_owned()]);
    gateway.wait_idle();
}

/// What both halves are told of their rooms.
fn rooms_of(client: &mut Client, (prefill, decode): (&Worker, &Worker), request: &Request) -> Value {
    client.send(&request.bytes());
    let (p, d) = (prefill.exchange(), decode.exchange());
    let told = body(&p);
    assert_eq!(told["bootstrap_room"], body(&d)["bootstrap_room"]);
    p.answer("{}");
    d.answer("{}");
    assert_eq!(client.response().status, 200);
    told
}

#[test]
fn a_batch_has_a_room_for_each() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(PLAIN, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    for (path, body, rooms) in [
        (CHAT, "{\"messages\":[],\"n\":3}", Some(3)),
        (CHAT, "{\"n\":1,\"messages\":[]}", None),
        ("/v1/completions", "{\"prompt\":[\"a\",\"b\"]}", Some(2)),
        ("/v1/completions", "{\"prompt\":[1,2,3]}", None),
        ("/v1/completions", "{\"prompt\":[[1,2],[3]]}", Some(2)),
        ("/v1/completions", "{\"prompt\":\"a\"}", None),
        ("/generate", "{\"input_ids\":[[1],[2],[3]]}", Some(3)),
        ("/generate", "{\"input_ids\":[1,2]}", None),
        ("/generate", "{\"text\":[\"a\"]}", Some(1)),
    ] {
        let told = rooms_of(&mut client, (&prefill, &decode), &Request::json(path, body));
        match rooms {
            None => assert!(told["bootstrap_room"].is_u64() && told["bootstrap_host"].is_string(), "{body}"),
            Some(count) => {
                let list = |name: &str| told[name].as_array().expect(body).clone();
                assert_eq!(list("bootstrap_host"), vec![json!("127.0.0.1"); count], "{body}");
                assert_eq!(list("bootstrap_port"), vec![json!(9000); count], "{body}");
                let mut rooms = list("bootstrap_room");
                rooms.dedup();
                assert_eq!(rooms.len(), count, "{body}");
            }
        }
    }
}

#[test]
fn a_batch_that_is_too_large_is_refused() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(PLAIN, &[&prefill], &[&decode]);
    let refused = gateway.ask(&Request::json(CHAT, "{\"messages\":[],\"n\":4097}"));
    assert_eq!((refused.status, refused.error_code().as_deref()), (400, Some("invalid_request")));
    assert!(prefill.received().is_empty() && decode.received().is_empty());
}

#[test]
fn what_the_prefill_worker_refuses_is_refused_at_once() {
    let (prefill, other, decode) = (Worker::manual(), Worker::manual(), Worker::manual());
    let gateway = start(PLAIN, &[&prefill, &other], &[&decode]);
    for (status, expect, code) in
        [("400 Bad Request", 400, "prefill_bad_request"), ("404 Not Found", 404, "prefill_not_found")]
    {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        let (mut p, _) = next_of(&[&prefill, &other]);
        let d = decode.exchange();
        p.send(format!("HTTP/1.1 {status}\r\ncontent-length: 12\r\n\r\nno such luck").as_bytes());
        let answer = client.response();
        assert_eq!((answer.status, answer.error_code().as_deref()), (expect, Some(code)));
        assert!(answer.text().contains("no such luck"), "{}", answer.text());
        d.wait_closed();
    }
    assert_eq!(outcomes(&gateway, &prefill, "failure") + outcomes(&gateway, &other, "failure"), 0.0);
    assert!(gateway.metrics().sum("smg_worker_retries_total", &[]) == 0.0);
}

#[test]
fn what_the_decode_worker_refuses_is_told_as_it_says_it() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(PLAIN, &[&prefill], &[&decode]);
    let mut client = gateway.client();
    for request in [chat("hello"), Request::json("/generate", "{\"text\":\"a\",\"return_logprob\":true}")] {
        client.send(&request.bytes());
        let (p, mut d) = (prefill.exchange(), decode.exchange());
        d.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nwrong");
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (400, "wrong"));
        drop(client);
        p.wait_closed();
        client = gateway.client();
        d.close();
    }
}

#[test]
fn an_error_of_the_last_prefill_worker_is_the_answer() {
    let (prefill, decode) = (Worker::answering(), Worker::manual());
    let flags = [("--retry-max-retries", "1")];
    let gateway = launch(PLAIN, &[&prefill], &[&decode], &flags);
    for (answer, expect) in [
        ("500 Internal Server Error", (500, "prefill_internal_error")),
        ("503 Service Unavailable", (503, "prefill_unavailable")),
        ("504 Gateway Timeout", (500, "prefill_error")),
    ] {
        prefill.answer_with(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        let answer = gateway.ask(&chat("hello"));
        assert_eq!((answer.status, answer.error_code().as_deref()), (expect.0, Some(expect.1)));
    }
    assert_eq!(outcomes(&gateway, &decode, "failure"), 0.0);
    prefill.kill();
    let answer = gateway.ask(&chat("hello"));
    assert_eq!((answer.status, answer.error_code().as_deref()), (502, Some("prefill_server_error")));
}

#[test]
fn who_lets_wait_for_the_first_token_is_the_prefill_worker_until_it_is_done() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let flags = [("--first-token-timeout-secs", "1"), ("--retry-max-retries", "1")];
    let gateway = launch(PLAIN, &[&prefill], &[&decode], &flags);
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let (p, d) = (prefill.exchange(), decode.exchange());
    assert_eq!(client.response().status, 504);
    p.wait_closed();
    d.wait_closed();
    assert_eq!((outcomes(&gateway, &prefill, "failure"), outcomes(&gateway, &decode, "failure")), (1.0, 0.0));
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    prefill.exchange().answer("{}");
    let d = decode.exchange();
    assert_eq!(client.response().status, 504);
    d.wait_closed();
    assert_eq!((outcomes(&gateway, &prefill, "failure"), outcomes(&gateway, &decode, "failure")), (1.0, 1.0));
}

#[test]
fn a_prefill_answer_without_body_is_whole() {
    let (prefill, decode) = (Worker::answering(), Worker::answering());
    prefill.answer_with(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    decode.answer_with(&json_answer("{\"decoded\":1}"));
    let gateway = start(PLAIN, &[&prefill], &[&decode]);
    for _ in 0..5 {
        assert_eq!(gateway.ask(&chat("hello")).text(), "{\"decoded\":1}");
    }
    gateway.wait_idle();
}

/// Some of what `tools pairs` does at length.
#[test]
fn whoever_fails_answers_stay_whole_and_charges_right() {
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_ringway").into(),
        requests: 300,
        threads: 8,
        workers: 3,
        shards: 2,
        prefill_faults: 100,
        decode_faults: 0,
        prefill_time: Duration::from_millis(1),
        seed: 7,
    };
    let none: &[String] = &[];
    let report = plan.run();
    assert_eq!(
        (&*report.wrong, report.prefill.0, report.decode.1),
        (none, report.prefill.1, 0),
        "{report:?}"
    );
    let report = Plan { prefill_faults: 0, decode_faults: 100, ..plan.clone() }.run();
    assert_eq!((&*report.wrong, report.decode.0, report.prefill.1), (none, report.decode.1, 0), "{report:?}");
    let report = Plan { decode_faults: 100, ..plan }.run();
    assert_eq!(&*report.wrong, none, "{report:?}");
    assert!(report.prefill.1 <= report.prefill.0 && report.decode.1 <= report.decode.0, "{report:?}");
}
