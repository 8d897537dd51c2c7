//! The one place where a shard reads the clock.

use std::cell::Cell;
use std::time::Duration;
use std::time::Instant;

/// Time since the process started: exact when asked, and coarse (one tick old at most) for deadlines.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    coarse_ms: Cell<u64>,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        let clock = Self { start, coarse_ms: Cell::new(0) };
        clock.tick();
        clock
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    /// Microseconds since the start.
    pub(crate) fn since_start_us(&self, at: Instant) -> u64 {
        micros(self.start, at)
    }

    /// Refreshes the coarse time.
    pub(crate) fn tick(&self) {
        self.coarse_ms.set(self.now().duration_since(self.start).as_millis() as u64);
    }

    /// Milliseconds since the start, at most one tick old.
    pub(crate) fn coarse_ms(&self) -> u64 {
        self.coarse_ms.get()
    }

    /// Seconds since the start: the age unit of the prefix tree.
    pub(crate) fn coarse_seconds(&self) -> u32 {
        (self.coarse_ms.get() / 1000) as u32
    }

    /// The coarse time `after` from now.
    pub(crate) fn deadline_ms(&self, after: Duration) -> u64 {
        self.coarse_ms.get().saturating_add(after.as_millis() as u64)
    }
}

/// Microseconds from `from` to `to`.
pub(crate) fn micros(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_micros() as u64
}
