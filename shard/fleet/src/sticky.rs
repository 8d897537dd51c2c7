//! Which worker a key belongs to: a table that every shard reads and writes without a lock, so that two shards that
//! meet a new key at once agree on one worker.
//!
//! Sets of eight slots; in a full set the key that was used least recently gives way. An entry names a registration
//! of a worker, so it means nothing any more once that worker has left, and its key is assigned anew.
//!
//! Invariants
//! - For one key the first assignment wins, whoever makes it: the value is compared and swapped.
//! - A key enters a set through its gate, so it never stands there twice. Nobody waits at a gate for long: who finds
//!   it taken for too long goes without stickiness this once.
//! - An entry's value carries twelve bits of its key. A reader that meets a slot while its key is being replaced sees
//!   that they differ, and takes the slot for unassigned.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;

use crate::id::WorkerId;

/// Slots of a set.
const SET: usize = 8;
/// Sets of a chunk, the unit of allocation.
const CHUNK_SETS: usize = 512;
/// Chunks.
const CHUNKS: usize = 256;
/// Looks at a gate that somebody else has taken, which is for nanoseconds unless the system takes its thread off the
/// CPU just then.
const GATE_LOOKS_MAX: usize = 10_000;
/// Looks after which the CPU is offered to that thread between two looks.
const GATE_LOOKS_PATIENT: usize = 100;
/// Keys the table can hold: 16 bytes each, allocated as they come.
pub const KEYS_MAX: usize = SET * CHUNK_SETS * CHUNKS;

/// Keys and the workers they belong to.
#[derive(Debug)]
pub struct StickyTable {
    chunks: Box<[OnceLock<Box<[Set]>>]>,
}

#[derive(Debug, Default)]
struct Set {
    /// 1 while a key enters.
    gate: AtomicU64,
    slots: [Slot; SET],
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 when empty.
    key: AtomicU64,
    /// An [`Owner`], packed; 0 when unassigned.
    value: AtomicU64,
}

/// Whom a key belongs to, and when it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Index of the worker.
    pub index: u32,
    /// Low bits of the generation of its registration.
    generation: u32,
    /// Coarse time of the last use, in seconds since the process started.
    pub tick: u32,
}

const INDEX_BITS: u32 = 16;
const GENERATION_BITS: u32 = 12;
const TAG_BITS: u32 = 12;
const TICK_BITS: u32 = 24;

// === impl Owner ===

impl Owner {
    fn new(worker: WorkerId, tick: u32) -> Self {
        Self {
            index: worker.index,
            generation: low(worker.generation, GENERATION_BITS),
            tick: low(tick, TICK_BITS),
        }
    }

    /// Whether it is this registration.
    pub fn is(&self, worker: WorkerId) -> bool {
        self.index == worker.index && self.generation == low(worker.generation, GENERATION_BITS)
    }

    /// Seconds since the last use. Clocks of shards differ by a little: a use that is still to come is one of now.
    pub fn idle_s(&self, tick: u32) -> u32 {
        let since = low(tick.wrapping_sub(self.tick), TICK_BITS);
        if since >> (TICK_BITS - 1) == 0 { since } else { 0 }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }

    /// Never 0, since no tag is.
    fn pack(self, key: u64) -> u64 {
        u64::from(self.index)
            | u64::from(self.generation) << INDEX_BITS
            | tag(key) << (INDEX_BITS + GENERATION_BITS)
            | u64::from(self.tick) << (INDEX_BITS + GENERATION_BITS + TAG_BITS)
    }

    fn unpack(value: u64, key: u64) -> Option<Self> {
        let has_tag = (value >> (INDEX_BITS + GENERATION_BITS)) & ((1 << TAG_BITS) - 1) == tag(key);
        has_tag.then_some(Self {
            index: low(value as u32, INDEX_BITS),
            generation: low((value >> INDEX_BITS) as u32, GENERATION_BITS),
            tick: (value >> (INDEX_BITS + GENERATION_BITS + TAG_BITS)) as u32,
        })
    }
}

fn low(number: u32, bits: u32) -> u32 {
    number & ((1 << bits) - 1)
}

/// Twelve bits of a key, never 0.
fn tag(key: u64) -> u64 {
    ((key >> 40) & ((1 << TAG_BITS) - 1)).max(1)
}

// === impl StickyTable ===

impl Default for StickyTable {
    fn default() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }
}

impl StickyTable {
    /// Whom `key` (a hash, not 0) belongs to.
    pub fn get(&self, key: u64) -> Option<Owner> {
        self.set(key)?.slot(key)?.owner(key)
    }

    /// Gives `key` to `worker` unless it belongs to somebody else than `expected`; returns whom it belongs to now.
    ///
    /// `expected` is what [`StickyTable::get`] said. Who comes second learns who was first.
    pub fn assign(&self, key: u64, expected: Option<Owner>, worker: WorkerId, tick: u32) -> Owner {
        let wanted = Owner::new(worker, tick);
        let set = self.set_or_new(key);
        for look in 0..GATE_LOOKS_MAX {
            if let Some(slot) = set.slot(key) {
                let seen = slot.value.load(Acquire);
                // The slot may have been given to another key since it was found: then the value is that one's.
                if slot.key.load(Acquire) != key {
                    continue;
                }
                match (Owner::unpack(seen, key), expected) {
                    (Some(owner), Some(expected)) if owner.is_same(&expected) => {}
                    (Some(owner), _) => return owner,
                    (None, _) => {}
                }
                if slot.value.compare_exchange(seen, wanted.pack(key), AcqRel, Acquire).is_ok() {
                    return wanted;
                }
            } else if set.gate.compare_exchange(0, 1, AcqRel, Acquire).is_ok() {
                if set.slot(key).is_none() {
                    let slot = set.least_recent(tick);
                    slot.value.store(0, Release);
                    slot.key.store(key, Release);
                    // Whoever finds the key now may be quicker: then the key is found with its owner on the next look.
                    let is_ours = slot.value.compare_exchange(0, wanted.pack(key), AcqRel, Acquire).is_ok();
                    set.gate.store(0, Release);
                    if is_ours {
                        return wanted;
                    }
                    continue;
                }
                set.gate.store(0, Release);
            }
            if look < GATE_LOOKS_PATIENT {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        wanted
    }

    /// Notes that `key` was used now, if `owner` still has it and the last use was an earlier second.
    pub fn touch(&self, key: u64, owner: Owner, tick: u32) {
        if owner.idle_s(tick) == 0 {
            return;
        }
        if let Some(slot) = self.set(key).and_then(|set| set.slot(key)) {
            let now = Owner { tick: low(tick, TICK_BITS), ..owner };
            // Somebody else may have touched it at the same time.
            let _ = slot.value.compare_exchange(owner.pack(key), now.pack(key), AcqRel, Relaxed);
        }
    }

    /// Takes out every entry that `is_over` says is no longer wanted. Walks what was ever allocated.
    pub fn sweep(&self, mut is_over: impl FnMut(u64, Owner) -> bool) -> usize {
        let mut removed = 0;
        for slot in self.slots() {
            let (key, value) = (slot.key.load(Acquire), slot.value.load(Acquire));
            if key != 0
                && let Some(owner) = Owner::unpack(value, key)
                && is_over(key, owner)
                && slot.value.compare_exchange(value, 0, AcqRel, Relaxed).is_ok()
            {
                removed += 1;
            }
        }
        removed
    }

    /// Every key that belongs to somebody, with whom it belongs to.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Owner)> + '_ {
        self.slots().filter_map(|slot| {
            let key = slot.key.load(Acquire);
            slot.owner(key).filter(|_| key != 0).map(|owner| (key, owner))
        })
    }

    /// Entries that belong to somebody.
    pub fn len(&self) -> usize {
        self.slots().filter(|slot| slot.owner(slot.key.load(Relaxed)).is_some()).count()
    }

    /// Whether nobody has a key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set(&self, key: u64) -> Option<&Set> {
        let at = set_of(key);
        self.chunks[at / CHUNK_SETS].get()?.get(at % CHUNK_SETS)
    }

    fn set_or_new(&self, key: u64) -> &Set {
        let at = set_of(key);
        let chunk = || (0..CHUNK_SETS).map(|_| Set::default()).collect();
        &self.chunks[at / CHUNK_SETS].get_or_init(chunk)[at % CHUNK_SETS]
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter()).flat_map(|set| &set.slots)
    }
}

fn set_of(key: u64) -> usize {
    (key % (CHUNK_SETS * CHUNKS) as u64) as usize
}

// === impl Set ===

impl Set {
    fn slot(&self, key: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key.load(Acquire) == key)
    }

    /// An empty or unassigned slot, else the one used least recently.
    fn least_recent(&self, tick: u32) -> &Slot {
        let idle_s =
            |slot: &Slot| slot.owner(slot.key.load(Acquire)).map_or(u32::MAX, |owner| owner.idle_s(tick));
        let later = |a: usize, b: usize| if idle_s(&self.slots[b]) > idle_s(&self.slots[a]) { b } else { a };
        &self.slots[(0..SET).fold(0, later)]
    }
}

// === impl Slot ===

impl Slot {
    fn owner(&self, key: u64) -> Option<Owner> {
        Owner::unpack(self.value.load(Acquire), key)
    }
}

const _: () = assert!(INDEX_BITS + GENERATION_BITS + TAG_BITS + TICK_BITS == 64);

#[cfg(test)]
mod tests;
