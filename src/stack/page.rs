//! The families of the metrics page that dashboards of the production-stack read. Engines that are gone are gone from
//! them too.

use std::sync::PoisonError;

use fleet::cell::Counter;
use fleet::stats::UpstreamFailure;
use fleet::tally::LATENCY_BOUNDS_US;
use fleet::tally::Latency;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use super::Shown;
use super::Statistics;
use super::host;
use crate::metrics::Family;

/// What is shown for what is not known.
const UNKNOWN: f64 = -1.0;

/// The page.
pub(super) fn written(statistics: &Statistics) -> String {
    let engines = statistics.engines();
    let mut families = gauges(&engines);
    families.extend(counters(&engines));
    families.push(incoming(statistics));
    families.extend(machine(statistics));
    families.retain(|family| !family.get_metric().is_empty());
    // Only a writer that fails can make this fail, and a string does not.
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

fn gauges(engines: &[Shown]) -> Vec<MetricFamily> {
    let gauge = |name: &str, help: &str, of: &dyn Fn(&Shown) -> Option<f64>| {
        let mut family = Family::gauge(name, help);
        for engine in engines {
            if let Some(value) = of(engine) {
                family.add(&[("server", &*engine.worker.url)], value);
            }
        }
        family.build()
    };
    let load = |engine: &Shown| engine.worker.cells.engine_load();
    let counts = |engine: &Shown| engine.tallies.counts();
    let stats = |engine: &Shown| engine.requests;
    let cache = |engine: &Shown| engine.worker.cells.prefix_cache();
    vec![
        gauge("vllm:num_requests_running", "Requests at the engine, as relayed.", &|engine| {
            Some((counts(engine).in_prefill() + counts(engine).in_decoding()) as f64)
        }),
        gauge("vllm:num_requests_waiting", "Requests that wait at the engine, as it says.", &|engine| {
            load(engine)?.waiting.map(f64::from)
        }),
        gauge("vllm:current_qps", "Requests a second in the window.", &|engine| {
            Some(stats(engine).map_or(0.0, |stats| stats.qps))
        }),
        gauge("vllm:avg_decoding_length", "Not measured.", &|_| Some(UNKNOWN)),
        gauge("vllm:avg_ttft", "Mean seconds to the first byte in the window.", &|engine| {
            Some(stats(engine).and_then(|stats| stats.ttft_s).unwrap_or(UNKNOWN))
        }),
        gauge("vllm:avg_latency", "Mean seconds to the last byte in the window.", &|engine| {
            Some(stats(engine).and_then(|stats| stats.latency_s).unwrap_or(UNKNOWN))
        }),
        gauge("vllm:avg_itl", "Not measured.", &|_| Some(UNKNOWN)),
        gauge("vllm:num_requests_swapped", "Always 0.", &|_| Some(0.0)),
        gauge("vllm:num_prefill_requests", "Requests that wait for their answer to begin.", &|engine| {
            Some(counts(engine).in_prefill() as f64)
        }),
        gauge("vllm:num_decoding_requests", "Requests whose answer comes.", &|engine| {
            Some(counts(engine).in_decoding() as f64)
        }),
        gauge("vllm:healthy_pods_total", "1 for an engine that gets requests.", &|_| Some(1.0)),
        gauge("vllm:gpu_prefix_cache_hit_rate", "Share of prompts found in the cache.", &|engine| {
            cache(engine).map(|cache| cache.hit_rate())
        }),
        gauge("vllm:gpu_prefix_cache_hits_total", "Tokens found in the cache.", &|engine| {
            cache(engine).map(|cache| cache.hits)
        }),
        gauge("vllm:gpu_prefix_cache_queries_total", "Tokens looked for in the cache.", &|engine| {
            cache(engine).map(|cache| cache.queries)
        }),
    ]
}

fn counters(engines: &[Shown]) -> Vec<MetricFamily> {
    let mut prompt =
        Family::counter("vllm:input_tokens_total", "Tokens of prompts, as answers say that are no streams.");
    let mut answer =
        Family::counter("vllm:output_tokens_total", "Tokens of answers, as these say that are no streams.");
    let mut errors = Family::counter("vllm:request_errors_total", "Exchanges that failed, by kind.");
    let mut latency =
        Family::histogram("vllm:request_latency_seconds", "Choice of the engine to the last byte.");
    for Shown { worker, tallies, .. } in engines {
        for (model, tally) in &tallies.by_model {
            let [server, model] = [("server", &*worker.url), ("model", &**model)];
            let (prompt_tokens, answer_tokens) = tally.tokens();
            prompt.add(&[server, model], prompt_tokens as f64);
            answer.add(&[server, model], answer_tokens as f64);
            for failure in UpstreamFailure::ALL {
                let count = tally.failures(failure);
                if count > 0 {
                    errors.add(&[server, model, ("error_type", error_type(failure))], count as f64);
                }
            }
            add(&mut latency, &[server, model, ("status", "success")], tally.good());
            add(&mut latency, &[server, model, ("status", "error")], tally.bad());
        }
    }
    vec![prompt.build(), answer.build(), errors.build(), latency.build()]
}

fn add(family: &mut Family, labels: &[(&str, &str)], latency: &Latency) {
    family.add_counts(labels, &LATENCY_BOUNDS_US, &latency.counts(), latency.sum_us());
}

/// Requests by model, also of engines that are gone.
fn incoming(statistics: &Statistics) -> MetricFamily {
    let mut family = Family::counter("vllm:num_incoming_requests_total", "Requests by model.");
    let models = statistics.sources.control.models.load();
    let mut last = None;
    for shown in models.iter() {
        // Roles of a model count together.
        if last.replace(&*shown.name) == Some(&*shown.name) {
            continue;
        }
        let begun: u64 = shown.stats.shards().iter().map(|part| Counter::get(&part.begun_total)).sum();
        family.add(&[("model", &*shown.name)], begun as f64);
    }
    family.build()
}

fn machine(statistics: &Statistics) -> Vec<MetricFamily> {
    let cpu = statistics.host.lock().unwrap_or_else(PoisonError::into_inner).cpu_percent();
    let gauge = |name: &str, help: &str, value: f64| Family::gauge(name, help).with(&[], value).build();
    vec![
        gauge("router_cpu_usage_percent", "Taken time of the machine's CPUs since the last scrape.", cpu),
        gauge("router_memory_usage_percent", "Taken memory of the machine.", host::memory_percent()),
        gauge("router_disk_usage_percent", "Taken part of the disk.", host::disk_percent()),
    ]
}

/// What the original calls a failure: the exception it would have been.
fn error_type(failure: UpstreamFailure) -> &'static str {
    match failure {
        UpstreamFailure::Connect | UpstreamFailure::Local => "ClientConnectorError",
        UpstreamFailure::ConnectTimeout => "ConnectionTimeoutError",
        UpstreamFailure::Send => "ClientOSError",
        UpstreamFailure::Head => "ServerDisconnectedError",
        UpstreamFailure::Protocol => "ClientResponseError",
        UpstreamFailure::Timeout | UpstreamFailure::Stall => "TimeoutError",
        UpstreamFailure::Body => "ClientPayloadError",
        UpstreamFailure::Tls => "ClientConnectorSSLError",
    }
}
