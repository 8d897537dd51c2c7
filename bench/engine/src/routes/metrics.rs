//! The metrics page, under the names of each dialect.

use std::fmt::Write;

use crate::engine::Engine;

/// Kinds of metric families in the text format.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// The page, in the Prometheus text format.
pub(crate) fn text(engine: &Engine) -> String {
    let (stats, usage) = engine.with_scheduler(|scheduler| (scheduler.stats(), scheduler.cache_usage()));
    let finished = stats.requests - stats.running - stats.waiting - stats.aborted;
    let hit_rate = stats.cached_tokens as f64 / (stats.prompt_tokens as f64).max(1.0);
    let mut page = String::with_capacity(4_096);
    let model = &engine.config.model_id;
    if engine.config.dialect.speaks_vllm() {
        let labels = format!("engine=\"0\",model_name=\"{model}\"");
        let mut family =
            |name: &str, kind, value: f64| family(&mut page, "vllm", (name, &labels), kind, value);
        family("num_requests_running", Kind::Gauge, stats.running as f64);
        family("num_requests_waiting", Kind::Gauge, stats.waiting as f64);
        family("kv_cache_usage_perc", Kind::Gauge, usage);
        family("prefix_cache_queries_total", Kind::Counter, stats.prompt_tokens as f64);
        family("prefix_cache_hits_total", Kind::Counter, stats.cached_tokens as f64);
        family("prompt_tokens_total", Kind::Counter, stats.prompt_tokens as f64);
        family("generation_tokens_total", Kind::Counter, stats.generation_tokens as f64);
        family("request_success_total", Kind::Counter, finished as f64);
    }
    if engine.config.dialect.speaks_sglang() {
        let labels = format!("model_name=\"{model}\"");
        let mut family =
            |name: &str, kind, value: f64| family(&mut page, "sglang", (name, &labels), kind, value);
        family("num_running_reqs", Kind::Gauge, stats.running as f64);
        family("num_queue_reqs", Kind::Gauge, stats.waiting as f64);
        family("token_usage", Kind::Gauge, usage);
        family("cache_hit_rate", Kind::Gauge, hit_rate);
        family("prompt_tokens_total", Kind::Counter, stats.prompt_tokens as f64);
        family("generation_tokens_total", Kind::Counter, stats.generation_tokens as f64);
        family("cached_tokens_total", Kind::Counter, stats.cached_tokens as f64);
        family("num_requests_total", Kind::Counter, finished as f64);
        family("num_aborted_requests_total", Kind::Counter, stats.aborted as f64);
    }
    // Writing to a string does not fail.
    let _ = writeln!(page, "# TYPE process_start_time_seconds gauge");
    let _ = writeln!(page, "process_start_time_seconds {}.0", engine.started_unix_s);
    page
}

fn family(page: &mut String, engine: &str, (name, labels): (&str, &str), kind: Kind, value: f64) {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    // Writing to a string does not fail.
    let _ = writeln!(page, "# HELP {engine}:{name} Simulated.");
    let _ = writeln!(page, "# TYPE {engine}:{name} {kind}");
    let _ = writeln!(page, "{engine}:{name}{{{labels}}} {value:?}");
}
