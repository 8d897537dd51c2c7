//! The block of statistics that is logged (`--log-stats`), in the words that tools look for.

use std::fmt::Write;

use super::Shown;

const RULE: usize = 50;
/// What is shown for what is not known.
const UNKNOWN: f64 = -1.0;

/// The block.
pub(super) fn written(engines: &[Shown]) -> String {
    let mut text = String::from("\n");
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("{}", "=".repeat(RULE)));
    for Shown { worker, tallies, requests } in engines {
        line(format_args!("Server: {}", worker.url));
        line(format_args!("Models:"));
        for (model, _) in &tallies.by_model {
            line(format_args!("  - {model}"));
        }
        match worker.cells.engine_load() {
            Some(load) => line(format_args!(
                " Engine Stats: Running Requests: {:.1}, Queued Requests: {:.1}, GPU Cache Hit Rate: {:.2}",
                f64::from(load.running.unwrap_or(0)),
                f64::from(load.waiting.unwrap_or(0)),
                worker.cells.prefix_cache().map_or(0.0, |cache| cache.hit_rate()),
            )),
            None => line(format_args!(" Engine Stats: No stats available")),
        }
        match requests {
            Some(stats) => line(format_args!(
                " Request Stats: QPS: {:.2}, Avg Latency: {}, Avg ITL: -1, Prefill Requests: {}, Decoding Requests: {}, \
                 Swapped Requests: 0, Finished: {}, Uptime: {:.2} sec",
                stats.qps,
                shown(stats.latency_s),
                stats.in_prefill,
                stats.in_decoding,
                stats.finished,
                stats.uptime.as_secs_f64(),
            )),
            None => line(format_args!(" Request Stats: No stats available")),
        }
        line(format_args!("{}", "-".repeat(RULE)));
    }
    line(format_args!("{}", "=".repeat(RULE)));
    text
}

fn shown(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| format!("{UNKNOWN}"), |seconds| format!("{seconds:.2}"))
}
