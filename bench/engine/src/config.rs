//! What a simulated engine is asked to be.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::fault::FaultPlan;

/// Whose information endpoints and metric names are served. The OpenAI endpoints are served by all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// SGLang: `/generate`, `/get_model_info`, `/get_server_info`, `/get_load`, `sglang:*` metrics.
    Sglang,
    /// vLLM: `/version`, `/ping`, `/reset_prefix_cache`, `vllm:*` metrics.
    Vllm,
    /// Everything of both.
    #[default]
    Both,
}

impl Dialect {
    pub(crate) fn speaks_sglang(self) -> bool {
        matches!(self, Dialect::Sglang | Dialect::Both)
    }

    pub(crate) fn speaks_vllm(self) -> bool {
        matches!(self, Dialect::Vllm | Dialect::Both)
    }
}

/// A simulated engine's size, speed and faults.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// Name the engine serves its model under.
    pub model_id: String,
    /// Whose endpoints are served.
    pub dialect: Dialect,
    /// Capacity of the prefix cache, in blocks.
    pub cache_blocks_max: usize,
    /// Tokens a cache block holds.
    pub block_tokens: usize,
    /// Uncached prompt tokens computed a second, per request. Not finite or not above 0: at once.
    pub prefill_tokens_per_s: f64,
    /// Time to the first token of a prompt that is all cached.
    pub base_ttft: Duration,
    /// Answer tokens a second, per request. Not finite or not above 0: all at once.
    pub decode_tokens_per_s: f64,
    /// Requests computed at a time.
    pub concurrency_max: usize,
    /// Requests that may wait for a place; the next one is refused with 503.
    pub queue_max: usize,
    /// Longest prompt with its answer, in tokens.
    pub context_tokens_max: usize,
    /// Seed of the fault draws.
    pub seed: u64,
    /// Faults from the start.
    pub faults: FaultPlan,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            model_id: "sim-model".to_owned(),
            dialect: Dialect::Both,
            cache_blocks_max: 16_384,
            block_tokens: 32,
            prefill_tokens_per_s: 20_000.0,
            base_ttft: Duration::from_millis(10),
            decode_tokens_per_s: 200.0,
            concurrency_max: 64,
            queue_max: 1_024,
            context_tokens_max: 262_144,
            seed: 1,
            faults: FaultPlan::default(),
        }
    }
}
