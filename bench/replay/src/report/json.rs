//! The report as JSON, for other tools.

use serde_json::Value;
use serde_json::json;

use crate::measure::Outcome;
use crate::report::Report;
use crate::report::Row;

/// Everything the table says, with the TTFT at every per cent.
pub fn value(report: &Report) -> Value {
    json!({
        "source": report.source,
        "plan": report.plan,
        "prompt_tokens": report.prompt_tokens,
        "distinct_tokens": report.distinct_tokens,
        "reusable_share": report.reusable_share,
        "policies": report.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Value {
    let Row { name, outcome } = row;
    let quantile = |micros: &[u64], quantile| Outcome::quantile(micros, quantile);
    let engines: Vec<Value> = outcome
        .engines
        .iter()
        .map(|engine| {
            json!({
                "requests": engine.requests,
                "prompt_tokens": engine.prompt_tokens,
                "cached_tokens": engine.cached_tokens,
                "busy_us": engine.busy_us,
            })
        })
        .collect();
    let percents: Vec<u64> =
        (0..=100).map(|percent| quantile(&outcome.ttft_us, f64::from(percent) / 100.0)).collect();
    json!({
        "policy": name,
        "requests": outcome.requests,
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "hit_rate": outcome.hit_rate(),
        "ttft_us": {
            "mean": Outcome::mean(&outcome.ttft_us),
            "p50": quantile(&outcome.ttft_us, 0.5),
            "p90": quantile(&outcome.ttft_us, 0.9),
            "p99": quantile(&outcome.ttft_us, 0.99),
            "percents": percents,
        },
        "latency_us": {
            "mean": Outcome::mean(&outcome.latency_us),
            "p50": quantile(&outcome.latency_us, 0.5),
            "p90": quantile(&outcome.latency_us, 0.9),
            "p99": quantile(&outcome.latency_us, 0.99),
        },
        "requests_per_s": outcome.requests_per_s(),
        "makespan_us": outcome.makespan_us,
        "in_flight_imbalance": outcome.in_flight_imbalance,
        "in_flight_peak": outcome.in_flight_peak,
        "request_imbalance": outcome.request_imbalance(),
        "computed_imbalance": outcome.computed_imbalance(),
        "engines": engines,
    })
}
