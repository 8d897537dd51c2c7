//! What goes to engines and comes back: bodies byte for byte, heads as the original passes them, and aborts.

use testkit::client::Request;
use testkit::wait;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use super::chat;
use super::launch;
use super::wait_idle;
use crate::setup::CHAT;

#[test]
fn bodies_are_passed_on_byte_for_byte() {
    let worker = Worker::answering();
    let gateway = launch(&[(&worker, "m")], "roundrobin").flag("--static-aliases", "gpt:m").start_listening();
    let filled = |bytes: usize| format!("{{\"model\":\"m\",\"prompt\":\"{}\"}}", "x".repeat(bytes));
    for body in [
        filled(1024),
        filled(1 << 20),
        " {\r\n\t\"model\" :\"m\" , \"messages\": [ ]\n}\n ".to_owned(),
        "{\"model\":\"zz\",\"a\":1,\"a\":2,\"model\":\"m\"}".to_owned(),
        "{\"model\":\"\\u006d\",\"text\":\"\\ud83d\\ude00 \\/ \\u00e9\"}".to_owned(),
        "{\"model\":\"m\",\"n\":1.0e0,\"big\":12345678901234567890,\"x\":-0}".to_owned(),
    ] {
        assert_eq!(gateway.ask(&Request::json("/v1/completions", body.as_str())).status, 200, "{body:.80}");
        let received = worker.received().pop().expect("a request");
        assert_eq!(String::from_utf8_lossy(&received.body), body);
    }
}

#[test]
fn another_name_is_replaced_by_the_models_and_nothing_else() {
    let worker = Worker::answering();
    let gateway = launch(&[(&worker, "org/m")], "roundrobin")
        .flag("--static-aliases", "gpt:org/m,\u{e9}:org/m,dead:nobody")
        .start_listening();
    for (body, expect) in [
        ("{\"model\":\"gpt\",\"a\": [1, 2]}", "{\"model\":\"org/m\",\"a\": [1, 2]}"),
        ("{ \"x\":\"gpt\", \"model\" : \"gpt\" }", "{ \"x\":\"gpt\", \"model\" : \"org/m\" }"),
        (
            "{\"model\":\"\\u00e9\",\"e\":{\"model\":\"gpt\"}}",
            "{\"model\":\"org/m\",\"e\":{\"model\":\"gpt\"}}",
        ),
        ("{\"model\":\"zz\",\"model\":\"gpt\"}", "{\"model\":\"zz\",\"model\":\"org/m\"}"),
        ("{\"model\":\"org/m\"}", "{\"model\":\"org/m\"}"),
    ] {
        assert_eq!(gateway.ask(&Request::json(CHAT, body)).status, 200, "{body}");
        let received = worker.received().pop().expect("a request");
        assert_eq!(String::from_utf8_lossy(&received.body), expect);
        assert_eq!(received.headers.get("content-length"), Some(&*expect.len().to_string()));
    }
    let answer = gateway.ask(&chat("dead"));
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("Model 'nobody' not found"), "{}", answer.text());
    assert!(!gateway.get("/v1/models").text().contains("gpt"), "aliases are not listed");
}

#[test]
fn heads_are_passed_on_without_what_belongs_to_a_connection() {
    let worker = Worker::answering();
    let gateway = launch(&[(&worker, "m")], "roundrobin").start_listening();
    worker.answer_with(
        b"HTTP/1.1 418 I am\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-engine: e\r\nkeep-alive: timeout=5\r\n\
          content-type: text/x-tea\r\ncontent-length: 3\r\n\r\ntea",
    );
    let request = chat("m")
        .header("authorization", "Bearer k")
        .header("x-other", "o")
        .header("te", "trailers")
        .header("proxy-connection", "keep-alive")
        .header("connection", "x-hop")
        .header("x-hop", "h")
        .header("x-request-id", "my-id");
    let answer = gateway.ask(&request);
    let received = worker.received().pop().expect("a request");
    let sent = |name: &str| received.headers.get(name).map(str::to_owned);
    assert_eq!(sent("authorization").as_deref(), Some("Bearer k"));
    assert_eq!((sent("x-other").as_deref(), sent("x-request-id").as_deref()), (Some("o"), Some("my-id")));
    assert_eq!(sent("host"), Some(worker.addr().to_string()));
    for name in ["te", "proxy-connection", "x-hop", "keep-alive", "transfer-encoding", "upgrade"] {
        assert_eq!(sent(name), None, "{name}");
    }
    assert_eq!((answer.status, answer.text().as_str()), (418, "tea"), "any status is the engine's answer");
    assert_eq!(answer.headers.get("x-request-id"), Some("my-id"));
    assert_eq!(answer.headers.all("date").len(), 1);
    assert_eq!((answer.headers.get("x-engine"), answer.headers.get("keep-alive")), (Some("e"), None));
    assert_eq!(answer.headers.get("content-type"), Some("text/x-tea"));
    // Without an id of the client's there is one of ours, on both sides the same.
    worker.answer_with(&json_answer("{}"));
    let answer = gateway.ask(&chat("m"));
    let received = worker.received().pop().expect("a request");
    let id = answer.headers.get("x-request-id").expect("an id");
    assert_eq!((received.headers.get("x-request-id"), id.len()), (Some(id), 36));
}

#[test]
fn any_status_passes_through() {
    let worker = Worker::answering();
    let other = Worker::answering();
    let gateway = launch(&[(&worker, "m"), (&other, "m")], "roundrobin")
        .flag("--max-instance-failover-reroute-attempts", 3)
        .start_listening();
    for worker in [&worker, &other] {
        worker.answer_with(
            b"HTTP/1.1 503 No\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"busy\":true",
        );
    }
    for _ in 0..6 {
        let answer = gateway.ask(&chat("m"));
        assert_eq!((answer.status, answer.text().as_str()), (503, "{\"busy\":true"));
    }
    assert_eq!(
        (worker.received().len(), other.received().len()),
        (3, 3),
        "nobody was asked in another's place"
    );
}

#[test]
fn a_stream_that_its_engine_leaves_is_cut() {
    let worker = Worker::manual();
    let gateway = launch(&[(&worker, "m")], "roundrobin").start_listening();
    let mut client = gateway.client();
    client.send(&chat("m").bytes());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    exchange.reset();
    assert!(client.try_rest().is_err(), "the body has no end");
    wait_idle(&gateway);
}

#[test]
fn a_client_that_leaves_ends_the_engines_work_in_every_phase() {
    let worker = Worker::manual();
    let gateway = launch(&[(&worker, "m")], "roundrobin").start_listening();
    let stream = Request::json(CHAT, "{\"model\":\"m\",\"stream\":true}");
    // No stream; a stream before its first byte; in its middle.
    for (request, events) in [(chat("m"), 0), (stream.clone(), 0), (stream, 2)] {
        let mut client = gateway.client();
        client.send(&request.bytes());
        let mut exchange = worker.exchange();
        if events > 0 {
            exchange.open_stream();
            (0..events).for_each(|event| exchange.event(&event.to_string()));
            client.head();
            assert_eq!(client.event().as_deref(), Some("data: 0"));
        }
        drop(client);
        exchange.wait_closed();
    }
    let metrics = wait_idle(&gateway);
    assert_eq!(
        metrics.sum("vllm:num_prefill_requests", &[]) + metrics.sum("vllm:num_decoding_requests", &[]),
        0.0
    );
    wait::until("each was counted", || {
        testkit::metrics::Metrics::scrape(gateway.addr())
            .sum("vllm:num_incoming_requests_total", &["model=\"m\""])
            == 3.0
    });
}
