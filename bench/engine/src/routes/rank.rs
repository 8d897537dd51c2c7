//! Endpoints that compute numbers or tokens from texts: embeddings, ranks, scores, classes, tokenizing.

use serde_json::{Value, json};

use super::{model, prompt};
use crate::clock;
use crate::exchange::{Exchange, Failure};
use crate::token::{detokenize as text_of, digest, mix};

/// Numbers in an embedding.
const EMBEDDING_DIMENSIONS: u64 = 16;

pub(crate) async fn embeddings(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let prompts = prompt::prompts(&body["input"])?;
    let (mut rows, mut tokens) = (Vec::new(), 0);
    for (index, prompt) in prompts.tokens.into_iter().enumerate() {
        let seed = digest(&prompt);
        tokens += prompt::prefill(exchange, prompt).await?;
        let numbers: Vec<f64> =
            (0..EMBEDDING_DIMENSIONS).map(|dimension| unit(mix(seed, dimension)) * 2.0 - 1.0).collect();
        rows.push(json!({"object": "embedding", "index": index, "embedding": numbers}));
    }
    let answer = list(exchange, body, rows, tokens);
    exchange.json(200, &answer).await
}

pub(crate) async fn rerank(exchange: &mut Exchange<'_>, body: &Value, path: &str) -> Result<(), Failure> {
    let query = body["query"].as_str().ok_or_else(|| Failure::bad_request("query must be text"))?;
    let texts = texts(&body["documents"])?;
    let (mut ranks, mut tokens) = (Vec::new(), 0);
    for (index, document) in texts.iter().enumerate() {
        let (score, computed) = compare(exchange, query, document).await?;
        tokens += computed;
        ranks.push((index, score));
    }
    ranks.sort_by(|left, right| right.1.total_cmp(&left.1));
    ranks.truncate(body["top_n"].as_u64().map_or(usize::MAX, |top| top as usize));
    // SGLang answers /v1/rerank with a bare list, vLLM answers both paths with an object.
    if exchange.engine.config.dialect.speaks_sglang() && path == "/v1/rerank" {
        let row = |(index, score): &(usize, f64)| json!({"score": score, "document": texts[*index], "index": index});
        let rows: Vec<Value> = ranks.iter().map(row).collect();
        return exchange.json(200, &Value::Array(rows)).await;
    }
    let row = |(index, score): &(usize, f64)| json!({"index": index, "document": {"text": texts[*index]}, "relevance_score": score});
    let results: Vec<Value> = ranks.iter().map(row).collect();
    let id = format!("rerank-{}-{}", exchange.engine.port, exchange.engine.answer_number());
    let usage = json!({"total_tokens": tokens});
    let answer = json!({"id": id, "model": model(exchange, body), "usage": usage, "results": results});
    exchange.json(200, &answer).await
}

pub(crate) async fn score(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    if !body["items"].is_null() {
        return score_labels(exchange, body).await;
    }
    let (left, right) = (texts(&body["text_1"])?, texts(&body["text_2"])?);
    if left.len() != 1 && left.len() != right.len() {
        return Err(Failure::bad_request("text_1 must be one text, or as many as text_2"));
    }
    let (mut rows, mut tokens) = (Vec::new(), 0);
    for (index, right) in right.iter().enumerate() {
        let (score, computed) = compare(exchange, &left[index.min(left.len() - 1)], right).await?;
        tokens += computed;
        rows.push(json!({"index": index, "object": "score", "score": score}));
    }
    let answer = list(exchange, body, rows, tokens);
    exchange.json(200, &answer).await
}

pub(crate) async fn classify(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let field = if body["input"].is_null() { &body["text"] } else { &body["input"] };
    let (mut rows, mut tokens) = (Vec::new(), 0);
    for (index, text) in texts(field)?.iter().enumerate() {
        let (yes, computed) = compare(exchange, "", text).await?;
        tokens += computed;
        let label = if yes < 0.5 { "LABEL_0" } else { "LABEL_1" };
        rows.push(json!({"index": index, "label": label, "probs": [1.0 - yes, yes], "num_classes": 2}));
    }
    let answer = list(exchange, body, rows, tokens);
    exchange.json(200, &answer).await
}

pub(crate) async fn tokenize(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let prompts = match body["messages"].is_null() {
        false => prompt::Prompts {
            tokens: vec![prompt::chat(&body["messages"], &Value::Null, &body["tools"])?],
            is_batch: false,
        },
        true => prompt::prompts(if body["prompt"].is_null() { &body["text"] } else { &body["prompt"] })?,
    };
    let counts: Vec<usize> = prompts.tokens.iter().map(Vec::len).collect();
    let (tokens, count) = match prompts.is_batch {
        true => (json!(prompts.tokens), json!(counts)),
        false => (json!(prompts.tokens[0]), json!(counts[0])),
    };
    let max_model_len = exchange.engine.config.context_tokens_max;
    exchange.json(200, &json!({"tokens": tokens, "count": count, "max_model_len": max_model_len})).await
}

pub(crate) async fn detokenize(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let ids = body["tokens"].as_array().and_then(|items| prompt::ids(items));
    let text = text_of(&ids.ok_or_else(|| Failure::bad_request("tokens must be a list of ids"))?);
    exchange.json(200, &json!({"text": text, "prompt": text})).await
}

/// SGLang's scores: a row of label probabilities for each item.
async fn score_labels(exchange: &mut Exchange<'_>, body: &Value) -> Result<(), Failure> {
    let labels = body["label_token_ids"].as_array().map_or(1, |labels| labels.len().max(1));
    let query = body["query"].as_str().unwrap_or_default();
    let (mut scores, mut tokens) = (Vec::new(), 0);
    for item in texts(&body["items"])? {
        let (score, computed) = compare(exchange, query, &item).await?;
        tokens += computed;
        scores.push(vec![score / labels as f64; labels]);
    }
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens});
    let model = model(exchange, body);
    exchange.json(200, &json!({"scores": scores, "model": model, "usage": usage, "object": "scoring"})).await
}

/// A number from 0 to 1 that depends on both texts, and the tokens computed for it.
async fn compare(exchange: &Exchange<'_>, left: &str, right: &str) -> Result<(f64, usize), Failure> {
    let mut tokens = prompt::text_tokens(left);
    tokens.extend(prompt::text_tokens(right));
    let score = unit(digest(&tokens));
    Ok((score, prompt::prefill(exchange, tokens).await?))
}

fn list(exchange: &Exchange<'_>, body: &Value, rows: Vec<Value>, tokens: usize) -> Value {
    json!({
        "id": format!("list-{}-{}", exchange.engine.port, exchange.engine.answer_number()),
        "object": "list",
        "created": clock::unix_s(),
        "model": model(exchange, body),
        "data": rows,
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    })
}

fn texts(value: &Value) -> Result<Vec<String>, Failure> {
    let text = |item: &Value| match (item.as_str(), item["text"].as_str()) {
        (Some(text), _) | (None, Some(text)) => text.to_owned(),
        (None, None) => item.to_string(),
    };
    match value {
        Value::String(only) => Ok(vec![only.clone()]),
        Value::Array(items) if !items.is_empty() => Ok(items.iter().map(text).collect()),
        _ => Err(Failure::bad_request("a text or a list of texts is missing")),
    }
}

fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}
