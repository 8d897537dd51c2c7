//! Anthropic's messages.

use serde_json::{Value, json};

use super::{is_stream, model, prompt};
use crate::exchange::{Exchange, Failure};
use crate::generation::{Generation, Usage};

pub(crate) async fn messages(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let prompt = prompt::chat(&body["messages"], &body["system"], &body["tools"])?;
    let mut generation = prompt::begin(exchange, body, prompt)?;
    let mut message = json!({
        "id": format!("msg_{}_{}", exchange.engine.port, exchange.engine.answer_number()),
        "type": "message",
        "role": "assistant",
        "model": model(exchange, body),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
    });
    if is_stream(body) {
        return stream(exchange, &mut generation, message).await;
    }
    let text = generation.whole().await;
    message["content"] = json!([{"type": "text", "text": text}]);
    message["stop_reason"] = json!(stop_reason(&generation));
    message["usage"] = usage_json(generation.usage());
    exchange.json(200, &message).await
}

async fn stream(
    exchange: &mut Exchange<'_>,
    generation: &mut Generation,
    mut message: Value,
) -> Result<(), Failure> {
    let mut word = generation.next().await;
    message["usage"] = usage_json(generation.usage());
    exchange.open_stream().await?;
    named(exchange, json!({"type": "message_start", "message": message})).await?;
    let block = json!({"type": "text", "text": ""});
    named(exchange, json!({"type": "content_block_start", "index": 0, "content_block": block})).await?;
    while let Some(text) = word {
        let delta = json!({"type": "text_delta", "text": text});
        named(exchange, json!({"type": "content_block_delta", "index": 0, "delta": delta})).await?;
        word = generation.next().await;
    }
    named(exchange, json!({"type": "content_block_stop", "index": 0})).await?;
    let delta = json!({"stop_reason": stop_reason(generation), "stop_sequence": null});
    let usage = usage_json(generation.usage());
    named(exchange, json!({"type": "message_delta", "delta": delta, "usage": usage})).await?;
    named(exchange, json!({"type": "message_stop"})).await?;
    exchange.close_stream().await
}

/// Sends an event under the name its type gives.
async fn named(exchange: &mut Exchange<'_>, event: Value) -> Result<(), Failure> {
    exchange.named_event(event["type"].as_str().unwrap_or("message"), &event).await
}

fn stop_reason(generation: &Generation) -> &'static str {
    if generation.finish_reason() == "length" { "max_tokens" } else { "end_turn" }
}

/// Here the input tokens are those that were not cached.
fn usage_json(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}
