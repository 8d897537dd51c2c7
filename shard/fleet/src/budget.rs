//! How many retries the whole gateway may make, so that an outage of the fleet is not multiplied by its rescue.
//!
//! Every request adds a share of one retry to the budget; a retry that puts work on a worker again takes one out. In
//! quiet times the budget is full and costs a load per request. A trickle flows in whatever the traffic, so that a
//! gateway with few requests may retry too (as in Finagle's and linkerd's budgets).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;

/// Parts that one retry is counted in.
const PARTS: u64 = 100;
/// Most that is saved up: a burst of a hundred retries.
const PARTS_MAX: u64 = 100 * PARTS;
/// Retries that flow in each second without any request.
pub const TRICKLE_PER_S: u64 = 10;
/// Milliseconds since the start take the upper bits.
const PARTS_BITS: u32 = 24;

/// The budget; one for all shards.
#[derive(Debug)]
pub struct RetryBudget {
    /// Retries per hundred requests.
    percent: AtomicU64,
    /// When the trickle was last counted in, and the parts there are.
    word: AtomicU64,
}

impl RetryBudget {
    /// A full budget, to which every request adds `percent` hundredths of a retry.
    pub fn new(percent: u32) -> Self {
        Self { percent: AtomicU64::new(u64::from(percent)), word: AtomicU64::new(PARTS_MAX) }
    }

    /// Changes what requests add from now on.
    pub fn set_percent(&self, percent: u32) {
        self.percent.store(u64::from(percent), Relaxed);
    }

    /// Adds a request's share.
    #[inline]
    pub fn deposit(&self) {
        if unpack(self.word.load(Acquire)).1 < PARTS_MAX {
            let percent = self.percent.load(Relaxed);
            self.change(|at_ms, parts| Some((at_ms, (parts + percent).min(PARTS_MAX))));
        }
    }

    /// Takes one retry out; false when there is none left.
    pub fn withdraw(&self, now_ms: u64) -> bool {
        self.change(|at_ms, parts| {
            // Another shard's clock may be a little ahead.
            let now_ms = now_ms.max(at_ms);
            let trickle = (now_ms - at_ms).min(PARTS_MAX) * TRICKLE_PER_S * PARTS / 1_000;
            let parts = (parts + trickle).min(PARTS_MAX);
            parts.checked_sub(PARTS).map(|left| (now_ms, left))
        })
    }

    /// Whole retries that are left, without the trickle since the last one.
    pub fn left(&self) -> u64 {
        unpack(self.word.load(Acquire)).1 / PARTS
    }

    fn change(&self, next: impl Fn(u64, u64) -> Option<(u64, u64)>) -> bool {
        let mut word = self.word.load(Acquire);
        loop {
            let (at_ms, parts) = unpack(word);
            let Some((at_ms, parts)) = next(at_ms, parts) else { return false };
            match self.word.compare_exchange_weak(word, at_ms << PARTS_BITS | parts, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
    }
}

fn unpack(word: u64) -> (u64, u64) {
    (word >> PARTS_BITS, word & ((1 << PARTS_BITS) - 1))
}

const _: () = assert!(PARTS_MAX + 100 * PARTS < 1 << PARTS_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &RetryBudget, now_ms: u64) -> usize {
        std::iter::repeat_with(|| budget.withdraw(now_ms)).take_while(|&may| may).count()
    }

    #[test]
    fn a_share_of_the_requests_may_be_retried() {
        let budget = RetryBudget::new(20);
        assert_eq!(spend(&budget, 0), 100);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget, 0), 100, "never more than the burst");
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget, 0), 10);
    }

    #[test]
    fn a_trickle_flows_in() {
        let budget = RetryBudget::new(0);
        assert_eq!(spend(&budget, 0), 100);
        assert_eq!(spend(&budget, 1_000), 10);
        assert_eq!(spend(&budget, 1_050), 0);
        assert_eq!(spend(&budget, 1_100), 1, "what is too little to spend is not lost");
        assert_eq!(spend(&budget, 1_000_000), 100);
    }

    #[test]
    fn threads_spend_no_more_than_there_is() {
        let budget = RetryBudget::new(20);
        let spent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| spend(&budget, 0))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(spent, 100);
    }
}
