//! Which endpoint says what.

mod anthropic;
mod control;
mod info;
mod metrics;
mod openai;
mod prompt;
mod rank;
mod responses;
mod sglang;

use http::Method;
use serde_json::{Value, json};

use crate::exchange::{Exchange, Failure, Request};

/// Answers `request`.
pub(crate) async fn answer(exchange: &mut Exchange<'_>, request: &Request) -> Result<(), Failure> {
    if let Some(status) = exchange.fault.status {
        let message = "this error was asked for".to_owned();
        return Err(Failure::Answer { status, kind: "SimulatedError", message });
    }
    if request.path.starts_with("/_sim/") {
        return control::answer(exchange, request).await;
    }
    if request.method == Method::POST && answer_inference(exchange, request).await? {
        return Ok(());
    }
    if info::answer(exchange, request).await? {
        return Ok(());
    }
    exchange.json(404, &json!({"detail": "Not Found"})).await
}

/// Answers the endpoints that compute something; false when the path is none of them.
async fn answer_inference(exchange: &mut Exchange<'_>, request: &Request) -> Result<bool, Failure> {
    let speaks_sglang = exchange.engine.config.dialect.speaks_sglang();
    match request.path.as_str() {
        "/v1/chat/completions" => openai::chat(exchange, &parse(request)?).await?,
        "/v1/completions" => openai::completions(exchange, &parse(request)?).await?,
        "/v1/messages" => anthropic::messages(exchange, &parse(request)?).await?,
        "/v1/responses" => responses::create(exchange, &parse(request)?).await?,
        "/generate" if speaks_sglang => sglang::generate(exchange, &parse(request)?).await?,
        "/v1/embeddings" => rank::embeddings(exchange, &parse(request)?).await?,
        "/v1/rerank" | "/rerank" => rank::rerank(exchange, &parse(request)?, &request.path).await?,
        "/v1/score" | "/score" => rank::score(exchange, &parse(request)?).await?,
        "/v1/classify" | "/classify" => rank::classify(exchange, &parse(request)?).await?,
        "/tokenize" | "/v1/tokenize" => rank::tokenize(exchange, &parse(request)?).await?,
        "/detokenize" | "/v1/detokenize" => rank::detokenize(exchange, &parse(request)?).await?,
        "/v1/audio/transcriptions"
        | "/v1/audio/translations"
        | "/v1/images/generations"
        | "/v1/images/edits" => control::received(exchange, request).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn parse(request: &Request) -> Result<Value, Failure> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))
}

/// The model an answer names: what was asked for, else what is served.
fn model(exchange: &Exchange<'_>, body: &Value) -> String {
    body["model"].as_str().unwrap_or(&exchange.engine.config.model_id).to_owned()
}

fn is_stream(body: &Value) -> bool {
    body["stream"].as_bool().unwrap_or(false)
}
