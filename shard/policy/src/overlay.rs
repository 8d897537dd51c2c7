//! What this shard placed a moment ago, for the time until the published tree knows it.
//!
//! A direct-mapped table from the rolling hash of a prefix to the worker that got it. A newer placement overwrites
//! an older one in the same slot: losing an entry costs affinity once, never correctness.

use fleet::blocks::chain;
use fleet::id::WorkerId;

/// Slots of the table, a power of two: 4,096 of 32 bytes, so it stays within a core's second-level cache.
const SLOTS: usize = 4096;
/// Prefixes remembered per placement at most; a longer placement is marked at even steps and at its end.
const MARKS_PER_PLACEMENT_MAX: usize = 64;
/// Seconds after which an entry is no longer believed: the published tree has it by then, or has evicted it.
const LIFETIME_TICKS: u32 = 5;

#[derive(Clone, Copy, Debug)]
struct Mark {
    prefix: u64,
    worker: WorkerId,
    /// The worker's epoch then: in a later one it holds nothing of this.
    epoch: u32,
    tick: u32,
}

#[derive(Debug)]
pub(crate) struct Overlay {
    marks: Box<[Option<Mark>]>,
}

impl Overlay {
    pub(crate) fn new() -> Self {
        Self { marks: vec![None; SLOTS].into_boxed_slice() }
    }

    /// The longest prefix of `blocks` longer than `known` blocks that was placed on an admissible worker lately.
    pub(crate) fn find(
        &self,
        blocks: &[u64],
        known: usize,
        tick: u32,
        mut admissible: impl FnMut(WorkerId, u32) -> bool,
    ) -> Option<(usize, WorkerId)> {
        if known >= blocks.len() {
            return None;
        }
        let mut prefix = blocks[..known].iter().fold(0, |prefix, &block| chain(prefix, block));
        let mut found = None;
        for (at, &block) in blocks.iter().enumerate().skip(known) {
            prefix = chain(prefix, block);
            if let Some(mark) = self.marks[slot(prefix)]
                && mark.prefix == prefix
                && tick.wrapping_sub(mark.tick) <= LIFETIME_TICKS
                && admissible(mark.worker, mark.epoch)
            {
                found = Some((at + 1, mark.worker));
            }
        }
        found
    }

    /// Remembers that `worker` got `blocks`, of which the published tree knows `known` already.
    pub(crate) fn place(
        &mut self,
        blocks: &[u64],
        known: usize,
        (worker, epoch): (WorkerId, u32),
        tick: u32,
    ) {
        let news = blocks.len().saturating_sub(known);
        let step = news.div_ceil(MARKS_PER_PLACEMENT_MAX).max(1);
        let mut prefix = 0;
        for (at, &block) in blocks.iter().enumerate() {
            prefix = chain(prefix, block);
            let is_last = at + 1 == blocks.len();
            if at >= known && ((at - known).is_multiple_of(step) || is_last) {
                self.marks[slot(prefix)] = Some(Mark { prefix, worker, epoch, tick });
            }
        }
    }
}

fn slot(prefix: u64) -> usize {
    (prefix >> 32) as usize % SLOTS
}

#[cfg(test)]
mod tests;
