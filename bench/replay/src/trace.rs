//! A trace: requests with their arrival times and the lineage of their prompts, whatever file they came from.
//!
//! Invariants
//! - Requests are ordered by arrival.
//! - Two blocks have the same `prefix` exactly when everything up to their end is the same.
//! - The blocks of a prompt cover its first tokens and never more than the prompt has.

mod decision;
mod mooncake;
mod read;
mod write;

use crate::limits::PROMPT_TOKENS_MAX;

pub use crate::trace::decision::Captured;
pub use crate::trace::read::ReadError;
pub use crate::trace::read::ReadOptions;
pub use crate::trace::read::TimeUnit;
pub use crate::trace::read::read;
pub use crate::trace::write::write;

/// Prompt bytes that one token stands for, as in SGLang's own estimates.
pub const BYTES_PER_TOKEN: u32 = 4;

/// One run of a prompt's tokens, named by everything up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptBlock {
    /// Hash of the prompt up to the end of this block.
    pub prefix: u64,
    /// Tokens of this block alone.
    pub tokens: u32,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRequest {
    /// Arrival, in microseconds since the trace began.
    pub at_us: u64,
    /// Known lineage of the prompt, front first.
    pub blocks: Box<[PromptBlock]>,
    /// Tokens of the prompt; at least 1.
    pub prompt_tokens: u32,
    /// Tokens of the answer; at least 1.
    pub output_tokens: u32,
    /// Hash of the key that the client named itself by, if it did.
    pub key: Option<u64>,
}

/// Requests in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    requests: Vec<TraceRequest>,
    captured: Vec<Captured>,
}

/// Names a block by what came before it and by what it holds.
pub(crate) fn chain(previous: u64, block: u64) -> u64 {
    // The tree's own rolling hash, so that lineage means the same everywhere.
    fleet::blocks::chain(previous, block)
}

// === impl TraceRequest ===

impl TraceRequest {
    /// A request whose prompt is cut into equal blocks of `block_tokens`, the last one shorter.
    ///
    /// Blocks beyond the prompt's end are dropped.
    pub fn from_block_ids(
        at_us: u64,
        prompt_tokens: u32,
        output_tokens: u32,
        block_tokens: u32,
        ids: impl IntoIterator<Item = u64>,
    ) -> TraceRequest {
        let prompt_tokens = prompt_tokens.clamp(1, PROMPT_TOKENS_MAX);
        let block_tokens = block_tokens.max(1);
        let mut prefix = 0;
        let mut left = prompt_tokens;
        let blocks = ids
            .into_iter()
            .map_while(|id| {
                let tokens = left.min(block_tokens);
                left -= tokens;
                prefix = chain(prefix, id);
                (tokens > 0).then_some(PromptBlock { prefix, tokens })
            })
            .collect();
        let output_tokens = output_tokens.max(1);
        TraceRequest { at_us, blocks, prompt_tokens, output_tokens, key: None }
    }

    /// Length of the prompt as the gateway sees it.
    pub fn prompt_bytes(&self) -> usize {
        self.prompt_tokens as usize * BYTES_PER_TOKEN as usize
    }

    /// Prompt tokens that a cache holding everything could save. The last one is always computed: its output is what
    /// the first answer token is drawn from.
    pub(crate) fn cacheable(&self, tokens: u64) -> u32 {
        tokens.min(u64::from(self.prompt_tokens) - 1) as u32
    }
}

// === impl Trace ===

impl Trace {
    /// Orders `requests` by arrival and lets the first one arrive at 0. Those that arrive together keep their order.
    pub fn new(requests: Vec<TraceRequest>) -> Trace {
        Trace::with_captured(requests, Vec::new())
    }

    /// The same, with the decisions that were made when the trace was captured.
    pub(crate) fn with_captured(mut requests: Vec<TraceRequest>, captured: Vec<Captured>) -> Trace {
        requests.sort_by_key(|request| request.at_us);
        let start_us = requests.first().map_or(0, |request| request.at_us);
        for request in &mut requests {
            request.at_us -= start_us;
        }
        Trace { requests, captured }
    }

    /// The requests, ordered by arrival.
    pub fn requests(&self) -> &[TraceRequest] {
        &self.requests
    }

    /// The decisions that were made when the trace was captured, retries included.
    pub fn captured(&self) -> &[Captured] {
        &self.captured
    }

    /// Keeps the first `count` requests.
    pub fn truncate(&mut self, count: usize) {
        self.requests.truncate(count);
    }

    /// Requests a second, over the time in which they arrive; none for a trace that arrives at once.
    pub fn requests_per_s(&self) -> Option<f64> {
        let last_us = self.requests.last()?.at_us;
        (last_us > 0).then(|| (self.requests.len() - 1) as f64 * 1e6 / last_us as f64)
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum()
    }

    /// Prompt tokens that one cache without a bound would have saved: no routing saves more.
    pub fn reusable_tokens(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let mut saved = 0;
        for request in &self.requests {
            let known = request.blocks.iter().take_while(|block| seen.contains(&block.prefix));
            let tokens = known.map(|block| u64::from(block.tokens)).sum();
            saved += u64::from(request.cacheable(tokens));
            seen.extend(request.blocks.iter().map(|block| block.prefix));
        }
        saved
    }

    /// Tokens of all distinct blocks: the cache that would hold the whole trace.
    pub fn distinct_tokens(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let blocks = self.requests.iter().flat_map(|request| request.blocks.iter());
        blocks.filter(|block| seen.insert(block.prefix)).map(|block| u64::from(block.tokens)).sum()
    }
}

#[cfg(test)]
mod tests;
