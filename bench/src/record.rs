//! What is kept of a run: histograms, counters, and how they went over time.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::answer::Answer;

/// Length of a slot of the time series.
pub const SLOT: Duration = Duration::from_millis(250);
/// Most slots kept; what comes later is counted in the last: an hour.
const SLOTS_MAX: usize = 4 * 3_600;
/// Longest duration a histogram tells apart, in microseconds: an hour.
const HISTOGRAM_MAX_US: u64 = 3_600_000_000;
/// Digits a histogram keeps.
const HISTOGRAM_DIGITS: u8 = 3;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection was made.
    Connect,
    /// The answer's status is not 200.
    Status(u16),
    /// The connection closed before the answer's end, or a stream had no end mark.
    Truncated,
    /// The answer was not complete in time.
    Timeout,
    /// The answer is not what was asked for.
    BadBody,
}

/// One run's measurements. Histograms are in microseconds.
#[derive(Clone, Debug)]
pub struct Record {
    /// From a request's start to the first event with text; streams only.
    pub ttft_us: Histogram<u64>,
    /// From one event with text to the next; streams only.
    pub gap_us: Histogram<u64>,
    /// From a request's start to the end of its answer.
    pub total_us: Histogram<u64>,
    /// Requests answered well.
    pub requests: u64,
    /// Requests that failed, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Prompt tokens of the answers.
    pub prompt_tokens: u64,
    /// Those of them the engines had cached.
    pub cached_tokens: u64,
    /// Answer tokens.
    pub answer_tokens: u64,
    /// Reused connections found closed, and opened anew for the same request.
    pub reconnects: u64,
    /// Answers by slot of their end.
    pub slots: Vec<Slot>,
    /// From the start to the last answer, or to the end of the asking if that is later.
    pub elapsed: Duration,
}

/// What ended in one slot of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Requests answered well.
    pub requests: u64,
    /// Their answer tokens.
    pub answer_tokens: u64,
    /// Requests that failed.
    pub failures: u64,
}

// === impl Record ===

impl Default for Record {
    fn default() -> Record {
        Record {
            ttft_us: histogram(),
            gap_us: histogram(),
            total_us: histogram(),
            requests: 0,
            failures: BTreeMap::new(),
            prompt_tokens: 0,
            cached_tokens: 0,
            answer_tokens: 0,
            reconnects: 0,
            slots: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

impl Record {
    /// Adds an answer that took `total`, its first text `ttft`, and ended `at` after the run's start.
    pub(crate) fn add_answer(
        &mut self,
        answer: &Answer,
        total: Duration,
        ttft: Option<Duration>,
        at: Duration,
    ) {
        self.total_us.saturating_record(micros(total));
        if let Some(ttft) = ttft {
            self.ttft_us.saturating_record(micros(ttft));
        }
        for gap_ns in &answer.event_gaps_ns {
            self.gap_us.saturating_record(gap_ns / 1_000);
        }
        self.requests += 1;
        self.prompt_tokens += answer.prompt_tokens;
        self.cached_tokens += answer.cached_tokens;
        self.answer_tokens += answer.answer_tokens;
        let slot = self.slot(at);
        slot.requests += 1;
        slot.answer_tokens += answer.answer_tokens;
        self.elapsed = self.elapsed.max(at);
    }

    pub(crate) fn add_failure(&mut self, failure: Failure, at: Duration) {
        *self.failures.entry(failure).or_default() += 1;
        self.slot(at).failures += 1;
        self.elapsed = self.elapsed.max(at);
    }

    /// Adds what another core measured in the same run.
    pub fn merge(&mut self, other: &Record) {
        for (mine, theirs) in [
            (&mut self.ttft_us, &other.ttft_us),
            (&mut self.gap_us, &other.gap_us),
            (&mut self.total_us, &other.total_us),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.requests += other.requests;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.answer_tokens += other.answer_tokens;
        self.reconnects += other.reconnects;
        self.slots.resize(self.slots.len().max(other.slots.len()), Slot::default());
        for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
            mine.requests += theirs.requests;
            mine.answer_tokens += theirs.answer_tokens;
            mine.failures += theirs.failures;
        }
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Requests that failed, of all kinds.
    pub fn failures_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answers a second.
    pub fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Answer tokens a second.
    pub fn tokens_per_s(&self) -> f64 {
        self.answer_tokens as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of the prompt tokens that were cached, from 0 to 1.
    pub fn cache_hit_rate(&self) -> f64 {
        self.cached_tokens as f64 / (self.prompt_tokens as f64).max(1.0)
    }

    fn slot(&mut self, at: Duration) -> &mut Slot {
        let index = usize::try_from(at.as_nanos() / SLOT.as_nanos()).unwrap_or(usize::MAX).min(SLOTS_MAX - 1);
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        &mut self.slots[index]
    }
}

// === impl Failure ===

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Connect => formatter.write_str("connect"),
            Failure::Status(status) => write!(formatter, "status {status}"),
            Failure::Truncated => formatter.write_str("truncated"),
            Failure::Timeout => formatter.write_str("timeout"),
            Failure::BadBody => formatter.write_str("bad body"),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HISTOGRAM_MAX_US, HISTOGRAM_DIGITS).expect("the bounds are constants")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_make_one_record() {
        let answer = Answer { prompt_tokens: 10, cached_tokens: 5, answer_tokens: 3, ..Answer::default() };
        let (mut left, mut right) = (Record::default(), Record::default());
        left.add_answer(&answer, Duration::from_millis(10), None, Duration::from_secs(1));
        right.add_answer(&answer, Duration::from_millis(30), None, Duration::from_secs(2));
        right.add_failure(Failure::Status(503), Duration::from_secs(2));
        left.merge(&right);
        assert_eq!((left.requests, left.failures_count(), left.answer_tokens), (2, 1, 6));
        assert_eq!(left.total_us.max() / 1_000, 30);
        assert_eq!(left.requests_per_s(), 1.0);
        assert_eq!(left.cache_hit_rate(), 0.5);
        assert_eq!(left.slots[8], Slot { requests: 1, answer_tokens: 3, failures: 1 });
    }
}
