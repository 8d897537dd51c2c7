//! Back-pressure: a worker that answers that it is busy counts as full for a moment, so that the quickness of its refusals
//! does not make it look idle.
//!
//! Full is a mark on the worker's boards ([`Board::set_full`](crate::board::Board::set_full)): whoever goes by load
//! passes it over as long as somebody else is not full, and when everybody is, loads decide as before.
//!
//! Invariants
//! - Whoever finds a worker not marked and marks it lets it off again: one thread a worker, so a mark is never left behind.
//! - A mark may go a little early, when a worker is marked again in the moment that it is let off: the next refusal sets
//!   it again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::id::WorkerId;
use crate::snapshot::Worker;

/// How long a worker counts as full that does not say for how long it is; twice as long each time in a row.
const FIRST_MS: u64 = 250;
/// Doublings at most: four seconds.
const DOUBLINGS_MAX: u64 = 4;
/// Longest time that a worker's `Retry-After` is believed.
const RETRY_AFTER_MS_MAX: u64 = 60_000;

/// Until when a worker is full, and how often in a row it said so: one word that all shards change by compare-and-swap.
#[derive(Debug, Default)]
pub struct Pressure(AtomicU64);

/// The contents of the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// 0 when it is not full.
    until_ms: u64,
    /// Times that it was found to be full since it last did what it was asked, at most [`ROW_MAX`].
    row: u64,
}

const ROW_BITS: u32 = 8;
const ROW_MAX: u64 = (1 << ROW_BITS) - 1;

/// The workers that one thread has marked as full, and will let off.
#[derive(Debug, Default)]
pub struct FullWorkers(Vec<Arc<Worker>>);

// === impl Pressure ===

impl Pressure {
    /// Whether the worker counts as full.
    #[cfg(test)]
    fn is_full(&self) -> bool {
        State::unpack(self.0.load(Acquire)).until_ms != 0
    }

    /// The worker did what it was asked: if it is full again, that is the first time. A store only when there is
    /// something to forget.
    #[inline]
    pub fn ease(&self) {
        let word = self.0.load(Relaxed);
        if word != 0 && State::unpack(word).until_ms == 0 {
            // Somebody who marks it at this moment may do so for a little longer.
            let _ = self.0.compare_exchange(word, 0, AcqRel, Relaxed);
        }
    }

    /// Has the worker be full until `now_ms` and `retry_after`, or some time that grows. True for whoever has to let it
    /// off. `mark` is called before the word says so.
    fn press(&self, retry_after: Duration, now_ms: u64, mark: impl Fn()) -> bool {
        let mut word = self.0.load(Acquire);
        loop {
            mark();
            let before = State::unpack(word);
            let after = before.pressed(retry_after, now_ms);
            match self.0.compare_exchange(word, after.pack(), AcqRel, Acquire) {
                Ok(_) => return before.until_ms == 0,
                Err(other) => word = other,
            }
        }
    }

    /// Has the worker be full no more if its time is over, or in any case; true if it is not any more.
    fn let_off(&self, now_ms: u64, in_any_case: bool) -> bool {
        let word = self.0.load(Acquire);
        let state = State::unpack(word);
        if state.until_ms > now_ms && !in_any_case {
            return false;
        }
        // Who extends it in this moment is seen the next time.
        self.0.compare_exchange(word, State { until_ms: 0, ..state }.pack(), AcqRel, Relaxed).is_ok()
    }
}

// === impl State ===

impl State {
    fn pressed(self, retry_after: Duration, now_ms: u64) -> Self {
        // What was asked before it was found to be full says nothing new.
        let row = if self.until_ms == 0 { (self.row + 1).min(ROW_MAX) } else { self.row };
        let grown_ms = FIRST_MS << row.saturating_sub(1).min(DOUBLINGS_MAX);
        let asked_ms = retry_after.as_millis().min(u128::from(RETRY_AFTER_MS_MAX)) as u64;
        let pause_ms = if asked_ms == 0 { grown_ms } else { asked_ms };
        Self { until_ms: self.until_ms.max(now_ms + pause_ms), row }
    }

    fn pack(self) -> u64 {
        self.until_ms << ROW_BITS | self.row
    }

    fn unpack(word: u64) -> Self {
        Self { until_ms: word >> ROW_BITS, row: word & ROW_MAX }
    }
}

// === impl FullWorkers ===

impl FullWorkers {
    /// `worker` answered that it is busy, and asked to be left alone for `retry_after` (zero if it did not say).
    pub fn press(&mut self, worker: &Arc<Worker>, retry_after: Duration, now_ms: u64) {
        let mark = || worker.set_full(true);
        if worker.cells.pressure().press(retry_after, now_ms, mark) {
            // One entry a worker over all threads: as many as there are workers at most.
            self.0.push(Arc::clone(worker));
        }
    }

    /// Lets off whose time is over, and who has left.
    pub fn let_off(&mut self, now_ms: u64, is_registered: impl Fn(WorkerId) -> bool) {
        self.0.retain(|worker| {
            let is_off = worker.cells.pressure().let_off(now_ms, !is_registered(worker.id));
            if is_off {
                worker.set_full(false);
            }
            !is_off
        });
    }

    /// Whether there is nobody to let off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(pressure: &Pressure, retry_after_s: u64, now_ms: u64) -> bool {
        pressure.press(Duration::from_secs(retry_after_s), now_ms, || {})
    }

    /// The first moment after `now_ms` at which it is let off.
    fn ends(pressure: &Pressure, now_ms: u64) -> u64 {
        (now_ms..).find(|&at_ms| pressure.let_off(at_ms, false)).expect("it ends")
    }

    #[test]
    fn a_pause_grows_until_the_worker_does_something() {
        let pressure = Pressure::default();
        let mut now_ms = 7;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(press(&pressure, 0, now_ms));
            assert!(pressure.is_full());
            let end_ms = ends(&pressure, now_ms);
            assert!(!pressure.is_full());
            pauses.push(end_ms - now_ms);
            now_ms = end_ms;
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        pressure.ease();
        press(&pressure, 0, now_ms);
        assert_eq!(ends(&pressure, now_ms), now_ms + 250);
    }

    #[test]
    fn what_was_asked_before_makes_no_row_and_extends() {
        let pressure = Pressure::default();
        assert!(press(&pressure, 0, 0));
        assert!(!press(&pressure, 0, 100), "one lets it off");
        pressure.ease();
        assert_eq!(ends(&pressure, 0), 350, "a success that was under way changes nothing");
        assert!(press(&pressure, 0, 350));
        assert_eq!(ends(&pressure, 350), 850, "the second time in a row");
    }

    #[test]
    fn retry_after_is_kept_to_within_reason() {
        let pressure = Pressure::default();
        press(&pressure, 3, 0);
        assert_eq!(ends(&pressure, 0), 3_000);
        press(&pressure, 86_400, 3_000);
        assert_eq!(ends(&pressure, 3_000), 63_000);
        press(&pressure, 86_400, 63_000);
        assert!(pressure.let_off(63_001, true), "it has left");
    }

    #[test]
    fn with_many_threads_one_lets_it_off_each_time() {
        let pressure = Pressure::default();
        let marks = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut is_mine = false;
                    for at_ms in 0..20_000 {
                        is_mine |= pressure.press(Duration::ZERO, at_ms, || {
                            marks.store(true, std::sync::atomic::Ordering::Release)
                        });
                        // As if its time were over.
                        while is_mine && pressure.let_off(at_ms, true) {
                            marks.store(false, std::sync::atomic::Ordering::Release);
                            is_mine = false;
                        }
                    }
                    while is_mine {
                        if pressure.let_off(20_000, true) {
                            marks.store(false, std::sync::atomic::Ordering::Release);
                            is_mine = false;
                        }
                    }
                });
            }
        });
        assert!(!pressure.is_full());
        assert!(!marks.load(Acquire), "a mark is left behind");
    }
}
