//! The cell that holds what an engine last said it is busy with: one writing thread, any number of readers, no lock.
//!
//! Invariants
//! - A reader sees numbers of one moment or nothing: both words carry the moment, and it must agree.
//! - What is unknown stays unknown: it is never read as zero.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What an engine is busy with, as it last said. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLoad {
    /// Tokens in use, those of waiting requests included where the engine counts them.
    pub tokens: Option<u32>,
    /// Requests it computes.
    pub running: Option<u32>,
    /// Requests that wait at the engine.
    pub waiting: Option<u32>,
    /// Taken part of its KV cache, in thousandths.
    pub kv_used_permille: Option<u16>,
    /// When it said so, in seconds since the start of the process.
    pub at_s: u32,
}

/// First word of an unknown load; the second then says nothing.
const UNKNOWN: u64 = u64::MAX;
/// Largest `at_s`: one less than what an unknown load has there.
const AT_S_MAX: u32 = u32::MAX - 1;
/// Reads until one is untorn. The writer comes by once in seconds, so a second try all but always does.
const READS_MAX: usize = 4;

/// ```text
/// first:  at_s 32 | tokens 32
/// second: tag 14  | kv_used 10 | waiting 20 | running 20
/// ```
/// A field of ones is unknown. The tag is the low bits of `at_s`; control sets a load once a second at most, so two
/// loads that stand in the words one after the other differ in it.
#[derive(Debug)]
pub(super) struct EngineLoadCell {
    first: AtomicU64,
    second: AtomicU64,
}

impl Default for EngineLoadCell {
    fn default() -> Self {
        Self { first: AtomicU64::new(UNKNOWN), second: AtomicU64::new(UNKNOWN) }
    }
}

impl EngineLoadCell {
    #[inline]
    pub(super) fn get(&self) -> Option<EngineLoad> {
        for _ in 0..READS_MAX {
            let (first, second) = (self.first.load(Ordering::Acquire), self.second.load(Ordering::Acquire));
            if first == UNKNOWN {
                return None;
            }
            let load = unpack(first, second);
            if tag(load.at_s) == second >> 50 {
                return Some(load);
            }
        }
        None
    }

    pub(super) fn set(&self, load: Option<EngineLoad>) {
        let Some(load) = load else { return self.first.store(UNKNOWN, Ordering::Release) };
        let (first, second) = pack(load);
        self.second.store(second, Ordering::Release);
        self.first.store(first, Ordering::Release);
    }
}

fn pack(load: EngineLoad) -> (u64, u64) {
    let field = |number: Option<u32>, bits: u32| {
        let ones = (1 << bits) - 1;
        number.map_or(ones, |number| u64::from(number).min(ones - 1))
    };
    let at_s = load.at_s.min(AT_S_MAX);
    let first = u64::from(at_s) << 32 | field(load.tokens, 32);
    let kv_used = field(load.kv_used_permille.map(|used| u32::from(used.min(1000))), 10);
    let second = tag(at_s) << 50 | kv_used << 40 | field(load.waiting, 20) << 20 | field(load.running, 20);
    (first, second)
}

fn unpack(first: u64, second: u64) -> EngineLoad {
    let field = |word: u64, bits: u32| {
        let ones = (1 << bits) - 1;
        let number = word & ones;
        (number != ones).then_some(number as u32)
    };
    EngineLoad {
        tokens: field(first, 32),
        running: field(second, 20),
        waiting: field(second >> 20, 20),
        kv_used_permille: field(second >> 40, 10).map(|used| used as u16),
        at_s: (first >> 32) as u32,
    }
}

fn tag(at_s: u32) -> u64 {
    u64::from(at_s) & 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(load: EngineLoad, expect: EngineLoad) {
        let cell = EngineLoadCell::default();
        assert_eq!(cell.get(), None);
        cell.set(Some(load));
        assert_eq!(cell.get(), Some(expect));
        cell.set(None);
        assert_eq!(cell.get(), None);
    }

    #[test]
    fn a_load_comes_back_as_it_was_set() {
        let load = EngineLoad {
            tokens: Some(123_456_789),
            running: Some(1000),
            waiting: Some(0),
            kv_used_permille: Some(1000),
            at_s: 0x0012_3456,
        };
        check(load, load);
        let silent =
            EngineLoad { tokens: None, running: None, waiting: None, kv_used_permille: None, at_s: 0 };
        check(silent, silent);
        // The moment whose tag is all ones, with nothing else to tell its word from ones.
        let counts_tokens = EngineLoad { tokens: Some(0), at_s: 0x3fff, ..silent };
        check(counts_tokens, counts_tokens);
    }

    #[test]
    fn what_is_too_large_is_the_largest_and_not_unknown() {
        let load = EngineLoad {
            tokens: Some(u32::MAX),
            running: Some(u32::MAX),
            waiting: Some(u32::MAX),
            kv_used_permille: Some(u16::MAX),
            at_s: u32::MAX,
        };
        let expect = EngineLoad {
            tokens: Some(u32::MAX - 1),
            running: Some((1 << 20) - 2),
            waiting: Some((1 << 20) - 2),
            kv_used_permille: Some(1000),
            at_s: u32::MAX - 1,
        };
        check(load, expect);
    }

    #[test]
    fn readers_never_see_two_moments_at_once() {
        const MOMENTS: u32 = 20_000;
        let cell = EngineLoadCell::default();
        let load = |at_s: u32| EngineLoad {
            tokens: Some(at_s),
            running: Some(at_s),
            waiting: Some(at_s),
            kv_used_permille: None,
            at_s,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..=MOMENTS).for_each(|at_s| cell.set(Some(load(at_s)))));
            scope.spawn(|| {
                loop {
                    match cell.get() {
                        Some(seen) if seen.at_s == MOMENTS => break,
                        Some(seen) => assert_eq!(seen, load(seen.at_s)),
                        None => std::thread::yield_now(),
                    }
                }
            });
        });
    }
}
