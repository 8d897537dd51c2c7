//! Polls of what engines are busy with: which endpoints are asked, when each worker is due, and what came of it.
//!
//! Every worker has its own moment in the interval, given by its index, so that polls of a large fleet come one by
//! one and not in bursts.

use std::time::Duration;

use engine::incarnation::Incarnation;
use engine::incarnation::Marks;
use engine::load::EngineLoad;
use engine::metadata::Dialect;
use engine::metrics::PrefixCache;

/// Polls after which endpoints that were not there are looked for again.
const POLLS_UNTIL_RETRY: u32 = 30;
/// The golden ratio's fraction in 32 bits: its multiples spread over the interval evenly, however many there are.
const GOLDEN: u32 = 0x9e37_79b9;

/// Paths that tell the load as JSON, the richest first.
pub(crate) const LOAD_PATHS: &[&str] = &["/v1/loads", "/get_load"];
/// Path of the metrics page.
pub(crate) const METRICS_PATHS: &[&str] = &["/metrics"];
/// Paths that show what an engine drew at its start.
pub(crate) const IDENTITY_PATHS: &[&str] = &["/server_info", "/get_server_info"];

/// Where a worker answers one question, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody has looked.
    Untried,
    /// At this one of the paths.
    At(usize),
    /// At none of them.
    Nowhere,
}

/// Where a worker tells its load, and by what its process can be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// JSON about its load.
    pub load: Place,
    /// The metrics page.
    pub metrics: Place,
    /// What it drew at its start; asked for only when there is no metrics page.
    pub identity: Place,
}

/// What came of a poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Polled {
    /// What the engine is busy with; none when it did not say.
    pub load: Option<EngineLoad>,
    /// By what its process is recognised; none when it did not say.
    pub marks: Option<Marks>,
    /// How well its prefix cache does; none when it did not say.
    pub prefix: Option<PrefixCache>,
    /// Where it answered.
    pub endpoints: Endpoints,
}

/// The polls of one worker.
#[derive(Debug)]
pub(crate) struct Polling {
    /// When it is polled next; changed through the registry alone.
    pub(crate) due: Option<Duration>,
    /// Whether services have a poll of it.
    pub(crate) is_under_way: bool,
    pub(crate) endpoints: Endpoints,
    pub(crate) incarnation: Incarnation,
    polls: u32,
}

// === impl Endpoints ===

impl Endpoints {
    /// Where to look for what an engine of this dialect tells.
    pub fn of(dialect: Dialect) -> Self {
        let json = if dialect == Dialect::Sglang { Place::Untried } else { Place::Nowhere };
        Self { load: json, metrics: Place::Untried, identity: json }
    }
}

// === impl Polled ===

impl Polled {
    /// A poll that came to nothing.
    pub(crate) fn failed(endpoints: Endpoints) -> Self {
        Self { load: None, marks: None, prefix: None, endpoints }
    }
}

// === impl Polling ===

impl Polling {
    pub(crate) fn new() -> Self {
        Self {
            due: None,
            is_under_way: false,
            endpoints: Endpoints::of(Dialect::default()),
            incarnation: Incarnation::default(),
            polls: 0,
        }
    }

    /// Begins a poll and says which endpoints to ask.
    pub(crate) fn begin(&mut self, dialect: Dialect) -> Endpoints {
        assert!(!self.is_under_way, "a worker has one poll under way at most");
        self.is_under_way = true;
        if self.polls.is_multiple_of(POLLS_UNTIL_RETRY) {
            self.endpoints = Endpoints::of(dialect);
        }
        self.polls = self.polls.wrapping_add(1);
        self.endpoints
    }

    /// Has the endpoints looked for again with the next poll.
    pub(crate) fn look_again(&mut self) {
        self.polls = 0;
    }
}

/// The next moment of the worker with this index: after `now`, and within `interval` of it.
pub(crate) fn next_moment(index: u32, interval: Duration, now: Duration) -> Duration {
    let nanos = interval.as_nanos().max(1);
    let share = u128::from(index.wrapping_mul(GOLDEN));
    let phase = (nanos * share) >> 32;
    let now = now.as_nanos();
    // The moments are at `phase`, `phase + nanos`, …
    let passed = if now < phase { 0 } else { (now - phase) / nanos + 1 };
    Duration::from_nanos(u64::try_from(phase + passed * nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn moments_come_once_an_interval() {
        for index in [0, 1, 2, 9_999, u32::MAX] {
            let first = next_moment(index, INTERVAL, Duration::ZERO);
            assert!(first <= INTERVAL);
            assert_eq!(next_moment(index, INTERVAL, first), first + INTERVAL);
            let late = first + INTERVAL * 3 + Duration::from_secs(1);
            assert_eq!(next_moment(index, INTERVAL, late), first + INTERVAL * 4);
        }
    }

    #[test]
    fn a_fleet_of_any_size_is_spread_evenly() {
        for workers in [10, 1_000, 10_000] {
            let mut tenths = [0; 10];
            for index in 0..workers {
                let moment = next_moment(index, INTERVAL, Duration::ZERO);
                tenths[(moment.as_millis() / 1000) as usize % 10] += 1;
            }
            let even = workers / 10;
            assert!(tenths.iter().all(|&tenth| tenth + 2 >= even && tenth <= even + 2), "{tenths:?}");
        }
    }

    #[test]
    fn endpoints_that_were_not_there_are_looked_for_again() {
        let mut polling = Polling::new();
        let asked = polling.begin(Dialect::Sglang);
        assert_eq!(asked, Endpoints::of(Dialect::Sglang));
        let learnt = Endpoints { load: Place::At(1), metrics: Place::Nowhere, identity: Place::Nowhere };
        for _ in 1..POLLS_UNTIL_RETRY {
            polling.is_under_way = false;
            polling.endpoints = learnt;
            assert_eq!(polling.begin(Dialect::Sglang), learnt);
        }
        polling.is_under_way = false;
        assert_eq!(polling.begin(Dialect::Sglang), asked);
    }
}
