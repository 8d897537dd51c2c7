//! A run as JSON. Durations are in microseconds unless a name says otherwise.

use serde_json::{Map, Value, json};

use super::latencies;
use super::table::QUANTILES;
use crate::load::Load;
use crate::record::{Record, SLOT};
use crate::target::Target;

/// The whole report.
pub fn value(load: &Load, target: &Target, record: &Record) -> Value {
    let failures: Map<String, Value> =
        record.failures.iter().map(|(failure, count)| (failure.to_string(), json!(count))).collect();
    let slots: Vec<Value> =
        record.slots.iter().map(|slot| json!([slot.requests, slot.answer_tokens, slot.failures])).collect();
    json!({
        "target": target.to_string(),
        "load": load_value(load),
        "elapsed_s": record.elapsed.as_secs_f64(),
        "requests": record.requests,
        "requests_per_s": record.requests_per_s(),
        "answer_tokens": record.answer_tokens,
        "answer_tokens_per_s": record.tokens_per_s(),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "cache_hit_rate": record.cache_hit_rate(),
        "reconnects": record.reconnects,
        "failures": failures,
        "latencies": latency_values(record),
        "slot_ms": SLOT.as_millis(),
        "slots_requests_tokens_failures": slots,
    })
}

fn load_value(load: &Load) -> Value {
    json!({
        "shape": load.shape.to_string(),
        "path": load.api.path(),
        "streams": load.streams || load.shape.always_streams(),
        "connections": load.connections,
        "rate_per_s": load.rate_per_s,
        "seconds": load.duration.map(|duration| duration.as_secs_f64()),
        "requests_max": load.requests_max,
        "cores": load.cores,
        "answer_tokens_max": load.answer_tokens_max,
        "model": load.model,
        "seed": load.seed,
    })
}

fn latency_values(record: &Record) -> Value {
    let mut values = Map::new();
    for latency in latencies(record) {
        let mut quantiles = Map::new();
        for (quantile, name) in QUANTILES {
            quantiles.insert(name.to_owned(), json!(latency.micros.value_at_quantile(quantile)));
        }
        quantiles.insert("mean".to_owned(), json!(latency.micros.mean()));
        quantiles.insert("min".to_owned(), json!(latency.micros.min()));
        quantiles.insert("max".to_owned(), json!(latency.micros.max()));
        quantiles.insert("count".to_owned(), json!(latency.micros.len()));
        values.insert(latency.key.to_owned(), Value::Object(quantiles));
    }
    Value::Object(values)
}
