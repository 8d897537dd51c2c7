//! Atomic cells: the only memory that two threads of the process write, or that one writes while another reads.
//!
//! Invariants
//! - A [`Counter`] has one writing thread; its readers may lag, and never see a torn value.
//! - What is said of a worker holds over all shards: its counts are shared additions, a few nanoseconds a request.

mod engine_load;
mod outcomes;
mod pace;
mod prefix_cache;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

pub use self::engine_load::EngineLoad;
use self::engine_load::EngineLoadCell;
pub use self::outcomes::Outcomes;
pub use self::pace::FIRST_PROMPT_BYTES_MAX;
pub use self::pace::Pace;
pub use self::pace::PaceCell;
pub use self::prefix_cache::PrefixCache;
use self::prefix_cache::PrefixCacheCell;
use crate::breaker::Breaker;
use crate::pressure::Pressure;

/// A number with one writing thread and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`. Only the owning thread may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets the value. Only the owning thread may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads the value; it may lag behind the writer.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A latency histogram with one writing thread. Bounds are shared by all histograms of the process.
#[derive(Debug)]
pub struct Histogram {
    bounds_us: Arc<[u64]>,
    buckets: Box<[Counter]>,
    sum_us: Counter,
}

impl Histogram {
    /// A histogram over upper bounds in microseconds, ascending; one more bucket takes what is above the last.
    pub fn new(bounds_us: Arc<[u64]>) -> Self {
        let buckets = (0..=bounds_us.len()).map(|_| Counter::default()).collect();
        Self { bounds_us, buckets, sum_us: Counter::default() }
    }

    /// Records one duration. Only the owning thread may call this.
    #[inline]
    pub fn record_us(&self, us: u64) {
        let bucket = self.bounds_us.iter().position(|&bound| us <= bound).unwrap_or(self.bounds_us.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Counts per bucket, not cumulative, one longer than the bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().map(Counter::get)
    }

    /// Sum of everything recorded, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// The upper bounds, in microseconds.
    pub fn bounds_us(&self) -> &[u64] {
        &self.bounds_us
    }
}

/// What shards and control share about one worker.
#[derive(Debug, Default)]
pub struct WorkerCells {
    in_flight: AtomicU32,
    failures_in_a_row: AtomicU32,
    /// Sticky keys that belong to it.
    keys: AtomicU32,
    /// Blocks of prompts that it is known to hold.
    held_blocks: AtomicU32,
    /// Counts the times that it lost everything it held.
    epoch: AtomicU32,
    engine_load: EngineLoadCell,
    breaker: Breaker,
    outcomes: Outcomes,
    pressure: Pressure,
    pace: PaceCell,
    prefix_cache: PrefixCacheCell,
}

impl WorkerCells {
    /// Counts one more request in flight.
    #[inline]
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request less, once per [`WorkerCells::begin`].
    #[inline]
    pub fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a request ends once");
    }

    /// Requests in flight over all shards.
    #[inline]
    pub fn load(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts blocks that the worker is about to hold.
    #[inline]
    pub fn gain_blocks(&self, blocks: u32) {
        self.held_blocks.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Says how many blocks the worker holds by the prefix tree. Only control may call this.
    pub fn set_held_blocks(&self, blocks: u64) {
        self.held_blocks.store(u32::try_from(blocks).unwrap_or(u32::MAX / 2), Ordering::Relaxed);
    }

    /// The worker has lost all that it held: what was placed on it before is there no more. Only control may call this.
    pub fn lose_blocks(&self) {
        self.held_blocks.store(0, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the worker has lost all that it held.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Blocks of prompts that the worker is known to hold.
    #[inline]
    pub fn held_blocks(&self) -> u32 {
        self.held_blocks.load(Ordering::Relaxed)
    }

    /// Counts a key that was assigned to this worker.
    pub fn gain_key(&self) {
        self.keys.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a key that this worker has no longer.
    pub fn lose_key(&self) {
        let less = |keys: u32| keys.checked_sub(1);
        let _ = self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Says how many keys this worker has, after a count.
    pub fn set_keys(&self, keys: u32) {
        self.keys.store(keys, Ordering::Relaxed);
    }

    /// Sticky keys that belong to this worker.
    pub fn keys(&self) -> u32 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Notes a transport failure and returns how many came in a row.
    pub fn fail(&self) -> u32 {
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a success: the row of failures ends. A store only when there is a row to end.
    #[inline]
    pub fn succeed(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Transport failures since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Ordering::Relaxed)
    }

    /// Whether requests may go to it.
    #[inline]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// How fast it computes.
    #[inline]
    pub fn pace(&self) -> &PaceCell {
        &self.pace
    }

    /// Until when it counts as full.
    #[inline]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// How requests to it ended, and how its breaker moved.
    #[inline]
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// What the engine last said it is busy with; none when it does not tell, or did not when it was last asked.
    #[inline]
    pub fn engine_load(&self) -> Option<EngineLoad> {
        self.engine_load.get()
    }

    /// What the engine last said of its prefix cache; none when it did not.
    pub fn prefix_cache(&self) -> Option<PrefixCache> {
        self.prefix_cache.get()
    }

    /// Sets what the engine says of its prefix cache. Only control may call this.
    pub fn set_prefix_cache(&self, said: Option<PrefixCache>) {
        self.prefix_cache.set(said);
    }

    /// Sets what the engine says, or that it says nothing. Only control may call this, once a second at most.
    pub fn set_engine_load(&self, load: Option<EngineLoad>) {
        self.engine_load.set(load);
    }
}

/// Where the process stands; written by control, read by every shard on its tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Running,
    /// Another process has taken over the listeners: no new connection is taken, each that is open is told to close
    /// with its next answer, and what is in flight goes on to its end.
    HandedOver,
    /// No new connection or request is taken; what is in flight goes on.
    Draining,
    /// Everything ends now.
    Stopping,
}

/// The shared cell that holds the [`Phase`].
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: AtomicU8,
    is_handed_over: AtomicBool,
}

impl Lifecycle {
    /// Moves to `phase`; a phase never moves backwards.
    pub fn advance(&self, phase: Phase) {
        if phase == Phase::HandedOver {
            self.is_handed_over.store(true, Ordering::Release);
        }
        self.phase.fetch_max(phase as u8, Ordering::Release);
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::HandedOver,
            2 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Whether another process has the listeners, whatever the phase is by now: they are not to be touched any more.
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_what_began_and_has_not_ended() {
        let cells = WorkerCells::default();
        cells.begin();
        cells.begin();
        cells.end();
        assert_eq!(cells.load(), 1);
    }

    #[test]
    fn keys_are_never_fewer_than_none() {
        let cells = WorkerCells::default();
        cells.lose_key();
        cells.gain_key();
        assert_eq!(cells.keys(), 1);
    }

    #[test]
    fn a_success_ends_the_row_of_failures() {
        let cells = WorkerCells::default();
        assert_eq!((cells.fail(), cells.fail()), (1, 2));
        cells.succeed();
        assert_eq!(cells.fail(), 1);
    }

    #[test]
    fn lifecycle_never_moves_backwards() {
        let lifecycle = Lifecycle::default();
        lifecycle.advance(Phase::Stopping);
        lifecycle.advance(Phase::Draining);
        assert_eq!(lifecycle.phase(), Phase::Stopping);
    }

    #[test]
    fn histogram_counts_by_upper_bound() {
        let histogram = Histogram::new(Arc::from([10, 100]));
        for us in [10, 11, 100, 101] {
            histogram.record_us(us);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(histogram.sum_us(), 222);
    }
}
