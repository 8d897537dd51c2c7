//! SGLang's own generate endpoint.

use serde_json::{Value, json};

use super::{is_stream, prompt};
use crate::exchange::{Exchange, Failure};
use crate::generation::Generation;

pub(crate) async fn generate(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let field = if body["input_ids"].is_null() { &body["text"] } else { &body["input_ids"] };
    let prompts = prompt::prompts(field)?;
    let mut generations = Vec::with_capacity(prompts.tokens.len());
    for tokens in prompts.tokens {
        generations.push(prompt::begin(exchange, body, tokens)?);
    }
    let id = match body["rid"].as_str() {
        Some(rid) => rid.to_owned(),
        None => format!("{}-{}", exchange.engine.port, exchange.engine.answer_number()),
    };
    if is_stream(body) {
        return stream(exchange, &mut generations, &id, prompts.is_batch).await;
    }
    let mut answers = Vec::with_capacity(generations.len());
    for generation in &mut generations {
        let text = generation.whole().await;
        answers.push(answer(generation, &text, &id, true));
    }
    match answers.pop() {
        Some(only) if !prompts.is_batch => exchange.json(200, &only).await,
        last => {
            answers.extend(last);
            exchange.json(200, &Value::Array(answers)).await
        }
    }
}

/// Each event has all the text up to there.
async fn stream(
    exchange: &mut Exchange<'_>,
    generations: &mut [Generation],
    id: &str,
    is_batch: bool,
) -> Result<(), Failure> {
    let mut is_open = false;
    for (index, generation) in generations.iter_mut().enumerate() {
        let mut text = String::new();
        let mut word = generation.next().await;
        if !is_open {
            exchange.open_stream().await?;
            is_open = true;
        }
        while let Some(said) = word {
            text.push_str(said);
            let so_far = generation.usage().completion_tokens;
            word = generation.next().await;
            let mut event = answer(generation, &text, id, word.is_none());
            event["meta_info"]["completion_tokens"] = json!(so_far);
            if is_batch {
                event["index"] = json!(index);
            }
            exchange.event(&event).await?;
        }
    }
    exchange.close_stream_done().await
}

fn answer(generation: &Generation, text: &str, id: &str, is_finished: bool) -> Value {
    let usage = generation.usage();
    let finish_reason = match is_finished {
        true if generation.finish_reason() == "length" => {
            json!({"type": "length", "length": usage.completion_tokens})
        }
        true => json!({"type": "stop", "matched": 2}),
        false => Value::Null,
    };
    json!({
        "text": text,
        "output_ids": generation.answer(),
        "meta_info": {
            "id": id,
            "finish_reason": finish_reason,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "weight_version": "default",
        },
    })
}
