//! How the requests to one worker ended, and how its circuit breaker moved, over all shards.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::breaker::Circuit;
use crate::breaker::Outcome;
use crate::breaker::Transition;

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Outcomes {
    successes: AtomicU64,
    failures: AtomicU64,
    transitions: [AtomicU64; Outcomes::TRANSITIONS.len()],
}

impl Outcomes {
    /// Every move that a breaker can make.
    pub const TRANSITIONS: [Transition; 5] = [
        Transition { from: Circuit::Closed, to: Circuit::Open },
        Transition { from: Circuit::Open, to: Circuit::HalfOpen },
        Transition { from: Circuit::HalfOpen, to: Circuit::Closed },
        Transition { from: Circuit::HalfOpen, to: Circuit::Open },
        Transition { from: Circuit::Open, to: Circuit::Closed },
    ];

    /// Counts how one request ended.
    #[inline]
    pub fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.successes.fetch_add(1, Relaxed),
            Outcome::Failure => self.failures.fetch_add(1, Relaxed),
            Outcome::Neutral => 0,
        };
    }

    /// Counts a move of the breaker.
    pub fn count_transition(&self, transition: Transition) {
        if let Some(at) = Self::TRANSITIONS.iter().position(|known| *known == transition) {
            self.transitions[at].fetch_add(1, Relaxed);
        }
    }

    /// Requests that the worker did its part of.
    pub fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    /// Requests that it failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Every move with how often it was made.
    pub fn transitions(&self) -> impl Iterator<Item = (Transition, u64)> + '_ {
        Self::TRANSITIONS.iter().zip(&self.transitions).map(|(made, count)| (*made, count.load(Relaxed)))
    }
}
