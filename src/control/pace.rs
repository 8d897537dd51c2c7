//! Which workers are slow beside the others of their model. Decisions only: what was measured goes in, a verdict comes out.
//!
//! A worker is slow by one of two measures, the mean gap between two tokens and the mean time to the first token of
//! short prompts. It has to be above an absolute floor and several times the median of its model, and it must not have
//! been given more prompt to compute than the others: who computes long prompts keeps everybody waiting, and is not slow.

use std::time::Duration;

use fleet::cell::Pace;

/// When a worker is slow, and what becomes of it (as in Envoy's outlier detection).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceRules {
    /// How many times the median it takes, above 1 (`--slow-worker-factor`).
    pub factor: f64,
    /// How often workers are compared.
    pub window: Duration,
    /// Tokens that a mean is made from at least.
    pub tokens_min: u64,
    /// First tokens that a mean is made from at least.
    pub firsts_min: u64,
    /// How long it gets no requests the first time; so much longer each further time.
    pub ejection: Duration,
    /// How long at most.
    pub ejection_max: Duration,
}

impl PaceRules {
    /// Rules for the usual traffic.
    pub fn by_factor(factor: f64) -> Self {
        Self {
            factor,
            window: Duration::from_secs(5),
            tokens_min: 20,
            firsts_min: 5,
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
        }
    }
}

/// Workers below which there is no median to speak of.
pub(crate) const WORKERS_MIN: usize = 3;
/// Windows in a row in which a worker is slow before it is ejected.
pub(crate) const WINDOWS_SLOW: u32 = 2;
/// Windows that a worker with little traffic is measured over at most.
pub(crate) const WINDOWS_MAX: u32 = 6;
/// Of how many workers one may be ejected; one of three in any case.
const ONE_OF: usize = 10;
/// A shorter mean gap between tokens is not slow: five tokens a second, as fast as people read.
const GAP_MIN: Duration = Duration::from_millis(200);
/// A shorter mean time to the first token of a short prompt is not slow.
const FIRST_MIN: Duration = Duration::from_secs(1);
/// How many times the median of prompt bytes in a second a worker may have been given and still be judged.
const PROMPT_FACTOR: f64 = 2.0;
/// Prompt bytes in a second that are too few to matter: a prefill of about a tenth of the time.
const PROMPT_BYTES_PER_S_MIN: f64 = 4_000.0;
/// How much of an earlier rate of prompts still counts in the next window: they may be computed for long.
const PROMPT_DECAY: f64 = 0.7;

/// By what a worker is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The mean gap between two tokens.
    InterToken,
    /// The mean time to the first token of short prompts.
    FirstToken,
}

/// What was measured of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    gap: Option<Duration>,
    first: Option<Duration>,
    /// Bytes of prompts that it was given in a second.
    prompt_rate: f64,
}

/// A worker that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) measure: Measure,
    pub(crate) mean: Duration,
    pub(crate) median: Duration,
}

/// What control remembers of one worker's pace.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    /// The sums when the present measurement began, and when that was.
    seen: Pace,
    since: Duration,
    /// What the last complete measurement said.
    reading: Option<Reading>,
    prompt_rate: f64,
    windows_slow: u32,
    /// Times that it was ejected and that are not forgiven yet.
    ejections: u32,
    ejected: Option<Ejected>,
}

/// That a worker gets no requests because it is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ejected {
    pub(crate) until: Duration,
    pub(crate) measure: Measure,
}

/// Workers that may be ejected at a time, of so many that could get requests.
pub(crate) fn ejected_max(workers: usize) -> usize {
    if workers < WORKERS_MIN { 0 } else { (workers / ONE_OF).max(1) }
}

/// Whether a worker of this reading is slow beside all of its model, itself among them.
pub(crate) fn judge(reading: &Reading, all: &[Reading], factor: f64) -> Option<Slow> {
    let rates = all.iter().map(|reading| reading.prompt_rate);
    let rate_max = (median(rates)? * PROMPT_FACTOR).max(PROMPT_BYTES_PER_S_MIN);
    if reading.prompt_rate > rate_max {
        return None;
    }
    let by = |measure, of: fn(&Reading) -> Option<Duration>, floor: Duration| {
        let mean = of(reading)?;
        let median = median(all.iter().filter_map(of))?;
        let is_slow = mean >= floor && mean.as_secs_f64() > median.as_secs_f64() * factor;
        is_slow.then_some(Slow { measure, mean, median })
    };
    by(Measure::InterToken, |reading| reading.gap, GAP_MIN)
        .or_else(|| by(Measure::FirstToken, |reading| reading.first, FIRST_MIN))
}

/// The median, the lower of two; none of fewer than [`WORKERS_MIN`].
fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    if values.len() < WORKERS_MIN {
        return None;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get((values.len() - 1) / 2).copied()
}

// === impl Pacing ===

impl Pacing {
    /// Takes in the sums by `now`; true when a measurement is complete.
    pub(crate) fn measure(&mut self, sums: Pace, now: Duration, rules: &PaceRules) -> bool {
        let (pace, time) = (sums.since(self.seen), now.saturating_sub(self.since));
        if pace.tokens < rules.tokens_min && time < rules.window * WINDOWS_MAX {
            return false;
        }
        let rate = pace.prompt_bytes as f64 / time.as_secs_f64().max(f64::EPSILON);
        self.prompt_rate = rate.max(self.prompt_rate * PROMPT_DECAY);
        self.reading = Some(Reading {
            gap: pace.token_gap(rules.tokens_min),
            first: pace.first_token(rules.firsts_min),
            prompt_rate: self.prompt_rate,
        });
        (self.seen, self.since) = (sums, now);
        true
    }

    /// Begins to measure anew: what came before says nothing any more.
    pub(crate) fn forget(&mut self, sums: Pace, now: Duration) {
        (self.seen, self.since, self.reading, self.windows_slow) = (sums, now, None, 0);
    }

    /// What the last complete measurement said.
    pub(crate) fn reading(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// Takes in what became of a complete measurement; true when it was slow often enough in a row.
    pub(crate) fn judged(&mut self, slow: Option<&Slow>) -> bool {
        match slow {
            Some(_) => self.windows_slow = self.windows_slow.saturating_add(1),
            None => {
                self.windows_slow = 0;
                let is_known = |reading: Reading| reading.gap.is_some() || reading.first.is_some();
                self.ejections = self.ejections.saturating_sub(u32::from(self.reading.is_some_and(is_known)));
            }
        }
        self.windows_slow >= WINDOWS_SLOW
    }

    /// Keeps requests away from it; says for how long.
    pub(crate) fn eject(&mut self, measure: Measure, now: Duration, rules: &PaceRules) -> Duration {
        self.ejections = self.ejections.saturating_add(1);
        let time = rules.ejection.saturating_mul(self.ejections).min(rules.ejection_max);
        self.ejected = Some(Ejected { until: now + time, measure });
        time
    }

    /// Lets requests through again.
    pub(crate) fn readmit(&mut self, sums: Pace, now: Duration) {
        self.ejected = None;
        self.forget(sums, now);
    }

    /// Whether it gets no requests because it is slow.
    pub(crate) fn ejected(&self) -> Option<&Ejected> {
        self.ejected.as_ref()
    }
}

// === impl Measure ===

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 2] = [Self::InterToken, Self::FirstToken];

    /// Its name in logs, answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::InterToken => "inter_token",
            Self::FirstToken => "first_token",
        }
    }
}

#[cfg(test)]
mod tests;
