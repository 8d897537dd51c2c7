//! What an engine says about itself, and the cache controls.

use http::Method;
use serde_json::{Value, json};

use super::metrics;
use crate::clock;
use crate::exchange::{Exchange, Failure, Request};

/// Version both dialects report.
const VERSION: &str = "0.0.0+sim";

/// Answers the information endpoints; false when the path is none of the dialect's.
pub(crate) async fn answer(exchange: &mut Exchange<'_>, request: &Request) -> Result<bool, Failure> {
    let dialect = exchange.engine.config.dialect;
    let is_get = request.method == Method::GET;
    match request.path.as_str() {
        "/health" if is_get => health(exchange).await?,
        "/v1/models" if is_get => models(exchange).await?,
        "/metrics" if is_get => {
            let text = metrics::text(&exchange.engine);
            exchange.text(200, text).await?;
        }
        path if dialect.speaks_sglang() && answer_sglang(exchange, path, is_get).await? => {}
        path if dialect.speaks_vllm() && answer_vllm(exchange, path, is_get).await? => {}
        _ => return Ok(false),
    }
    Ok(true)
}

async fn answer_sglang(exchange: &mut Exchange<'_>, path: &str, is_get: bool) -> Result<bool, Failure> {
    match path {
        "/health_generate" if is_get => health(exchange).await?,
        "/get_model_info" | "/model_info" if is_get => {
            let model_id = exchange.engine.config.model_id.clone();
            let info = json!({
                "model_path": model_id,
                "tokenizer_path": model_id,
                "served_model_name": model_id,
                "is_generation": true,
                "preferred_sampling_params": null,
                "weight_version": "default",
                "has_image_understanding": false,
                "has_audio_understanding": false,
                "model_type": "sim",
                "architectures": ["SimForCausalLM"],
            });
            exchange.json(200, &info).await?;
        }
        "/get_server_info" | "/server_info" if is_get => {
            let info = server_info(exchange);
            exchange.json(200, &info).await?;
        }
        "/get_load" if is_get => {
            let load = load(exchange);
            exchange.json(200, &json!([load])).await?;
        }
        "/flush_cache" => {
            exchange.engine.with_scheduler(|scheduler| scheduler.flush_cache());
            exchange.text(200, "Cache flushed.\n".to_owned()).await?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

async fn answer_vllm(exchange: &mut Exchange<'_>, path: &str, is_get: bool) -> Result<bool, Failure> {
    match path {
        "/ping" => health(exchange).await?,
        "/version" if is_get => exchange.json(200, &json!({"version": VERSION})).await?,
        "/load" if is_get => {
            let running = exchange.engine.shared.stats.load().running;
            exchange.json(200, &json!({"server_load": running})).await?;
        }
        "/reset_prefix_cache" if !is_get => {
            exchange.engine.with_scheduler(|scheduler| scheduler.flush_cache());
            exchange.text(200, String::new()).await?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

async fn health(exchange: &mut Exchange<'_>) -> Result<(), Failure> {
    let status = exchange.engine.shared.faults.load().health_status.unwrap_or(200);
    exchange.text(status, String::new()).await
}

async fn models(exchange: &mut Exchange<'_>) -> Result<(), Failure> {
    let config = &exchange.engine.config;
    let owner = if config.dialect.speaks_sglang() { "sglang" } else { "vllm" };
    let model = json!({
        "id": config.model_id,
        "object": "model",
        "created": clock::unix_s(),
        "owned_by": owner,
        "root": config.model_id,
        "parent": null,
        "max_model_len": config.context_tokens_max,
    });
    exchange.json(200, &json!({"object": "list", "data": [model]})).await
}

fn server_info(exchange: &Exchange<'_>) -> Value {
    let config = &exchange.engine.config;
    json!({
        "model_path": config.model_id,
        "tokenizer_path": config.model_id,
        "served_model_name": config.model_id,
        "host": config.host.to_string(),
        "port": exchange.engine.port,
        "tp_size": 1,
        "dp_size": 1,
        "pp_size": 1,
        "version": VERSION,
        "disaggregation_mode": "null",
        "context_length": config.context_tokens_max,
        "max_running_requests": config.concurrency_max,
        "max_total_num_tokens": config.cache_blocks_max * config.block_tokens,
        "page_size": config.block_tokens,
        "internal_states": [{"max_running_requests": config.concurrency_max}],
    })
}

fn load(exchange: &Exchange<'_>) -> Value {
    let (stats, tokens) =
        exchange.engine.with_scheduler(|scheduler| (scheduler.stats(), scheduler.tokens_now()));
    json!({
        "dp_rank": 0,
        "num_reqs": stats.running + stats.waiting,
        "num_waiting_reqs": stats.waiting,
        "num_tokens": tokens,
    })
}
