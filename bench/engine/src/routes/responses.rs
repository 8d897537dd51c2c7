//! OpenAI's responses, without stored state.

use serde_json::{Value, json};

use super::{is_stream, model, prompt};
use crate::clock;
use crate::exchange::{Exchange, Failure};
use crate::generation::{Generation, Usage};

/// Numbers the events of one stream.
struct Events {
    sent: u64,
}

pub(crate) async fn create(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let messages = match &body["input"] {
        Value::String(text) => json!([{"role": "user", "content": text}]),
        Value::Array(items) => Value::Array(items.iter().map(as_message).collect()),
        _ => return Err(Failure::bad_request("input must be text or a list of items")),
    };
    let prompt = prompt::chat(&messages, &body["instructions"], &body["tools"])?;
    let mut generation = prompt::begin(exchange, body, prompt)?;
    let number = exchange.engine.answer_number();
    let response = json!({
        "id": format!("resp_{}_{number}", exchange.engine.port),
        "object": "response",
        "created_at": clock::unix_s(),
        "status": "in_progress",
        "model": model(exchange, body),
        "output": [],
        "parallel_tool_calls": true,
        "usage": null,
    });
    let item_id = format!("msg_{}_{number}", exchange.engine.port);
    if is_stream(body) {
        return stream(exchange, &mut generation, response, &item_id).await;
    }
    let text = generation.whole().await;
    exchange.json(200, &completed(response, &item_id, &text, generation.usage())).await
}

async fn stream(
    exchange: &mut Exchange<'_>,
    generation: &mut Generation,
    response: Value,
    item_id: &str,
) -> Result<(), Failure> {
    let mut events = Events { sent: 0 };
    let mut word = generation.next().await;
    exchange.open_stream().await?;
    events.send(exchange, "response.created", json!({"response": response})).await?;
    let item = item(item_id, "in_progress", None);
    events.send(exchange, "response.output_item.added", json!({"output_index": 0, "item": item})).await?;
    events.send(exchange, "response.content_part.added", part(item_id, "part", text_part(""))).await?;
    let mut text = String::new();
    while let Some(said) = word {
        text.push_str(said);
        events.send(exchange, "response.output_text.delta", part(item_id, "delta", json!(said))).await?;
        word = generation.next().await;
    }
    events.send(exchange, "response.output_text.done", part(item_id, "text", json!(text))).await?;
    events.send(exchange, "response.content_part.done", part(item_id, "part", text_part(&text))).await?;
    let response = completed(response, item_id, &text, generation.usage());
    let done = json!({"output_index": 0, "item": response["output"][0]});
    events.send(exchange, "response.output_item.done", done).await?;
    events.send(exchange, "response.completed", json!({"response": response})).await?;
    exchange.close_stream().await
}

fn as_message(item: &Value) -> Value {
    match item["role"].as_str() {
        Some(role) => json!({"role": role, "content": item["content"]}),
        None => json!({"role": "tool", "content": item.to_string()}),
    }
}

fn completed(mut response: Value, item_id: &str, text: &str, usage: Usage) -> Value {
    response["status"] = json!("completed");
    response["output"] = json!([item(item_id, "completed", Some(text))]);
    response["usage"] = json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    });
    response
}

fn item(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(text_part).into_iter().collect();
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn part(item_id: &str, field: &str, value: Value) -> Value {
    json!({"item_id": item_id, "output_index": 0, "content_index": 0, field: value})
}

// === impl Events ===

impl Events {
    async fn send(
        &mut self,
        exchange: &mut Exchange<'_>,
        kind: &str,
        mut event: Value,
    ) -> Result<(), Failure> {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.sent);
        self.sent += 1;
        exchange.named_event(kind, &event).await
    }
}
