//! The scheduler: who is computed when, and what of each prompt is already known.
//!
//! Nothing here awaits or reads a clock: `now` is an argument, and an admission says when each token is
//! due. A request's prompt becomes resident with its first token, its answer when it finishes; until then
//! others do not hit it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::cache::PrefixCache;
use crate::config::EngineConfig;
use crate::stats::EngineStats;

/// Names a request for as long as the engine lives.
pub(crate) type RequestId = u64;

/// When a request's tokens are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Admission {
    pub(crate) cached_tokens: usize,
    pub(crate) first_token_at: Instant,
    pub(crate) token_interval: Duration,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    QueueFull,
    PromptTooLong { tokens: usize, tokens_max: usize },
}

/// A request as it is handed in.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) prompt: Vec<u32>,
    /// Answer tokens it will ask for.
    pub(crate) answer_tokens: usize,
    /// Multiplier of its durations.
    pub(crate) slow_factor: f64,
}

/// Requests computed, requests waiting, and the cache they share.
#[derive(Debug)]
pub(crate) struct Scheduler {
    config: EngineConfig,
    cache: PrefixCache,
    entries: HashMap<RequestId, Entry>,
    queue: VecDeque<RequestId>,
    next_id: RequestId,
    stats: EngineStats,
}

#[derive(Debug)]
struct Entry {
    submission: Submission,
    /// Keys of the prompt's whole blocks.
    keys: Vec<u64>,
    /// How many of `keys` this request has pinned.
    pinned: usize,
    running: bool,
}

impl Scheduler {
    pub(crate) fn new(config: EngineConfig) -> Scheduler {
        let cache = PrefixCache::new(config.block_tokens, config.cache_blocks_max);
        Scheduler {
            config,
            cache,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            next_id: 1,
            stats: EngineStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> EngineStats {
        EngineStats { waiting: self.queue.len() as u64, ..self.stats }
    }

    /// Share of the cache's blocks in use, from 0 to 1.
    pub(crate) fn cache_usage(&self) -> f64 {
        self.cache.blocks_now() as f64 / self.config.cache_blocks_max.max(1) as f64
    }

    /// Prompt tokens of all requests that are not finished.
    pub(crate) fn tokens_now(&self) -> usize {
        self.entries.values().map(|entry| entry.submission.prompt.len()).sum()
    }

    pub(crate) fn flush_cache(&mut self) {
        self.cache.flush();
    }

    /// Takes a request; without an admission it waits for one.
    pub(crate) fn submit(
        &mut self,
        submission: Submission,
        now: Instant,
    ) -> Result<(RequestId, Option<Admission>), Refusal> {
        let tokens = submission.prompt.len() + submission.answer_tokens;
        if tokens > self.config.context_tokens_max {
            return Err(Refusal::PromptTooLong { tokens, tokens_max: self.config.context_tokens_max });
        }
        let waits = self.stats.running >= self.config.concurrency_max.max(1) as u64;
        if waits && self.queue.len() >= self.config.queue_max {
            self.stats.refused += 1;
            return Err(Refusal::QueueFull);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.stats.requests += 1;
        let keys = self.cache.keys(&submission.prompt);
        self.entries.insert(id, Entry { submission, keys, pinned: 0, running: false });
        if waits {
            self.queue.push_back(id);
            return Ok((id, None));
        }
        Ok((id, self.start(id, now)))
    }

    /// The first token of `id` is out: its prompt is resident from here on.
    pub(crate) fn first_token(&mut self, id: RequestId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.pinned = self.cache.extend(&entry.keys, entry.pinned);
    }

    /// `id` said all of `answer`. Returns the request that takes its place.
    pub(crate) fn finish(
        &mut self,
        id: RequestId,
        answer: &[u32],
        now: Instant,
    ) -> Option<(RequestId, Admission)> {
        let mut entry = self.entries.remove(&id)?;
        assert!(entry.running, "only a running request finishes");
        entry.submission.prompt.extend_from_slice(answer);
        let keys = self.cache.keys(&entry.submission.prompt);
        let pinned = self.cache.extend(&keys, entry.pinned);
        self.cache.unpin(&keys, pinned);
        self.stats.generation_tokens += answer.len() as u64;
        self.leave(now)
    }

    /// The client of `id` went away. Returns the request that takes its place.
    pub(crate) fn abort(&mut self, id: RequestId, now: Instant) -> Option<(RequestId, Admission)> {
        let entry = self.entries.remove(&id)?;
        self.stats.aborted += 1;
        if !entry.running {
            self.queue.retain(|queued| *queued != id);
            return None;
        }
        self.cache.unpin(&entry.keys, entry.pinned);
        self.leave(now)
    }

    fn leave(&mut self, now: Instant) -> Option<(RequestId, Admission)> {
        self.stats.running -= 1;
        let next = self.queue.pop_front()?;
        self.start(next, now).map(|admission| (next, admission))
    }

    fn start(&mut self, id: RequestId, now: Instant) -> Option<Admission> {
        let entry = self.entries.get_mut(&id)?;
        let prompt_tokens = entry.submission.prompt.len();
        let block_tokens = self.cache.block_tokens();
        // The last token is always computed: its output is what the first answer token is drawn from.
        let hittable = (prompt_tokens.saturating_sub(1) / block_tokens).min(entry.keys.len());
        entry.pinned = self.cache.pin_resident(&entry.keys[..hittable]);
        entry.running = true;
        let cached_tokens = entry.pinned * block_tokens;
        self.stats.running += 1;
        self.stats.prompt_tokens += prompt_tokens as u64;
        self.stats.cached_tokens += cached_tokens as u64;
        let slow = entry.submission.slow_factor;
        let prefill =
            self.config.base_ttft + time_of(prompt_tokens - cached_tokens, self.config.prefill_tokens_per_s);
        Some(Admission {
            cached_tokens,
            first_token_at: now + scaled(prefill, slow),
            token_interval: scaled(time_of(1, self.config.decode_tokens_per_s), slow),
        })
    }
}

fn time_of(tokens: usize, tokens_per_s: f64) -> Duration {
    if !tokens_per_s.is_finite() || tokens_per_s <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(tokens as f64 / tokens_per_s).unwrap_or(DURATION_MAX)
}

fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(DURATION_MAX)
}

/// Longest wait: a day is for ever in a simulation, and can still be added to an instant.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
