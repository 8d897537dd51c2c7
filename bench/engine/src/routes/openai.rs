//! OpenAI's chat and text completions.

use serde_json::{Value, json};

use super::{is_stream, model, prompt};
use crate::clock;
use crate::exchange::{Exchange, Failure};
use crate::generation::{Generation, Usage};

/// What all chunks and the whole answer of one request have in common.
struct Answer {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    shows_usage: bool,
}

pub(crate) async fn chat(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let (prompt, begun) = match body["continue_final_message"].as_bool() {
        Some(true) => prompt::continued_chat(body)?,
        Some(false) | None => (prompt::chat(&body["messages"], &Value::Null, &body["tools"])?, None),
    };
    let mut generation = prompt::begin_from(exchange, body, prompt, begun)?;
    if is_stream(body) {
        let answer = Answer::new(exchange, body, "chatcmpl", "chat.completion.chunk");
        return stream_chat(exchange, &answer, &mut generation).await;
    }
    let answer = Answer::new(exchange, body, "chatcmpl", "chat.completion");
    let content = generation.whole().await;
    let choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": content, "refusal": null},
        "logprobs": null,
        "finish_reason": generation.finish_reason(),
    });
    let mut whole = answer.with_choices(json!([choice]));
    whole["usage"] = usage_json(generation.usage());
    add_transfer(exchange, body, &mut whole);
    exchange.json(200, &whole).await
}

pub(crate) async fn completions(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let prompts = prompt::prompts(&body["prompt"])?;
    let mut generations = Vec::with_capacity(prompts.tokens.len());
    for tokens in prompts.tokens {
        let begun = body["prompt"].as_str().and_then(prompt::begun_in_text);
        generations.push(prompt::begin_from(exchange, body, tokens, begun)?);
    }
    let answer = Answer::new(exchange, body, "cmpl", "text_completion");
    if is_stream(body) {
        return stream_completions(exchange, &answer, &mut generations).await;
    }
    let (mut choices, mut usage) = (Vec::new(), Usage::default());
    for (index, generation) in generations.iter_mut().enumerate() {
        let text = generation.whole().await;
        usage += generation.usage();
        choices.push(completion_choice(index, &text, Some(generation.finish_reason())));
    }
    let mut whole = answer.with_choices(Value::Array(choices));
    whole["usage"] = usage_json(usage);
    add_transfer(exchange, body, &mut whole);
    exchange.json(200, &whole).await
}

async fn stream_chat(
    exchange: &mut Exchange<'_>,
    answer: &Answer,
    generation: &mut Generation,
) -> Result<(), Failure> {
    let mut word = generation.next().await;
    exchange.open_stream().await?;
    exchange.event(&answer.chat_chunk(json!({"role": "assistant", "content": ""}), None)).await?;
    while let Some(content) = word {
        exchange.event(&answer.chat_chunk(json!({"content": content}), None)).await?;
        word = generation.next().await;
    }
    exchange.event(&answer.chat_chunk(json!({}), Some(generation.finish_reason()))).await?;
    if answer.shows_usage {
        exchange.event(&answer.usage_chunk(generation.usage())).await?;
    }
    exchange.close_stream_done().await
}

async fn stream_completions(
    exchange: &mut Exchange<'_>,
    answer: &Answer,
    generations: &mut [Generation],
) -> Result<(), Failure> {
    let mut usage = Usage::default();
    let mut is_open = false;
    for (index, generation) in generations.iter_mut().enumerate() {
        loop {
            let word = generation.next().await;
            if !is_open {
                exchange.open_stream().await?;
                is_open = true;
            }
            let finish_reason = word.is_none().then(|| generation.finish_reason());
            let choice = completion_choice(index, word.unwrap_or(""), finish_reason);
            exchange.event(&answer.chunk(json!([choice]))).await?;
            if word.is_none() {
                break;
            }
        }
        usage += generation.usage();
    }
    if answer.shows_usage {
        exchange.event(&answer.usage_chunk(usage)).await?;
    }
    exchange.close_stream_done().await
}

fn completion_choice(index: usize, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

/// A whole answer's `usage`.
fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

/// A prefill engine asked to keep its blocks for a decode engine says where they are.
fn add_transfer(exchange: &Exchange<'_>, body: &Value, whole: &mut Value) {
    if body["kv_transfer_params"]["do_remote_decode"].as_bool() == Some(true) {
        let engine = &exchange.engine;
        whole["kv_transfer_params"] = json!({
            "do_remote_prefill": true,
            "do_remote_decode": false,
            "remote_engine_id": format!("sim-{}", engine.port),
            "remote_block_ids": [engine.answer_number()],
            "remote_host": engine.config.host.to_string(),
            "remote_port": engine.port,
        });
    }
}

// === impl Answer ===

impl Answer {
    fn new(exchange: &Exchange<'_>, body: &Value, prefix: &str, object: &'static str) -> Answer {
        let engine = &exchange.engine;
        Answer {
            id: format!("{prefix}-{}-{}", engine.port, engine.answer_number()),
            object,
            created: clock::unix_s(),
            model: model(exchange, body),
            shows_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
        }
    }

    fn with_choices(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// One chunk of a stream; where the last will have a usage, the others have an empty one.
    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.with_choices(choices);
        if self.shows_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn chat_chunk(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        self.chunk(json!([
            {"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}
        ]))
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.with_choices(json!([]));
        chunk["usage"] = usage_json(usage);
        chunk
    }
}
