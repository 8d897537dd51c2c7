//! How much every worker of a pool has to do, and which of them has least: one number per worker that all shards
//! write, under a tree of minima.
//!
//! Claiming or releasing a worker costs one atomic addition and, when the minimum of its group changed, a store per
//! level; finding the least costs a few cache lines, whatever the number of workers (a tournament tree with sixteen
//! children per node).
//!
//! Invariants
//! - A leaf is the sum of what was added and not yet taken back. Whoever takes back knows what it added.
//! - A leaf of a worker that may not be chosen carries [`ABSENT`], which no sum reaches: it is never the least.
//! - A leaf of a worker that counts as full carries [`FULL`], which no sum reaches either: it is above all that are not.
//! - When all writers have come to rest, every minimum is that of its children. Until then it may be older, so a
//!   choice is a little late and never wrong: whoever is chosen was present and light a moment ago.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;

/// Cost of one request on a worker of weight one, so that weights up to 16 each way keep whole numbers.
pub const REQUEST_COST: u32 = 256;
/// Set in the leaf of a worker that may not be chosen.
pub const ABSENT: u32 = 1 << 31;
/// Set in the leaf of a worker that counts as full, and part of its cost: more than any other has to do.
pub const FULL: u32 = 1 << 30;
/// What is added up of a leaf.
const SUM: u32 = FULL - 1;
/// Workers a board can tell apart, by index in the fleet.
pub const WORKERS_MAX: u32 = (FAN * FAN * FAN * FAN) as u32;

/// Children of a node: sixteen numbers are one cache line.
const FAN: usize = 16;
/// Leaves of a chunk, the unit of allocation.
const CHUNK: usize = FAN * FAN;

/// What a leaf of a board adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Requests in flight, each [`REQUEST_COST`] over the worker's weight.
    Requests,
    /// Prompt in flight in steps of [`PROMPT_STEP_BYTES`], over the worker's weight.
    PromptBytes,
    /// Work ahead in [`WORK_UNITS_PER_S`], over the worker's weight.
    Work,
}

/// Units of [`Unit::Work`] in a second. Coarse enough that 10,000 prompts of the most that one counts as fit a leaf.
pub const WORK_UNITS_PER_S: u32 = 1_000;
/// Steps of [`Unit::PromptBytes`]: prompts are looked at up to 512 KiB, so 8,000 of them fit a leaf at any weight.
pub const PROMPT_STEP_BYTES: u32 = 64;

/// The costs of one pool's workers. One lives as long as its model name, over all publications.
#[derive(Debug)]
pub struct Board {
    unit: Unit,
    /// Minima over 4,096 leaves each.
    top: [AtomicU32; FAN],
    /// Minima over the chunks.
    middle: [AtomicU32; CHUNK],
    chunks: [OnceLock<Box<Chunk>>; CHUNK],
    /// Sum over all workers, absent ones included until their last request ends.
    total: AtomicU64,
    /// Workers that may be chosen.
    present: AtomicU32,
    /// How often anybody came to be present.
    arrivals: AtomicU64,
    /// Where the next search for the least begins, so that equals take turns.
    cursor: AtomicU32,
}

#[derive(Debug)]
struct Chunk {
    leaves: [AtomicU32; CHUNK],
    /// Minima over 16 leaves each.
    minima: [AtomicU32; FAN],
}

/// The least of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Least {
    /// Index of the worker in the fleet.
    pub index: u32,
    /// Its cost when it was looked at.
    pub cost: u32,
}

// === impl Board ===

impl Board {
    /// A board on which nobody is present.
    pub fn new(unit: Unit) -> Self {
        Self {
            unit,
            top: [const { AtomicU32::new(ABSENT) }; FAN],
            middle: [const { AtomicU32::new(ABSENT) }; CHUNK],
            chunks: [const { OnceLock::new() }; CHUNK],
            total: AtomicU64::new(0),
            present: AtomicU32::new(0),
            arrivals: AtomicU64::new(0),
            cursor: AtomicU32::new(0),
        }
    }

    /// What it adds up.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Says whether worker `index` may be chosen. One thread calls this.
    pub fn set_present(&self, index: u32, is_present: bool) {
        if is_present && self.cost(index).is_none() {
            // Before it can be seen, so that who sees it knows of an arrival.
            self.arrivals.fetch_add(1, SeqCst);
        }
        let (chunk, at) = split(index);
        let leaf = &self.chunks[chunk].get_or_init(Chunk::boxed).leaves[at];
        let before = if is_present { leaf.fetch_and(!ABSENT, SeqCst) } else { leaf.fetch_or(ABSENT, SeqCst) };
        if (before & ABSENT == 0) != is_present {
            let change = if is_present { 1 } else { u32::MAX };
            self.present.fetch_add(change, Relaxed);
            self.settle(chunk, at);
        }
    }

    /// Says whether worker `index` counts as full: others are lighter, whatever they have to do.
    pub fn set_full(&self, index: u32, is_full: bool) {
        let (chunk, at) = split(index);
        let leaf = &self.chunks[chunk].get_or_init(Chunk::boxed).leaves[at];
        let before = if is_full { leaf.fetch_or(FULL, SeqCst) } else { leaf.fetch_and(!FULL, SeqCst) };
        if (before & FULL != 0) != is_full {
            self.settle(chunk, at);
        }
    }

    /// Adds `cost` to worker `index`.
    #[inline]
    pub fn add(&self, index: u32, cost: u32) {
        let (chunk, at) = split(index);
        let leaf = &self.chunks[chunk].get_or_init(Chunk::boxed).leaves[at];
        let before = leaf.fetch_add(cost, SeqCst);
        debug_assert!((before & SUM) + cost <= SUM, "the units leave room for any load");
        self.total.fetch_add(u64::from(cost), Relaxed);
        self.settle(chunk, at);
    }

    /// Takes back what was added to worker `index`.
    #[inline]
    pub fn sub(&self, index: u32, cost: u32) {
        let (chunk, at) = split(index);
        let leaf = &self.chunks[chunk].get_or_init(Chunk::boxed).leaves[at];
        let before = leaf.fetch_sub(cost, SeqCst);
        debug_assert!(before & SUM >= cost, "what is taken back was added");
        self.total.fetch_sub(u64::from(cost), Relaxed);
        self.settle(chunk, at);
    }

    /// What worker `index` has to do, [`FULL`] included; none when it may not be chosen.
    #[inline]
    pub fn cost(&self, index: u32) -> Option<u32> {
        let (chunk, at) = split(index);
        let cost = self.chunks.get(chunk)?.get()?.leaves[at].load(Acquire);
        (cost & ABSENT == 0).then_some(cost)
    }

    /// Sum over all workers.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Workers that may be chosen.
    #[inline]
    pub fn present(&self) -> u32 {
        self.present.load(Relaxed)
    }

    /// How often anybody came to be present: once it has grown, somebody may be chosen who was not there before.
    #[inline]
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Relaxed)
    }

    /// Notes that worker `index` was chosen for having the least: the next of its equals comes after it.
    #[inline]
    pub fn take_turn(&self, index: u32) {
        self.cursor.store(index + 1, Relaxed);
    }

    /// The worker with the least cost that is not in `excluded`. Equals take turns, by [`Board::take_turn`].
    pub fn least(&self, excluded: &[u32]) -> Option<Least> {
        if !excluded.is_empty() {
            return self.least_but(excluded);
        }
        // A leaf may grow between the look at the minimum and the search for it: then the search looks again.
        const TRIES_MAX: usize = 4;
        for _ in 0..TRIES_MAX {
            let min = minimum(&self.top);
            if min & ABSENT != 0 {
                return None;
            }
            let from = self.cursor.load(Relaxed) % WORKERS_MAX;
            if let Some(index) = self.first_at_most(min, from).or_else(|| self.first_at_most(min, 0)) {
                return Some(Least { index, cost: min });
            }
        }
        // Under a storm of writers: anybody who is light enough.
        let index = self.first_at_most(ABSENT - 1, 0)?;
        Some(Least { index, cost: self.cost(index)? })
    }

    /// The first worker at or after `from` whose cost is at most `max`.
    fn first_at_most(&self, max: u32, from: u32) -> Option<u32> {
        let (chunk, at) = split(from);
        if let Some(found) = self.first_in_chunk(chunk, at, max) {
            return Some(found);
        }
        let (mut group, mut next) = ((chunk + 1) / FAN, (chunk + 1) % FAN);
        while group < FAN {
            if next != 0 || self.top[group].load(SeqCst) <= max {
                let minima = &self.middle[group * FAN..(group + 1) * FAN];
                for (offset, minimum) in minima.iter().enumerate().skip(next) {
                    if minimum.load(SeqCst) <= max
                        && let Some(found) = self.first_in_chunk(group * FAN + offset, 0, max)
                    {
                        return Some(found);
                    }
                }
            }
            (group, next) = (group + 1, 0);
        }
        None
    }

    fn first_in_chunk(&self, chunk: usize, from: usize, max: u32) -> Option<u32> {
        if self.middle[chunk].load(SeqCst) > max {
            return None;
        }
        let leaves = self.chunks[chunk].get()?;
        let (mut row, mut next) = (from / FAN, from % FAN);
        while row < FAN {
            if leaves.minima[row].load(SeqCst) <= max {
                let found = leaves.leaves[row * FAN..(row + 1) * FAN]
                    .iter()
                    .enumerate()
                    .skip(next)
                    .find(|(_, leaf)| leaf.load(SeqCst) <= max);
                if let Some((offset, _)) = found {
                    return Some((chunk * CHUNK + row * FAN + offset) as u32);
                }
            }
            (row, next) = (row + 1, 0);
        }
        None
    }

    /// As [`Board::least`] with exclusions, for attempts after a failed one: only the groups they stand in are looked at leaf by leaf.
    fn least_but(&self, excluded: &[u32]) -> Option<Least> {
        let mut best: Option<Least> = None;
        let from = self.cursor.load(Relaxed);
        let turn = |index: u32| index.wrapping_sub(from) % WORKERS_MAX;
        let mut offer = |index: u32, cost: u32| {
            let is_better = |best: Least| (cost, turn(index)) < (best.cost, turn(best.index));
            if cost & ABSENT == 0 && !excluded.contains(&index) && best.is_none_or(is_better) {
                best = Some(Least { index, cost });
            }
        };
        let touches = |begin: usize, len: usize| {
            excluded.iter().any(|&index| (begin..begin + len).contains(&(index as usize)))
        };
        for group in 0..FAN {
            if !touches(group * FAN * CHUNK, FAN * CHUNK) {
                let min = self.top[group].load(SeqCst);
                if let Some(index) = self.first_at_most(min.min(ABSENT - 1), (group * FAN * CHUNK) as u32) {
                    offer(index, min);
                }
                continue;
            }
            for chunk in group * FAN..(group + 1) * FAN {
                let min = self.middle[chunk].load(SeqCst);
                if !touches(chunk * CHUNK, CHUNK) {
                    if let Some(index) = self.first_in_chunk(chunk, 0, min.min(ABSENT - 1)) {
                        offer(index, min);
                    }
                    continue;
                }
                let Some(leaves) = self.chunks[chunk].get() else { continue };
                for (at, leaf) in leaves.leaves.iter().enumerate() {
                    offer((chunk * CHUNK + at) as u32, leaf.load(SeqCst));
                }
            }
        }
        best
    }

    /// Makes the minima above a leaf right again.
    ///
    /// Whoever stores a minimum looks at the children once more: another writer may have changed one in between, and
    /// all orders here are sequentially consistent, so the later of two stores is followed by a look that sees both.
    fn settle(&self, chunk: usize, at: usize) {
        let Some(leaves) = self.chunks[chunk].get() else { return };
        let row = at / FAN;
        let group = chunk / FAN;
        let _ = raise(&leaves.minima[row], &leaves.leaves[row * FAN..(row + 1) * FAN])
            && raise(&self.middle[chunk], &leaves.minima)
            && raise(&self.top[group], &self.middle[group * FAN..(group + 1) * FAN]);
    }
}

// === impl Chunk ===

impl Chunk {
    fn boxed() -> Box<Self> {
        Box::new(Self {
            leaves: [const { AtomicU32::new(ABSENT) }; CHUNK],
            minima: [const { AtomicU32::new(ABSENT) }; FAN],
        })
    }
}

/// Stores the minimum of `children` in `parent`; false if it stood there already.
#[inline]
fn raise(parent: &AtomicU32, children: &[AtomicU32]) -> bool {
    let mut has_stored = false;
    loop {
        let min = minimum(children);
        if parent.load(SeqCst) == min {
            return has_stored;
        }
        parent.store(min, SeqCst);
        has_stored = true;
    }
}

/// The least of some leaves or minima; absent ones count as [`ABSENT`] whatever else they carry.
#[inline]
fn minimum(numbers: &[AtomicU32]) -> u32 {
    numbers.iter().map(|number| number.load(SeqCst)).min().unwrap_or(ABSENT).min(ABSENT)
}

/// The chunk of a worker, and its place there.
#[inline]
fn split(index: u32) -> (usize, usize) {
    let index = index as usize % (CHUNK * CHUNK);
    (index / CHUNK, index % CHUNK)
}

const _: () = assert!(WORKERS_MAX as usize == CHUNK * CHUNK);

#[cfg(test)]
mod tests;
