//! Turns a request's fields into the tokens of its prompt.

use serde_json::Value;

use crate::exchange::{Exchange, Failure};
use crate::generation::{Begun, Generation, Wish};
use crate::token::TOKEN_BYTES;
use crate::token::begun_answer;
use crate::token::digest;
use crate::token::tokenize;

/// Most prompts in a batch.
const PROMPTS_MAX: usize = 1_024;

/// Prompts of one request, and whether it asked with a list.
pub(crate) struct Prompts {
    pub(crate) tokens: Vec<Vec<u32>>,
    pub(crate) is_batch: bool,
}

/// Starts generating an answer to `prompt`, with the limits that `body` sets.
pub(crate) fn begin(exchange: &Exchange<'_>, body: &Value, prompt: Vec<u32>) -> Result<Generation, Failure> {
    begin_from(exchange, body, prompt, None)
}

/// As [`begin`]; `begun` says how the answer begins in the prompt.
pub(crate) fn begin_from(
    exchange: &Exchange<'_>,
    body: &Value,
    prompt: Vec<u32>,
    begun: Option<Begun>,
) -> Result<Generation, Failure> {
    let wish = Wish { prompt, begun, tokens_max: tokens_max(body), slow_factor: exchange.fault.slow_factor };
    Ok(Generation::begin(&exchange.engine, wish)?)
}

/// How the answer begins in a text that another engine may have written the end of.
pub(crate) fn begun_in_text(text: &str) -> Option<Begun> {
    let (begin, words) = begun_answer(text);
    (words > 0).then(|| (digest(&text_tokens(&text[..begin])), words))
}

/// A conversation whose last message is the beginning of the answer: its tokens, and how the answer begins.
pub(crate) fn continued_chat(body: &Value) -> Result<(Vec<u32>, Option<Begun>), Failure> {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let Some((Value::Object(last), earlier)) = messages.split_last() else {
        return Err(Failure::bad_request("there is no message to continue"));
    };
    let text = last.get("content").and_then(Value::as_str).unwrap_or_default();
    if last.get("role").and_then(Value::as_str) != Some("assistant") {
        return Err(Failure::bad_request("only a message of the assistant can be continued"));
    }
    let mut tokens = chat(&Value::Array(earlier.to_vec()), &Value::Null, &body["tools"])?;
    let begun = (digest(&tokens), text.len() / TOKEN_BYTES);
    tokenize(text, &mut tokens);
    Ok((tokens, Some(begun)))
}

/// Computes `prompt` without an answer.
pub(crate) async fn prefill(exchange: &Exchange<'_>, prompt: Vec<u32>) -> Result<usize, Failure> {
    let wish = Wish { prompt, begun: None, tokens_max: Some(0), slow_factor: exchange.fault.slow_factor };
    let mut generation = Generation::begin(&exchange.engine, wish)?;
    generation.next().await;
    Ok(generation.usage().prompt_tokens)
}

/// Renders a conversation so that its next turn begins with all of it, the answer included.
pub(crate) fn chat(messages: &Value, system: &Value, tools: &Value) -> Result<Vec<u32>, Failure> {
    let Some(messages) = messages.as_array().filter(|messages| !messages.is_empty()) else {
        return Err(Failure::bad_request("messages must be a list of at least one message"));
    };
    let mut tokens = Vec::new();
    if !tools.is_null() {
        turn("tools", tools, &mut tokens);
    }
    if !system.is_null() {
        turn("system", system, &mut tokens);
    }
    for message in messages {
        let Some(role) = message["role"].as_str() else {
            return Err(Failure::bad_request("each message needs a role"));
        };
        turn(role, &message["content"], &mut tokens);
        if !message["tool_calls"].is_null() {
            turn("tool_calls", &message["tool_calls"], &mut tokens);
        }
    }
    tokenize("<|assistant|>\n", &mut tokens);
    Ok(tokens)
}

/// The prompts of a field that may be a text, a list of texts, a list of tokens or a list of those.
pub(crate) fn prompts(value: &Value) -> Result<Prompts, Failure> {
    let malformed = || Failure::bad_request("the prompt must be text, tokens, or a list of either");
    if let Some(text) = value.as_str() {
        return Ok(Prompts { tokens: vec![text_tokens(text)], is_batch: false });
    }
    let items = value.as_array().ok_or_else(malformed)?;
    if items.is_empty() || items.first().is_some_and(Value::is_number) {
        return Ok(Prompts { tokens: vec![ids(items).ok_or_else(malformed)?], is_batch: false });
    }
    if items.len() > PROMPTS_MAX {
        return Err(Failure::bad_request(format!("a batch has at most {PROMPTS_MAX} prompts")));
    }
    let each = |item: &Value| match item {
        Value::String(text) => Some(text_tokens(text)),
        Value::Array(items) => ids(items),
        other => Some(text_tokens(&other.to_string())),
    };
    let tokens = items.iter().map(each).collect::<Option<Vec<_>>>().ok_or_else(malformed)?;
    Ok(Prompts { tokens, is_batch: true })
}

pub(crate) fn text_tokens(text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    tokenize(text, &mut tokens);
    tokens
}

pub(crate) fn ids(items: &[Value]) -> Option<Vec<u32>> {
    items.iter().map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

fn turn(role: &str, content: &Value, tokens: &mut Vec<u32>) {
    tokenize(&format!("<|{role}|>\n"), tokens);
    match content {
        Value::Null => {}
        Value::String(text) => tokenize(text, tokens),
        Value::Array(parts) => {
            for part in parts {
                match part["text"].as_str() {
                    Some(text) => tokenize(text, tokens),
                    None => tokenize(&part.to_string(), tokens),
                }
            }
        }
        other => tokenize(&other.to_string(), tokens),
    }
    tokenize("<|end|>\n", tokens);
}

/// The answer's limit under any of its names.
fn tokens_max(body: &Value) -> Option<usize> {
    let names = ["max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens"];
    let named = |object: &Value| names.iter().find_map(|name| object[*name].as_u64());
    named(body).or_else(|| named(&body["sampling_params"])).map(|max| max as usize)
}
