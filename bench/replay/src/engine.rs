//! A simulated inference engine in virtual time: continuous batching, chunked prefill, a prefix cache.
//!
//! The engine computes in steps, as vLLM and SGLang do (iteration-level scheduling: Yu et al., "Orca", OSDI 2022).
//! A step gives every running request its next answer token and spends what is left of a token budget on the prompt
//! at the head of the queue, a chunk at a time (Agrawal et al., "Sarathi-Serve", OSDI 2024). It takes
//!
//! `step_us + step_per_request_us × running + prompt tokens ÷ prefill_tokens_per_s`
//!
//! which is linear where real engines are nearly so: the cost of attention over a long context is left out, as are the
//! tokeniser and the network. Prompts are computed first come, first served, and the engine never idles while
//! something waits.
//!
//! A chunk becomes resident when its step ends. Answers take room but are not found by later prompts under their own
//! name: a trace names them only as part of the next prompt.
//!
//! Invariants
//! - A request submitted gets its first token once and finishes once, if its steps are taken.
//! - Nothing here reads a clock: every call says what time it is.

pub(crate) mod cache;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;

use crate::engine::cache::PrefixCache;
use crate::trace::TraceRequest;

/// Size and speed of an engine.
///
/// The default is about an 8-billion-parameter model with grouped-query attention on one 80 GB accelerator: 128 KiB of
/// keys and values a token, some 52 GB left beside the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineConfig {
    /// Tokens of keys and values that fit, of prompts and answers, running or not.
    pub cache_tokens_max: u64,
    /// Prompt tokens computed a second when nothing else is.
    pub prefill_tokens_per_s: f64,
    /// Prompt tokens computed in one step at most.
    pub chunk_tokens: u32,
    /// What every step takes: reading the weights.
    pub step_us: u64,
    /// What each running request adds to it: reading its context.
    pub step_per_request_us: u64,
    /// Requests computed at a time; more wait.
    pub running_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            cache_tokens_max: 400_000,
            prefill_tokens_per_s: 20_000.0,
            chunk_tokens: 2_048,
            step_us: 8_000,
            step_per_request_us: 60,
            running_max: 256,
        }
    }
}

/// Position of a request in its trace.
pub type RequestIndex = usize;

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The first token is out.
    FirstToken {
        /// Whose.
        request: RequestIndex,
        /// Prompt tokens that did not have to be computed.
        cached_tokens: u32,
    },
    /// The answer is complete.
    Finished {
        /// Whose.
        request: RequestIndex,
    },
}

/// What an engine did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests taken.
    pub requests: u64,
    /// Tokens of the prompts that were begun.
    pub prompt_tokens: u64,
    /// Of those, found in the cache.
    pub cached_tokens: u64,
    /// Time in steps.
    pub busy_us: u64,
}

/// One engine.
#[derive(Debug)]
pub struct Engine<'t> {
    config: EngineConfig,
    cache: PrefixCache,
    waiting: VecDeque<Waiting<'t>>,
    /// The prompt being computed, if its end is not within this step.
    prefilling: Option<Job<'t>>,
    /// Prompts whose last chunk is in this step.
    ending: Vec<Job<'t>>,
    /// Requests that answer, by the number of the step that gives their last token.
    decoding: BTreeMap<(u64, RequestIndex), Job<'t>>,
    /// How many prompts that wait or are computed hold each block.
    promised: HashMap<u64, u32>,
    /// Prompt tokens still to be computed, as estimated when each request came.
    backlog_tokens: u64,
    steps_done: u64,
    run: Option<Run>,
    stats: EngineStats,
}

/// Steps under way that nothing can tell apart: one, or several in which requests only answer.
#[derive(Clone, Copy, Debug)]
struct Run {
    began_us: u64,
    step_us: u64,
    steps: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting<'t> {
    index: RequestIndex,
    request: &'t TraceRequest,
    estimate: u32,
}

#[derive(Debug)]
struct Job<'t> {
    index: RequestIndex,
    request: &'t TraceRequest,
    estimate: u32,
    cached_tokens: u32,
    /// Prompt tokens cached or computed, those of this step included.
    computed_tokens: u32,
    /// Leading blocks pinned in the cache, and their tokens.
    pinned: usize,
    pinned_tokens: u64,
    /// Room held for what is not resident yet.
    reserved_tokens: u64,
}

// === impl Run ===

impl Run {
    fn ends_us(self) -> u64 {
        self.began_us + self.steps * self.step_us
    }
}

// === impl Engine ===

impl<'t> Engine<'t> {
    /// An idle engine with an empty cache.
    pub fn new(config: EngineConfig) -> Engine<'t> {
        Engine {
            config,
            cache: PrefixCache::new(config.cache_tokens_max),
            waiting: VecDeque::new(),
            prefilling: None,
            ending: Vec::new(),
            decoding: BTreeMap::new(),
            promised: HashMap::new(),
            backlog_tokens: 0,
            steps_done: 0,
            run: None,
            stats: EngineStats::default(),
        }
    }

    /// What it did so far.
    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// Requests that wait or are computed.
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.running()
    }

    /// Prompt tokens still to be computed, as estimated when each request came.
    pub fn backlog_tokens(&self) -> u64 {
        self.backlog_tokens
    }

    /// Leading tokens of a prompt that are resident, or will be when everything submitted before is computed.
    pub fn known_tokens(&self, request: &TraceRequest) -> u32 {
        let known = request
            .blocks
            .iter()
            .take_while(|block| self.cache.has(block.prefix) || self.promised.contains_key(&block.prefix));
        request.cacheable(known.map(|block| u64::from(block.tokens)).sum())
    }

    /// Takes a request. Returns when the engine's present step ends, if that is news.
    pub fn submit(&mut self, index: RequestIndex, request: &'t TraceRequest, now_us: u64) -> Option<u64> {
        let estimate = request.prompt_tokens - self.known_tokens(request);
        self.stats.requests += 1;
        self.backlog_tokens += u64::from(estimate);
        for block in &request.blocks {
            *self.promised.entry(block.prefix).or_default() += 1;
        }
        let was_blocked = !self.waiting.is_empty();
        self.waiting.push_back(Waiting { index, request, estimate });
        match self.run {
            None => self.begin_steps(now_us),
            // What waits could not begin, so neither can this one before something finishes.
            Some(_) if was_blocked => None,
            Some(run) if run.steps == 1 => None,
            Some(run) => {
                let steps = now_us.saturating_sub(run.began_us).div_ceil(run.step_us).clamp(1, run.steps);
                let run = Run { steps, ..run };
                self.run = Some(run);
                Some(run.ends_us())
            }
        }
    }

    /// Ends the steps under way, if they end now, and begins the next ones. Returns when those end.
    pub fn turn(&mut self, now_us: u64, progress: &mut Vec<Progress>) -> Option<u64> {
        // The end of a run that was cut short comes twice; the later one means nothing.
        let run = self.run.take_if(|run| run.ends_us() == now_us)?;
        self.stats.busy_us += run.steps * run.step_us;
        self.steps_done += run.steps;
        self.end_steps(progress);
        self.begin_steps(now_us)
    }

    fn running(&self) -> usize {
        self.decoding.len() + self.ending.len() + usize::from(self.prefilling.is_some())
    }

    fn begin_steps(&mut self, now_us: u64) -> Option<u64> {
        debug_assert!(self.run.is_none() && self.ending.is_empty(), "one run at a time");
        let prompt_tokens = self.schedule_prompts();
        let finishes_at = self.decoding.keys().next().map(|(step, _)| *step);
        let steps = match (prompt_tokens, finishes_at) {
            (0, None) => return None,
            // Nothing can begin before something finishes: these steps are all alike.
            (0, Some(step)) => step - self.steps_done,
            _ => 1,
        };
        let step_us = self.config.step_us
            + self.config.step_per_request_us * self.decoding.len() as u64
            + prefill_us(prompt_tokens, self.config.prefill_tokens_per_s);
        let run = Run { began_us: now_us, step_us: step_us.max(1), steps };
        self.run = Some(run);
        Some(run.ends_us())
    }

    /// Spends one step's budget on prompts and returns how much of it was needed.
    fn schedule_prompts(&mut self) -> u32 {
        let mut left = self.config.chunk_tokens.max(1);
        while left > 0 {
            let Some(mut job) = self.prefilling.take().or_else(|| self.admit()) else { break };
            let taken = left.min(job.request.prompt_tokens - job.computed_tokens);
            job.computed_tokens += taken;
            left -= taken;
            if job.computed_tokens == job.request.prompt_tokens {
                self.ending.push(job);
            } else {
                self.prefilling = Some(job);
            }
        }
        self.config.chunk_tokens.max(1) - left
    }

    /// Begins with the request at the head of the queue, if a place and the room for it are free.
    fn admit(&mut self) -> Option<Job<'t>> {
        let Waiting { index, request, estimate } = *self.waiting.front()?;
        if self.running() >= self.config.running_max.max(1) {
            return None;
        }
        let (pinned, pinned_tokens) = self.cache.pin_resident(&request.blocks);
        let cached_tokens = request.cacheable(pinned_tokens);
        let reserved_tokens =
            u64::from(request.prompt_tokens) - pinned_tokens + u64::from(request.output_tokens);
        // A request too large for the whole cache is computed alone, and not all of it stays.
        if !self.cache.reserve(reserved_tokens, self.running() == 0) {
            self.cache.unpin(&request.blocks[..pinned]);
            return None;
        }
        self.waiting.pop_front();
        self.stats.prompt_tokens += u64::from(request.prompt_tokens);
        self.stats.cached_tokens += u64::from(cached_tokens);
        Some(Job {
            index,
            request,
            estimate,
            cached_tokens,
            computed_tokens: cached_tokens,
            pinned,
            pinned_tokens,
            reserved_tokens,
        })
    }

    fn end_steps(&mut self, progress: &mut Vec<Progress>) {
        if let Some(job) = &mut self.prefilling {
            keep_computed(&mut self.cache, job);
        }
        for mut job in std::mem::take(&mut self.ending) {
            keep_computed(&mut self.cache, &mut job);
            self.backlog_tokens -= u64::from(job.estimate);
            for block in &job.request.blocks {
                self.forget_promise(block.prefix);
            }
            progress.push(Progress::FirstToken { request: job.index, cached_tokens: job.cached_tokens });
            let last_step = self.steps_done + u64::from(job.request.output_tokens) - 1;
            self.decoding.insert((last_step, job.index), job);
        }
        while let Some(entry) = self.decoding.first_entry()
            && entry.key().0 <= self.steps_done
        {
            let job = entry.remove();
            self.cache.release(job.reserved_tokens);
            self.cache.unpin(&job.request.blocks[..job.pinned]);
            progress.push(Progress::Finished { request: job.index });
        }
    }

    fn forget_promise(&mut self, prefix: u64) {
        if let Some(count) = self.promised.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.promised.remove(&prefix);
            }
        }
    }
}

/// Makes the blocks resident that a job has computed to their end.
fn keep_computed(cache: &mut PrefixCache, job: &mut Job<'_>) {
    while let Some(block) = job.request.blocks.get(job.pinned)
        && job.pinned_tokens + u64::from(block.tokens) <= u64::from(job.computed_tokens)
    {
        let room = u64::from(block.tokens).min(job.reserved_tokens);
        let parent = job.pinned.checked_sub(1).map(|before| job.request.blocks[before].prefix);
        if !cache.keep(parent, *block, room) {
            break;
        }
        job.reserved_tokens -= room;
        job.pinned += 1;
        job.pinned_tokens += u64::from(block.tokens);
    }
}

fn prefill_us(tokens: u32, tokens_per_s: f64) -> u64 {
    // A speed that is no number saturates to 0: computed at once.
    (f64::from(tokens) * 1e6 / tokens_per_s).ceil() as u64
}

#[cfg(test)]
mod tests;
