//! The token bucket of request starts: one atomic word, exact over all shards and in the long run.
//!
//! The generic cell rate algorithm, in units in which one start costs [`START`] and a microsecond brings as many as
//! there are starts per second: no division, so nothing is rounded.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What one start costs.
const START: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Bucket {
    /// When, in units, the bucket is full again.
    full_at: AtomicU64,
    starts_per_s: u64,
    /// What a full bucket holds, in units.
    capacity: u64,
}

impl Bucket {
    /// A full bucket of `burst` starts.
    pub(super) fn new(starts_per_s: NonZeroU32, burst: u32) -> Self {
        Self {
            full_at: AtomicU64::new(0),
            starts_per_s: u64::from(starts_per_s.get()),
            capacity: u64::from(burst) * START,
        }
    }

    /// A bucket with other settings, as far from full as this one is at `now_us`: a change gives nobody a fresh burst.
    pub(super) fn successor(&self, starts_per_s: NonZeroU32, burst: u32, now_us: u64) -> Self {
        let next = Self::new(starts_per_s, burst);
        let owed = self.full_at.load(Relaxed).saturating_sub(now_us.saturating_mul(self.starts_per_s));
        let full_at = now_us.saturating_mul(next.starts_per_s) + owed.min(next.capacity);
        next.full_at.store(full_at, Relaxed);
        next
    }

    /// Whether it goes by these settings.
    pub(super) fn is_as(&self, starts_per_s: NonZeroU32, burst: u32) -> bool {
        self.starts_per_s == u64::from(starts_per_s.get()) && self.capacity == u64::from(burst) * START
    }

    /// Takes one start.
    ///
    /// # Errors
    /// When the next one is there, in microseconds of the clock that `now_us` is from.
    pub(super) fn take(&self, now_us: u64) -> Result<(), u64> {
        let now = now_us.saturating_mul(self.starts_per_s);
        let taken = |full_at: u64| {
            let next = full_at.max(now) + START;
            (next - now <= self.capacity).then_some(next)
        };
        match self.full_at.fetch_update(Relaxed, Relaxed, taken) {
            Ok(_) => Ok(()),
            Err(full_at) => {
                Err((full_at.max(now) + START).saturating_sub(self.capacity).div_ceil(self.starts_per_s))
            }
        }
    }

    /// Puts back a start that was taken and not used.
    pub(super) fn put_back(&self) {
        self.full_at.fetch_sub(START, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(starts_per_s: u32, burst: u32) -> Bucket {
        Bucket::new(NonZeroU32::new(starts_per_s).expect("above 0"), burst)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let bucket = bucket(3, 2);
        assert_eq!((bucket.take(0), bucket.take(0)), (Ok(()), Ok(())));
        let due_us = bucket.take(0).expect_err("empty");
        assert_eq!(due_us, 333_334);
        assert_eq!(bucket.take(due_us - 1), Err(due_us));
        assert_eq!(bucket.take(due_us), Ok(()));
    }

    #[test]
    fn over_a_minute_not_one_start_is_gained_or_lost() {
        for starts_per_s in [1, 3, 7, 997] {
            let bucket = bucket(starts_per_s, 5);
            let end_us = 60_000_000;
            let (mut now_us, mut starts) = (0, 0);
            while now_us <= end_us {
                match bucket.take(now_us) {
                    Ok(()) => starts += 1,
                    Err(due_us) => now_us = due_us,
                }
            }
            assert_eq!(starts, 5 + u64::from(starts_per_s) * 60);
        }
    }

    #[test]
    fn rest_fills_it_no_further_than_full() {
        let bucket = bucket(10, 3);
        let taken = (0..10).filter(|_| bucket.take(3_600_000_000).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn what_is_put_back_can_be_taken() {
        let bucket = bucket(1, 1);
        assert_eq!(bucket.take(5_000_000), Ok(()));
        bucket.put_back();
        assert_eq!(bucket.take(5_000_000), Ok(()));
        assert_eq!(bucket.take(5_000_000), Err(6_000_000));
    }

    #[test]
    fn a_change_of_rate_keeps_what_was_taken() {
        let before = bucket(1, 4);
        (0..3).for_each(|_| assert_eq!(before.take(5_000_000), Ok(())));
        let after = before.successor(NonZeroU32::new(10).expect("above 0"), 4, 5_000_000);
        assert_eq!(after.take(5_000_000), Ok(()), "one was left");
        assert_eq!(after.take(5_000_000), Err(5_100_000), "and the next comes at the new rate");
        let smaller = before.successor(NonZeroU32::new(1).expect("above 0"), 1, 5_000_000);
        assert_eq!(smaller.take(5_000_000), Err(6_000_000));
    }
}
