//! What all shards count for one engine and one of its models, for statistics over a window of time: shared additions, a
//! few nanoseconds each, and only where somebody wants such statistics.
//!
//! Invariants
//! - Every visit that began ends once, however it ends: what is at an engine never stays counted there.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::stats::UpstreamFailure;

/// Upper bounds of the latency histograms, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 11] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// The engine behind a worker, as statistics name it, and what is counted of it.
#[derive(Debug)]
pub struct Tallies {
    /// Names it in requests.
    pub engine_id: Box<str>,
    /// One of each model that it serves.
    pub by_model: Box<[(Box<str>, Tally)]>,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Tally {
    begun: AtomicU64,
    first: AtomicU64,
    first_us: AtomicU64,
    ended_before_first: AtomicU64,
    ended: AtomicU64,
    finished: AtomicU64,
    finished_us: AtomicU64,
    good: Latency,
    bad: Latency,
    failures: [AtomicU64; UpstreamFailure::COUNT],
    prompt_tokens: AtomicU64,
    answer_tokens: AtomicU64,
}

/// Durations by [`LATENCY_BOUNDS_US`].
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent to the engine.
    pub begun: u64,
    /// Of these, those it has begun to answer.
    pub first: u64,
    /// How long these took to begin, together, in microseconds.
    pub first_us: u64,
    /// Requests that ended before an answer began.
    pub ended_before_first: u64,
    /// Requests that ended.
    pub ended: u64,
    /// Requests that were answered to the end.
    pub finished: u64,
    /// How long these took, together, in microseconds.
    pub finished_us: u64,
}

/// One request at an engine. Dropped, it has ended.
#[derive(Debug)]
pub struct Visit {
    tallies: Arc<Tallies>,
    model: usize,
    began: Instant,
    has_first: bool,
    is_told: bool,
}

// === impl Counts ===

impl Counts {
    /// Requests that wait for their answer to begin.
    pub fn in_prefill(&self) -> u64 {
        self.begun.saturating_sub(self.first + self.ended_before_first)
    }

    /// Requests whose answer comes.
    pub fn in_decoding(&self) -> u64 {
        self.first.saturating_sub(self.ended.saturating_sub(self.ended_before_first))
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            begun: self.begun + other.begun,
            first: self.first + other.first,
            first_us: self.first_us + other.first_us,
            ended_before_first: self.ended_before_first + other.ended_before_first,
            ended: self.ended + other.ended,
            finished: self.finished + other.finished,
            finished_us: self.finished_us + other.finished_us,
        }
    }
}

// === impl Latency ===

impl Latency {
    fn record(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = LATENCY_BOUNDS_US.iter().position(|&bound| us <= bound);
        add(&self.counts[bucket.unwrap_or(LATENCY_BOUNDS_US.len())], 1);
        add(&self.sum_us, us);
    }

    /// Counts per bucket, not cumulative; the last is what is above all bounds.
    pub fn counts(&self) -> [u64; LATENCY_BOUNDS_US.len() + 1] {
        std::array::from_fn(|at| get(&self.counts[at]))
    }

    /// Sum of everything recorded, in microseconds.
    pub fn sum_us(&self) -> u64 {
        get(&self.sum_us)
    }
}

fn add(cell: &AtomicU64, n: u64) {
    cell.fetch_add(n, Ordering::Relaxed);
}

fn get(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

// === impl Tally ===

impl Tally {
    /// What was counted up to now. What ends is read before what begins, so that nothing is negative.
    pub fn counts(&self) -> Counts {
        let (finished, finished_us) = (get(&self.finished), get(&self.finished_us));
        let (ended, ended_before_first) = (get(&self.ended), get(&self.ended_before_first));
        let (first, first_us) = (get(&self.first), get(&self.first_us));
        Counts { begun: get(&self.begun), first, first_us, ended_before_first, ended, finished, finished_us }
    }

    /// How long requests took that were answered well.
    pub fn good(&self) -> &Latency {
        &self.good
    }

    /// How long those took that failed, or were answered with an error.
    pub fn bad(&self) -> &Latency {
        &self.bad
    }

    /// How often an exchange failed so.
    pub fn failures(&self, failure: UpstreamFailure) -> u64 {
        get(&self.failures[failure as usize])
    }

    /// Tokens of prompts and answers, as answers said that were no streams.
    pub fn tokens(&self) -> (u64, u64) {
        (get(&self.prompt_tokens), get(&self.answer_tokens))
    }
}

// === impl Tallies ===

impl Tallies {
    /// All zero, for an engine of these models.
    pub fn new(engine_id: impl Into<Box<str>>, models: impl IntoIterator<Item = Box<str>>) -> Self {
        let by_model = models.into_iter().map(|model| (model, Tally::default())).collect();
        Self { engine_id: engine_id.into(), by_model }
    }

    /// What was counted of all models.
    pub fn counts(&self) -> Counts {
        self.by_model.iter().fold(Counts::default(), |sum, (_, tally)| sum.plus(&tally.counts()))
    }
}

// === impl Visit ===

impl Visit {
    /// A request for `model` is sent to the engine; none if nothing is counted for that model.
    pub fn begin(tallies: &Arc<Tallies>, model: &str, now: Instant) -> Option<Self> {
        let model = tallies.by_model.iter().position(|(name, _)| **name == *model)?;
        add(&tallies.by_model[model].1.begun, 1);
        Some(Self { tallies: Arc::clone(tallies), model, began: now, has_first: false, is_told: false })
    }

    fn tally(&self) -> &Tally {
        &self.tallies.by_model[self.model].1
    }

    /// The engine has begun to answer. Only the first time counts.
    pub fn first(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.has_first, true) {
            add(&self.tally().first_us, now.saturating_duration_since(self.began).as_micros() as u64);
            add(&self.tally().first, 1);
        }
    }

    /// The answer has come whole; `is_good` unless it is an error.
    pub fn finish(&mut self, is_good: bool, now: Instant) {
        if !std::mem::replace(&mut self.is_told, true) {
            let (tally, time) = (self.tally(), now.saturating_duration_since(self.began));
            let latency = if is_good { &tally.good } else { &tally.bad };
            latency.record(time);
            add(&tally.finished_us, time.as_micros() as u64);
            add(&tally.finished, 1);
        }
    }

    /// The exchange has failed.
    pub fn fail(&mut self, failure: UpstreamFailure, now: Instant) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.tally().bad.record(now.saturating_duration_since(self.began));
            add(&self.tally().failures[failure as usize], 1);
        }
    }

    /// The answer says that it used so many tokens.
    pub fn used(&self, (prompt, answer): (Option<u32>, Option<u32>)) {
        add(&self.tally().prompt_tokens, prompt.unwrap_or(0).into());
        add(&self.tally().answer_tokens, answer.unwrap_or(0).into());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.has_first {
            add(&self.tally().ended_before_first, 1);
        }
        add(&self.tally().ended, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_ends_once_however_it_ends() {
        let tallies = Arc::new(Tallies::new("e", ["a".into(), "b".into()]));
        let now = Instant::now();
        let later = now + Duration::from_millis(60);
        let waiting = Visit::begin(&tallies, "a", now);
        let mut failed = Visit::begin(&tallies, "b", now).expect("a model");
        let mut good = Visit::begin(&tallies, "b", now).expect("a model");
        good.first(later);
        good.first(later);
        assert_eq!((tallies.counts().in_prefill(), tallies.counts().in_decoding()), (2, 1));
        good.finish(true, later);
        failed.fail(UpstreamFailure::Connect, later);
        drop((waiting, failed, good));
        let counts = tallies.counts();
        assert_eq!((counts.in_prefill(), counts.in_decoding()), (0, 0));
        assert_eq!((counts.begun, counts.first, counts.finished), (3, 1, 1));
        let tally = &tallies.by_model[1].1;
        assert_eq!((tally.failures(UpstreamFailure::Connect), tally.good().counts()[1]), (1, 1));
        assert!(Visit::begin(&tallies, "c", now).is_none());
    }
}
