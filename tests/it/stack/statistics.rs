//! The metrics page under the names that dashboards know, and the block in the log.

use testkit::client::Request;
use testkit::metrics::Metrics;
use testkit::wait;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use super::chat;
use super::launch;
use super::wait_idle;
use crate::setup::CHAT;

#[test]
fn requests_are_counted_by_engine_and_model() {
    let worker = Worker::manual();
    let gateway = launch(&[(&worker, "m")], "roundrobin").start_listening();
    let server = format!("server=\"{}\"", worker.url());
    let scrape = || Metrics::scrape(gateway.addr());
    let mut client = gateway.client();
    client.send(&Request::json(CHAT, "{\"model\":\"m\",\"stream\":true}").bytes());
    let mut exchange = worker.exchange();
    let page = scrape();
    let value = |page: &Metrics, name: &str| page.sum(name, &[&server]);
    assert_eq!(
        (value(&page, "vllm:num_prefill_requests"), value(&page, "vllm:num_decoding_requests")),
        (1.0, 0.0)
    );
    assert_eq!(value(&page, "vllm:num_requests_running"), 1.0);
    exchange.open_stream();
    exchange.event("1");
    assert_eq!(client.head().0, 200);
    assert!(client.event().is_some());
    let page = scrape();
    assert_eq!(
        (value(&page, "vllm:num_prefill_requests"), value(&page, "vllm:num_decoding_requests")),
        (0.0, 1.0)
    );
    exchange.close_stream();
    client.events();
    worker.answer_with(&json_answer(
        "{\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}",
    ));
    assert_eq!(gateway.ask(&chat("m")).status, 200);
    assert_eq!(gateway.ask(&chat("zz")).status, 404, "an unknown model makes no series");
    let page = wait_idle(&gateway);
    let labels = [server.as_str(), "model=\"m\""];
    assert_eq!(page.sum("vllm:input_tokens_total", &labels), 11.0);
    assert_eq!(page.sum("vllm:output_tokens_total", &labels), 7.0);
    assert_eq!(
        page.sum("vllm:request_latency_seconds_count", &[&server, "model=\"m\"", "status=\"success\""]),
        2.0
    );
    assert_eq!(page.sum("vllm:num_incoming_requests_total", &["model=\"m\""]), 2.0);
    worker.answer_with(b"HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\nno");
    assert_eq!(gateway.ask(&chat("m")).status, 422);
    let errors = ["model=\"m\"", "status=\"error\""];
    assert_eq!(wait_idle(&gateway).sum("vllm:request_latency_seconds_count", &errors), 1.0);
    assert!(!page.text.contains("zz"));
    assert!(value(&page, "vllm:current_qps") > 0.0);
    assert_eq!(value(&page, "vllm:healthy_pods_total"), 1.0);
    for name in [
        "vllm:avg_decoding_length",
        "vllm:avg_latency",
        "vllm:avg_itl",
        "vllm:num_requests_swapped",
        "router_cpu_usage_percent",
        "router_memory_usage_percent",
        "router_disk_usage_percent",
        "smg_http_requests_total",
        "process_cpu_seconds_total",
    ] {
        assert!(page.has(name), "{name}");
    }
    // Well-formed: every family is there once, and every sample is a number.
    let mut families = std::collections::HashSet::new();
    for line in page.text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family.to_owned()), "{family} is there twice"),
            None if line.starts_with('#') => {}
            None => {
                assert!(line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok()), "{line}")
            }
        }
    }
}

#[test]
fn engines_are_asked_under_their_old_and_their_new_names() {
    let (old, new) = (Worker::answering(), Worker::answering());
    old.set_metrics(
        "vllm:num_requests_running{model_name=\"m\"} 2\nvllm:num_requests_waiting 1\nvllm:gpu_cache_usage_perc 0.5\n\
         vllm:gpu_prefix_cache_hit_rate 0.3\n",
    );
    new.set_metrics(
        "vllm:num_requests_running{engine=\"0\"} 4.0\nvllm:num_requests_waiting{engine=\"0\"} 3.0\n\
         vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:prefix_cache_hits_total{engine=\"0\"} 30\n\
         vllm:prefix_cache_queries_total{engine=\"0\"} 40\n",
    );
    let gateway = launch(&[(&old, "m"), (&new, "m")], "roundrobin")
        .flag("--engine-stats-interval", 1)
        .switch("--log-stats")
        .flag("--log-stats-interval", 1)
        .start_listening();
    let of = |worker: &Worker, name: &str| {
        Metrics::scrape(gateway.addr()).sum(name, &[&format!("server=\"{}\"", worker.url())])
    };
    wait::until("both were asked", || {
        of(&old, "vllm:num_requests_waiting") + of(&new, "vllm:num_requests_waiting") == 4.0
    });
    assert_eq!(
        (of(&old, "vllm:gpu_prefix_cache_hit_rate"), of(&new, "vllm:gpu_prefix_cache_hit_rate")),
        (0.3, 0.75)
    );
    assert_eq!(of(&new, "vllm:gpu_prefix_cache_hits_total"), 30.0);
    assert_eq!(of(&new, "vllm:gpu_prefix_cache_queries_total"), 40.0);
    assert_eq!(gateway.ask(&chat("m")).status, 200);
    let told = |engine: &str| {
        let lines = gateway.stdout();
        let begins = |line: &String| *line == "=".repeat(50);
        let block = lines.iter().rposition(begins).map(|end| {
            let begin = lines[..end].iter().rposition(begins).unwrap_or(end);
            lines[begin..=end].to_vec()
        });
        block.is_some_and(|block| block.iter().any(|line| line == engine))
    };
    let old_line = " Engine Stats: Running Requests: 2.0, Queued Requests: 1.0, GPU Cache Hit Rate: 0.30";
    let new_line = " Engine Stats: Running Requests: 4.0, Queued Requests: 3.0, GPU Cache Hit Rate: 0.75";
    wait::until("a block tells of both", || told(old_line) && told(new_line));
    assert!(told(&format!("Server: {}", old.url())) && told("Models:") && told("  - m"));
    assert!(told(&"-".repeat(50)));
    wait::until("a block tells of the request", || {
        gateway.has_logged(&[
            " Request Stats: QPS: 0.02, Avg Latency: ",
            "Avg ITL: -1, Prefill Requests: 0, ",
            "Finished: 1, Uptime: ",
        ])
    });
}
