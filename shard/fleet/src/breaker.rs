//! The circuit breaker of one worker: one word that all shards change by compare-and-swap, so its thresholds hold for
//! the worker and not for each shard's view of it.
//!
//! ```text
//!            failures in a row                     pause over
//!   Closed ───────────────────▶ Open ───────────────────────────▶ HalfOpen
//!     ▲                          ▲             a probe failed        │ │
//!     │                          └───────────────────────────────────┘ │
//!     └────────────────────────────────────────────────────────────────┘
//!                               enough probes succeeded
//! ```
//!
//! Names, thresholds and order are SGLang's gateway's, with three things made right: what the client did wrong is no
//! failure of the worker, the window counts, and a half-open breaker lets only as many requests through as it needs
//! to judge by.
//!
//! Invariants
//! - A probe says nothing about another half-open period than its own, nor about a closed breaker; what a closed breaker
//!   let through says nothing about a half-open one.
//! - Probes in flight are never more than the successes that close the breaker.
//! - An open breaker closes by way of half-open only.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;

/// Highest threshold that a word can count to.
pub const THRESHOLD_MAX: u32 = (1 << COUNT_BITS) - 1;
/// Most probes at a time.
pub const PROBES_MAX: u32 = (1 << PROBE_BITS) - 1;

const COUNT_BITS: u32 = 14;
const PROBE_BITS: u32 = 8;
/// Milliseconds since the start: 34 years.
const TIME_BITS: u32 = 40;

/// When a breaker opens and closes (`--cb-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it, 1 to [`THRESHOLD_MAX`].
    pub failure_threshold: u32,
    /// Successful probes that close it, 1 to [`PROBES_MAX`]; as many are let through at a time.
    pub success_threshold: u32,
    /// How long it stays open, in milliseconds.
    pub open_ms: u64,
    /// How old the first failure of a row may be, in milliseconds: a later failure begins a new row.
    pub window_ms: u64,
}

/// Where a breaker stands. The number is the one that SGLang's gateway shows in its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Requests pass.
    Closed = 0,
    /// None does.
    Open = 1,
    /// Some do, to see how they fare.
    HalfOpen = 2,
}

/// What a request that was let through has to show when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    circuit: Circuit,
    /// Begin of the half-open period that it probes; 0 when the breaker was closed.
    since_ms: u64,
}

/// What a request showed about its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The worker did its part.
    Success,
    /// It did not: the connection, a 5xx other than 503, or a stall.
    Failure,
    /// Nothing: the client left or was wrong, or the worker is busy (429, 503).
    Neutral,
}

/// A change that others have to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Circuit,
    /// After.
    pub to: Circuit,
}

/// One breaker.
#[derive(Debug, Default)]
pub struct Breaker(AtomicU64);

/// The contents of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    circuit: Circuit,
    /// Closed: failures in a row. Half-open: successes.
    count: u32,
    /// Half-open: requests let through that have not ended.
    probes: u32,
    /// Closed: when the row of failures began. Else: when this period did.
    since_ms: u64,
}

// === impl Breaker ===

impl Breaker {
    /// Where it stands.
    #[inline]
    pub fn circuit(&self) -> Circuit {
        State::unpack(self.0.load(Acquire)).circuit
    }

    /// Failures in a row while closed; successful probes while half-open.
    pub fn count(&self) -> u32 {
        State::unpack(self.0.load(Acquire)).count
    }

    /// When an open breaker becomes half-open; none if it is not open.
    pub fn open_until_ms(&self, rules: &BreakerRules) -> Option<u64> {
        let state = State::unpack(self.0.load(Acquire));
        (state.circuit == Circuit::Open).then(|| state.since_ms + rules.open_ms)
    }

    /// Lets a request through, or does not. A closed breaker costs one load.
    #[inline]
    pub fn admit(&self, rules: &BreakerRules) -> Option<Pass> {
        if State::unpack(self.0.load(Acquire)).circuit == Circuit::Closed {
            return Some(Pass { circuit: Circuit::Closed, since_ms: 0 });
        }
        let (before, after) = self.change(|state| state.admitted(rules));
        if after.circuit == Circuit::Closed {
            // It closed in between.
            return Some(Pass { circuit: Circuit::Closed, since_ms: 0 });
        }
        (after != before).then_some(Pass { circuit: after.circuit, since_ms: after.since_ms })
    }

    /// Takes in how a request ended. A success on a closed breaker without failures costs one load.
    #[inline]
    pub fn judge(
        &self,
        pass: Pass,
        outcome: Outcome,
        now_ms: u64,
        rules: &BreakerRules,
    ) -> Option<Transition> {
        let state = State::unpack(self.0.load(Acquire));
        if state == state.judged(pass, outcome, now_ms, rules) {
            return None;
        }
        let (before, after) = self.change(|state| state.judged(pass, outcome, now_ms, rules));
        transition(before, after)
    }

    /// Takes back what was let through and showed nothing.
    pub fn release(&self, pass: Pass) {
        if pass.circuit == Circuit::HalfOpen {
            self.change(|state| state.released(pass));
        }
    }

    /// Makes an open breaker half-open when its time has come.
    pub fn tick(&self, now_ms: u64, rules: &BreakerRules) -> Option<Transition> {
        let (before, after) = self.change(|state| state.ticked(now_ms, rules));
        transition(before, after)
    }

    /// All of it but the probes in flight, for [`Breaker::restore`] in a process that counts time from the same moment.
    pub fn save(&self) -> u64 {
        State { probes: 0, ..State::unpack(self.0.load(Acquire)) }.pack()
    }

    /// Goes on where the breaker of another process was.
    pub fn restore(&self, saved: u64) {
        self.change(|_| State { probes: 0, ..State::unpack(saved) });
    }

    /// Closes it and forgets what it counted.
    pub fn reset(&self) -> Option<Transition> {
        let (before, after) = self.change(|_| State::CLOSED);
        transition(before, after)
    }

    fn change(&self, next: impl Fn(State) -> State) -> (State, State) {
        let mut word = self.0.load(Acquire);
        loop {
            let before = State::unpack(word);
            let after = next(before);
            if after == before {
                return (before, after);
            }
            match self.0.compare_exchange_weak(word, after.pack(), AcqRel, Acquire) {
                Ok(_) => return (before, after),
                Err(other) => word = other,
            }
        }
    }
}

fn transition(before: State, after: State) -> Option<Transition> {
    (before.circuit != after.circuit).then_some(Transition { from: before.circuit, to: after.circuit })
}

// === impl State ===

impl State {
    const CLOSED: Self = Self { circuit: Circuit::Closed, count: 0, probes: 0, since_ms: 0 };

    /// The state once one more request asks to be let through. Unchanged if it is not; a closed breaker, which lets
    /// all through, does not come here.
    fn admitted(self, rules: &BreakerRules) -> Self {
        match self.circuit {
            // As many as could still be needed, if all in flight succeed.
            Circuit::HalfOpen if self.count + self.probes < rules.success_threshold => {
                Self { probes: self.probes + 1, ..self }
            }
            Circuit::Closed | Circuit::Open | Circuit::HalfOpen => self,
        }
    }

    fn released(self, pass: Pass) -> Self {
        let is_probe = self.circuit == Circuit::HalfOpen && self.since_ms == pass.since_ms;
        if is_probe { Self { probes: self.probes.saturating_sub(1), ..self } } else { self }
    }

    fn judged(self, pass: Pass, outcome: Outcome, now_ms: u64, rules: &BreakerRules) -> Self {
        if outcome == Outcome::Neutral {
            return self.released(pass);
        }
        match (self.circuit, pass.circuit) {
            (Circuit::Closed, Circuit::Closed) => match outcome {
                Outcome::Neutral => self,
                Outcome::Success if self.count == 0 => self,
                Outcome::Success => Self::CLOSED,
                Outcome::Failure => self.failed(now_ms, rules),
            },
            (Circuit::HalfOpen, Circuit::HalfOpen) if self.since_ms == pass.since_ms => {
                let left = self.released(pass);
                match outcome {
                    Outcome::Neutral => left,
                    Outcome::Success if self.count + 1 >= rules.success_threshold => Self::CLOSED,
                    Outcome::Success => Self { count: self.count + 1, ..left },
                    // A shard's clock may be a little behind.
                    Outcome::Failure => Self::opened(now_ms.max(self.since_ms)),
                }
            }
            // Let through in another period: it says nothing about this one.
            _ => self,
        }
    }

    fn failed(self, now_ms: u64, rules: &BreakerRules) -> Self {
        let is_same_row = self.count > 0 && now_ms.saturating_sub(self.since_ms) <= rules.window_ms;
        let row = if is_same_row { self } else { Self { since_ms: now_ms, ..Self::CLOSED } };
        let count = row.count + 1;
        if count >= rules.failure_threshold { Self::opened(now_ms) } else { Self { count, ..row } }
    }

    fn opened(now_ms: u64) -> Self {
        Self { circuit: Circuit::Open, count: 0, probes: 0, since_ms: now_ms }
    }

    fn ticked(self, now_ms: u64, rules: &BreakerRules) -> Self {
        match self.circuit {
            Circuit::Open if now_ms >= self.since_ms + rules.open_ms => {
                // Later than the last period, so that its requests are told apart from this one's.
                Self {
                    circuit: Circuit::HalfOpen,
                    count: 0,
                    probes: 0,
                    since_ms: now_ms.max(self.since_ms + 1),
                }
            }
            Circuit::Closed | Circuit::Open | Circuit::HalfOpen => self,
        }
    }

    fn pack(self) -> u64 {
        let time = self.since_ms & ((1 << TIME_BITS) - 1);
        (self.circuit as u64) << (COUNT_BITS + PROBE_BITS + TIME_BITS)
            | u64::from(self.count) << (PROBE_BITS + TIME_BITS)
            | u64::from(self.probes) << TIME_BITS
            | time
    }

    fn unpack(word: u64) -> Self {
        let bits = |shift: u32, bits: u32| ((word >> shift) & ((1 << bits) - 1)) as u32;
        let circuit = match bits(COUNT_BITS + PROBE_BITS + TIME_BITS, 2) {
            0 => Circuit::Closed,
            1 => Circuit::Open,
            _ => Circuit::HalfOpen,
        };
        Self {
            circuit,
            count: bits(PROBE_BITS + TIME_BITS, COUNT_BITS),
            probes: bits(TIME_BITS, PROBE_BITS),
            since_ms: word & ((1 << TIME_BITS) - 1),
        }
    }
}

// === impl Circuit ===

impl Circuit {
    /// Its name in SGLang's metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

const _: () = assert!(2 + COUNT_BITS + PROBE_BITS + TIME_BITS == 64);

#[cfg(test)]
mod tests;
