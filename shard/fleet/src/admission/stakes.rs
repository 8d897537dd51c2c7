//! Requests in flight that a higher class may have broken off: as long as they have not begun to answer.
//!
//! Each takes a slot of a fixed table for as long as it is in flight. A slot is one word that says whose it is and what
//! has become of it, so that beginning an answer and being chosen exclude each other by one compare-and-swap. Free
//! slots are a list through the table itself; its head carries a number that grows with every slot taken, which keeps
//! late comers from mistaking a list for one of before, and says who was admitted last.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Context;
use std::task::Poll;

use atomic_waker::AtomicWaker;

use super::ClassId;
use super::IN_FLIGHT_BY_CLASS_MAX;

/// Slots: as many as requests can be in flight where classes are told apart, so that there is always one.
const SLOTS: usize = IN_FLIGHT_BY_CLASS_MAX as usize;
/// End of the list of free slots.
const NONE: u32 = u32::MAX;
/// Width of a slot's position in the head of the list; above it stands the number of slots ever taken.
const INDEX_BITS: u32 = 16;
/// Low bits of a slot's word: what has become of the request. Above them its class, then its number.
const STATE_BITS: u32 = 2;
const CLASS_BITS: u32 = 2;
/// Nobody's, or of one that has begun to answer: not to be broken off.
const SAFE: u64 = 0;
/// It may be broken off.
const OPEN: u64 = 1;
/// It has been, and is about to end.
const PREEMPTED: u64 = 2;

/// A request's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stake {
    index: u32,
    /// The slot's word while the request may be broken off.
    word: u64,
}

#[derive(Debug)]
struct Slot {
    word: AtomicU64,
    /// The next free slot, while this one is free.
    next: AtomicU32,
    waker: AtomicWaker,
}

/// The table.
#[derive(Debug)]
pub(super) struct Stakes {
    slots: Box<[Slot]>,
    /// The first free slot, below the number of slots ever taken.
    head: AtomicU64,
    /// Slots taken whose word can be read: a look through the table that found nobody need not be repeated before this
    /// has changed.
    published: AtomicU64,
}

impl Stakes {
    /// A table of free slots.
    pub(super) fn new() -> Self {
        let slot = |index: usize| Slot {
            word: AtomicU64::new(SAFE),
            next: AtomicU32::new(if index + 1 < SLOTS { index as u32 + 1 } else { NONE }),
            waker: AtomicWaker::new(),
        };
        Self { slots: (0..SLOTS).map(slot).collect(), head: AtomicU64::new(0), published: AtomicU64::new(0) }
    }

    /// Takes a slot for a request of `class` that may be broken off from now on.
    pub(super) fn take(&self, class: ClassId) -> Option<Stake> {
        let mut head = self.head.load(Acquire);
        loop {
            let index = (head & ((1 << INDEX_BITS) - 1)) as u32;
            // Never at the end: the word counts no more in flight than there are slots, and a slot is free before its
            // request is counted out.
            let slot = self.slots.get(index as usize)?;
            let number = (head >> INDEX_BITS) + 1;
            let next = u64::from(slot.next.load(Relaxed)) & ((1 << INDEX_BITS) - 1);
            match self.head.compare_exchange_weak(head, number << INDEX_BITS | next, AcqRel, Acquire) {
                Ok(_) => {
                    let word = (number << CLASS_BITS | u64::from(class.0)) << STATE_BITS | OPEN;
                    slot.word.store(word, Release);
                    self.published.fetch_add(1, SeqCst);
                    return Some(Stake { index, word });
                }
                Err(now) => head = now,
            }
        }
    }

    /// Gives a slot back; true when its request had been chosen.
    pub(super) fn give(&self, stake: Stake) -> bool {
        let slot = &self.slots[stake.index as usize];
        let was_preempted = slot.word.swap(SAFE, AcqRel) & PREEMPTED != 0;
        slot.waker.take();
        let mut head = self.head.load(Relaxed);
        loop {
            slot.next.store((head & ((1 << INDEX_BITS) - 1)) as u32, Relaxed);
            let now_first = head >> INDEX_BITS << INDEX_BITS | u64::from(stake.index);
            match self.head.compare_exchange_weak(head, now_first, Release, Relaxed) {
                Ok(_) => return was_preempted,
                Err(now) => head = now,
            }
        }
    }

    /// The request begins to answer and cannot be broken off any more; false when it has been already.
    pub(super) fn begin(&self, stake: Stake) -> bool {
        let word = &self.slots[stake.index as usize].word;
        match word.compare_exchange(stake.word, SAFE, AcqRel, Acquire) {
            Ok(_) => true,
            Err(now) => now & PREEMPTED == 0,
        }
    }

    /// Ready when the request has been chosen.
    pub(super) fn poll_preempted(&self, stake: Stake, cx: &Context<'_>) -> Poll<()> {
        let slot = &self.slots[stake.index as usize];
        if slot.word.load(Acquire) == stake.word {
            slot.waker.register(cx.waker());
        }
        let is_preempted = slot.word.load(Acquire) == stake.word ^ OPEN ^ PREEMPTED;
        if is_preempted { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How many slots have been taken, as far as a look through the table sees them.
    pub(super) fn published(&self) -> u64 {
        self.published.load(SeqCst)
    }

    /// Chooses the newest request of the lowest class below `above` that `may_yield`, and wakes it. Its class, if there
    /// is one.
    pub(super) fn preempt(&self, above: ClassId, may_yield: impl Fn(ClassId) -> bool) -> Option<ClassId> {
        loop {
            let (index, word) = (self.slots.iter().enumerate())
                .map(|(index, slot)| (index, slot.word.load(Acquire)))
                .filter(|&(_, word)| word & OPEN != 0 && class_of(word) > above && may_yield(class_of(word)))
                .max_by_key(|&(_, word)| (class_of(word), word))?;
            let slot = &self.slots[index];
            if slot.word.compare_exchange(word, word ^ OPEN ^ PREEMPTED, AcqRel, Relaxed).is_ok() {
                slot.waker.wake();
                return Some(class_of(word));
            }
        }
    }
}

fn class_of(word: u64) -> ClassId {
    ClassId((word >> STATE_BITS & ((1 << CLASS_BITS) - 1)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: ClassId = ClassId(0);

    fn take(stakes: &Stakes, class: u8) -> Stake {
        stakes.take(ClassId(class)).expect("there is a slot for everybody")
    }

    #[test]
    fn the_newest_of_the_lowest_class_is_chosen() {
        let stakes = Stakes::new();
        let [a, b, c, d] = [2, 3, 3, 2].map(|class| take(&stakes, class));
        assert!(stakes.begin(c));
        let chosen = |above: u8| stakes.preempt(ClassId(above), |_| true);
        assert_eq!(chosen(3), None);
        assert_eq!(chosen(0), Some(ClassId(3)));
        assert!(!stakes.begin(b) && stakes.begin(a), "one was chosen, the other begins");
        assert_eq!(stakes.preempt(TOP, |class| class != ClassId(2)), None);
        assert_eq!((chosen(1), chosen(0)), (Some(ClassId(2)), None));
        assert_eq!([a, b, c, d].map(|stake| stakes.give(stake)), [false, true, false, true]);
    }

    #[test]
    fn a_slot_that_was_given_back_tells_its_last_holder_nothing() {
        let stakes = Stakes::new();
        let before = take(&stakes, 3);
        assert!(!stakes.give(before));
        let after = take(&stakes, 3);
        assert_eq!((before.index, stakes.preempt(TOP, |_| true)), (after.index, Some(ClassId(3))));
        let cx = Context::from_waker(std::task::Waker::noop());
        assert!(stakes.poll_preempted(before, &cx).is_pending());
        assert!(stakes.poll_preempted(after, &cx).is_ready());
    }

    #[test]
    fn there_are_as_many_slots_as_places() {
        let stakes = Stakes::new();
        let all: Vec<Stake> = (0..SLOTS).map(|_| take(&stakes, 3)).collect();
        assert_eq!(stakes.take(ClassId(3)), None);
        assert!(all.into_iter().all(|stake| !stakes.give(stake)));
        assert!((0..SLOTS).all(|_| stakes.take(ClassId(3)).is_some()));
    }
}
