//! The simulator's own endpoints: faults, counters, and what was received last.

use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::parse;
use crate::exchange::{Exchange, Failure, Request};
use crate::fault::FaultPlan;

/// Longest body that is repeated in `/_sim/last`, in bytes.
const BODY_SHOWN_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn answer(exchange: &mut Exchange<'_>, request: &Request) -> Result<(), Failure> {
    let is_post = request.method == Method::POST;
    match request.path.as_str() {
        "/_sim/faults" if is_post => {
            let plan: FaultPlan = serde_json::from_value(parse(request)?)
                .map_err(|error| Failure::bad_request(format!("not a fault plan: {error}")))?;
            exchange.engine.shared.faults.store(std::sync::Arc::new(plan));
            show_faults(exchange).await
        }
        "/_sim/faults" => show_faults(exchange).await,
        "/_sim/stats" => {
            let stats = exchange.engine.with_scheduler(|scheduler| scheduler.stats());
            let shown = json!({
                "requests": stats.requests,
                "running": stats.running,
                "waiting": stats.waiting,
                "prompt_tokens": stats.prompt_tokens,
                "cached_tokens": stats.cached_tokens,
                "generation_tokens": stats.generation_tokens,
                "aborted": stats.aborted,
                "refused": stats.refused,
            });
            exchange.json(200, &shown).await
        }
        "/_sim/last" => {
            let shown = last(exchange);
            exchange.json(200, &shown).await
        }
        _ => exchange.json(404, &json!({"detail": "Not Found"})).await,
    }
}

/// Says what a body was, for endpoints whose bodies are relayed unread.
pub(crate) async fn received(exchange: &mut Exchange<'_>, request: &Request) -> Result<(), Failure> {
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let answer = json!({
        "text": "",
        "data": [],
        "received_bytes": request.body.len(),
        "received_fnv1a64": fnv1a64(&request.body),
        "content_type": content_type,
    });
    exchange.json(200, &answer).await
}

async fn show_faults(exchange: &mut Exchange<'_>) -> Result<(), Failure> {
    let plan = exchange.engine.shared.faults.load_full();
    exchange.json(200, &json!(*plan)).await
}

fn last(exchange: &Exchange<'_>) -> Value {
    let last = exchange.engine.last.borrow();
    let Some(last) = last.as_ref() else { return Value::Null };
    let shown = std::str::from_utf8(&last.body).ok().filter(|body| body.len() <= BODY_SHOWN_BYTES_MAX);
    json!({
        "path": last.path,
        "headers": header_pairs(&last.headers),
        "body_bytes": last.body.len(),
        "body_fnv1a64": fnv1a64(&last.body),
        "body": shown,
    })
}

/// Headers in their order, repeated ones repeated.
fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// FNV-1a of 64 bits, in 16 hexadecimal digits: short enough to be written anew in any test.
fn fnv1a64(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv1a64() {
        assert_eq!(fnv1a64(b"foobar"), "85944171f73967e8");
    }
}
