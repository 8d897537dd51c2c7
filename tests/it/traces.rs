//! Traces: workers join the client's trace or a new one, and a collector that is away harms nobody.

use testkit::collector::Collector;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

on_every_setup! {
    workers_join_the_trace_of_the_client
    requests_are_exported_as_spans
}

fn traceparent(worker: &Worker) -> Option<String> {
    worker.received().last().expect("a request").headers.get("traceparent").map(str::to_owned)
}

fn workers_join_the_trace_of_the_client(setup: Setup) {
    let worker = Worker::answering();
    let collector = place::refusing();
    let launch = setup.launch().switch("--enable-trace").flag("--otlp-traces-endpoint", collector);
    let gateway = launch.worker(worker.url()).start();
    let mut client = gateway.client();
    let sent = format!("00-{TRACE}-{PARENT}-01");
    let request = chat("hello").header("traceparent", &sent).header("tracestate", "a=b");
    assert_eq!(client.ask(&request).status, 200);
    let joined = traceparent(&worker).expect("it is passed on");
    assert!(joined.starts_with(&format!("00-{TRACE}-")) && joined.ends_with("-01"), "{joined}");
    assert_ne!(joined, sent, "the gateway is a part of it");
    assert_eq!(worker.received()[0].headers.get("tracestate"), Some("a=b"));

    assert_eq!(client.ask(&chat("hello")).status, 200);
    let first = traceparent(&worker).expect("a new trace");
    assert_eq!(client.ask(&chat("hello")).status, 200);
    let second = traceparent(&worker).expect("a new trace");
    assert!(first.len() == 55 && first[3..35] != second[3..35], "{first} {second}");

    // Who does not want to be recorded is passed on as they are, and so is what cannot be read.
    for as_is in [format!("00-{TRACE}-{PARENT}-00"), "nonsense".to_owned()] {
        assert_eq!(client.ask(&chat("hello").header("traceparent", &as_is)).status, 200);
        assert_eq!(traceparent(&worker), Some(as_is));
    }
    wait::until("the log says once that nobody takes them", || {
        gateway.has_logged(&["WARN", "spans cannot be exported"])
    });
    gateway.wait_idle();
}

fn requests_are_exported_as_spans(setup: Setup) {
    let (worker, collector) = (Worker::answering(), Collector::start());
    let launch = setup.launch().switch("--enable-trace").flag("--otlp-traces-endpoint", collector.address());
    let gateway = launch.worker(worker.url()).start();
    let mut client = gateway.client();
    // More than one batch, so that full ones leave and the tick brings the rest.
    for at in 0..600 {
        let request = chat("hello").header("x-request-id", &format!("request-{at}."));
        assert_eq!(client.ask(&request).status, 200);
    }
    assert_eq!(client.ask(&chat("lost").header("x-request-id", "last.")).status, 200);
    wait::until("every request is exported", || collector.has("last."));
    for at in 0..600 {
        assert!(collector.has(&format!("request-{at}.")), "request {at} is missing");
    }
    for text in ["POST /v1/chat/completions", "ringway.worker", &worker.url(), "service.name", "complete"] {
        assert!(collector.has(text), "{text}");
    }
    assert_eq!(gateway.metrics().sum("smg_spans_dropped_total", &[]), 0.0);
    gateway.wait_idle();
}

#[test]
fn without_the_flag_nothing_is_added() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().worker(worker.url()).start();
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    assert_eq!(traceparent(&worker), None);
}
