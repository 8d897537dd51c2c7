//! Counters an engine shows to other threads.

use std::sync::atomic::{AtomicU64, Ordering};

/// An engine's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Generation requests accepted since the start.
    pub requests: u64,
    /// Requests being computed now.
    pub running: u64,
    /// Requests waiting for a place now.
    pub waiting: u64,
    /// Prompt tokens of the requests started.
    pub prompt_tokens: u64,
    /// Those of them found in the prefix cache.
    pub cached_tokens: u64,
    /// Answer tokens of the requests finished.
    pub generation_tokens: u64,
    /// Requests whose client went away first.
    pub aborted: u64,
    /// Requests refused because the queue was full.
    pub refused: u64,
}

/// [`EngineStats`], shared. Each field is exact; together they are not one moment's.
#[derive(Debug, Default)]
pub(crate) struct StatsCell {
    fields: [AtomicU64; 8],
}

impl StatsCell {
    pub(crate) fn store(&self, stats: EngineStats) {
        let values = [
            stats.requests,
            stats.running,
            stats.waiting,
            stats.prompt_tokens,
            stats.cached_tokens,
            stats.generation_tokens,
            stats.aborted,
            stats.refused,
        ];
        for (field, value) in self.fields.iter().zip(values) {
            field.store(value, Ordering::Release);
        }
    }

    pub(crate) fn load(&self) -> EngineStats {
        let [requests, running, waiting, prompt_tokens, cached_tokens, generation_tokens, aborted, refused] =
            std::array::from_fn(|index| self.fields[index].load(Ordering::Acquire));
        EngineStats {
            requests,
            running,
            waiting,
            prompt_tokens,
            cached_tokens,
            generation_tokens,
            aborted,
            refused,
        }
    }
}
