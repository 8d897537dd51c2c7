//! The metrics page: names, what counts, and gauges that return to zero.

use testkit::client::Request;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    counters_count_and_gauges_return_to_zero
}

fn counters_count_and_gauges_return_to_zero(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let before = gateway.metrics();
    let mut client = gateway.client();
    for _ in 0..5 {
        client.send(&chat("hello").bytes());
        worker.exchange().answer("{}");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(client.ask(&Request::json(CHAT, "[]")).status, 400);
    assert_eq!(client.ask(&Request::get("/nowhere")).status, 404);
    let mut exchange = begin_stream(&mut client, &worker);
    let during = gateway.metrics();
    let of_worker = format!("worker=\"{}\"", worker.url());
    assert_eq!(during.sum("smg_http_requests_active", &[]), 1.0);
    assert_eq!(during.sum("smg_worker_requests_active", &[&of_worker]), 1.0);
    assert_eq!(during.sum("smg_http_connections_active", &[]), 1.0);
    // Each event is read before the next is sent: then there is a gap between any two.
    exchange.event("2");
    assert_eq!(client.event().as_deref(), Some("data: 2"));
    exchange.close_stream();
    assert_eq!(client.events(), ["[DONE]"]);
    drop(client);
    gateway.wait_idle();
    wait::until("no connection is open", || gateway.metrics().sum("smg_http_connections_active", &[]) == 0.0);
    let after = gateway.metrics();
    let counted = |name: &str, labels: &[&str]| after.sum(name, labels) - before.sum(name, labels);
    let chats = [&format!("path=\"{CHAT}\"")[..], "method=\"POST\""];
    assert_eq!(counted("smg_http_requests_total", &chats), 7.0);
    assert_eq!(counted("smg_http_request_duration_seconds_count", &chats), 7.0);
    assert_eq!(counted("smg_http_requests_total", &["path=\"unknown\""]), 1.0);
    assert_eq!(counted("smg_http_responses_total", &["error_code=\"json_parse_error\""]), 1.0);
    assert_eq!(counted("smg_http_responses_total", &["error_code=\"route_not_found\""]), 1.0);
    assert_eq!(counted("smg_router_requests_total", &["endpoint=\"chat\"", "streaming=\"false\""]), 5.0);
    assert_eq!(counted("smg_router_requests_total", &["endpoint=\"chat\"", "streaming=\"true\""]), 1.0);
    assert_eq!(counted("smg_router_upstream_responses_total", &["status_code=\"200\""]), 6.0);
    assert_eq!(counted("smg_worker_selection_total", &["policy=\"round_robin\""]), 6.0);
    assert_eq!(counted("smg_router_ttft_seconds_count", &[]), 6.0);
    assert_eq!(counted("smg_router_tpot_seconds_count", &[]), 2.0);
    assert_eq!(counted("smg_shard_upstream_reuses_total", &[]), 5.0);
    assert_eq!(after.sum("smg_worker_health", &[&of_worker]), 1.0);
}

#[test]
fn the_page_has_the_names_that_dashboards_use() {
    let worker = Worker::answering();
    let gateway = crate::setup::PLAIN.start(&[&worker]);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    gateway.wait_idle();
    let metrics = gateway.metrics();
    for name in [
        "smg_http_requests_total",
        "smg_http_request_duration_seconds_bucket",
        "smg_http_responses_total",
        "smg_http_connections_active",
        "smg_http_requests_active",
        "smg_router_requests_total",
        "smg_router_request_duration_seconds_sum",
        "smg_router_ttft_seconds_count",
        "smg_router_upstream_responses_total",
        "smg_worker_requests_active",
        "smg_worker_health",
        "smg_worker_pool_size",
        "smg_worker_selection_total",
        "smg_worker_health_checks_total",
        "smg_worker_retries_total",
        "smg_worker_retries_exhausted_total",
        "smg_worker_removals_total",
        "smg_prefix_tree_bytes",
        "smg_prefix_hit_rate",
        "smg_shard_connections_total",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.has(name), "{name} is missing from\n{}", metrics.text);
    }
    // Every family says what it is.
    for line in metrics.text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(metrics.text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[test]
fn other_pages_of_the_metrics_port_are_404() {
    let gateway = crate::setup::PLAIN.launch().start_listening();
    let mut client = testkit::client::Client::connect(gateway.prometheus());
    assert_eq!(client.ask(&Request::get("/")).status, 404);
    assert_eq!(client.ask(&Request::get("/metrics")).status, 200);
}
