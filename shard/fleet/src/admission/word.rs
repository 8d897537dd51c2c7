//! The one word that says how many requests are in flight and how many wait: read and changed by compare-and-swap.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;

use super::ClassId;
use super::GateRules;

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is in flight.
    Started,
    /// It is counted among those that wait.
    Waits,
    /// Neither: as many wait as may.
    Full,
}

/// Fields of the word, low bits first: requests in flight by class, then how many wait. It has a cache line pair to
/// itself, with what is needed to read it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Word {
    bits: AtomicU64,
    classes: usize,
    /// Width of a class's field.
    class_bits: u32,
    /// Places that no class has for itself, low bits first, then those that each class has: one word, so that a change
    /// of limits is one store and nobody starts by half of it.
    limits: AtomicU64,
    waiting_max: AtomicU64,
}

/// Width of the places of a class's own among the limits: half of all places, at most.
const RESERVE_BITS: u32 = 12;

/// The word at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts(u64);

impl Word {
    /// Nobody in flight, nobody waiting. At most `waiting_max` will ever wait.
    pub(super) fn new(rules: &GateRules, waiting_max: u32) -> Self {
        let classes = rules.classes.len();
        let word = Self {
            bits: AtomicU64::new(0),
            classes,
            class_bits: if classes == 1 { 32 } else { 13 },
            limits: AtomicU64::new(0),
            waiting_max: AtomicU64::new(0),
        };
        word.set_limits(rules, waiting_max);
        word
    }

    /// Goes by other limits from now on. What is in flight or waits beyond them stays.
    pub(super) fn set_limits(&self, rules: &GateRules, waiting_max: u32) {
        debug_assert!(
            u64::from(rules.in_flight_max) < 1 << self.class_bits,
            "a class's count fits its field"
        );
        debug_assert!(
            u64::from(waiting_max) < 1 << (64 - self.waiting_shift()),
            "the waiting fit their field"
        );
        let (mut open, mut limits) = (u64::from(rules.in_flight_max), 0);
        if self.classes > 1 {
            for (at, class) in rules.classes.iter().enumerate() {
                let reserve = u64::from(class.reserve);
                debug_assert!(reserve < 1 << RESERVE_BITS, "a class's own places fit their field");
                open = open.saturating_sub(reserve);
                limits |= reserve << (self.class_bits + RESERVE_BITS * at as u32);
            }
        }
        self.limits.store(limits | open, Relaxed);
        self.waiting_max.store(waiting_max.into(), Relaxed);
    }

    fn waiting_max(&self) -> u64 {
        self.waiting_max.load(Relaxed)
    }

    fn open(&self, limits: u64) -> u64 {
        limits & ((1 << self.class_bits) - 1)
    }

    fn reserve_in(&self, limits: u64, at: usize) -> u64 {
        let shift = self.class_bits + RESERVE_BITS * at as u32;
        if self.classes == 1 { 0 } else { (limits >> shift) & ((1 << RESERVE_BITS) - 1) }
    }

    fn waiting_shift(&self) -> u32 {
        self.class_bits * self.classes as u32
    }

    fn one_of(&self, class: ClassId) -> u64 {
        1 << (self.class_bits * u32::from(class.0))
    }

    fn one_waiting(&self) -> u64 {
        1 << self.waiting_shift()
    }

    /// The word now.
    pub(super) fn load(&self) -> Counts {
        Counts(self.bits.load(Acquire))
    }

    /// Requests of a class in flight.
    pub(super) fn in_flight(&self, counts: Counts, class: ClassId) -> u64 {
        (counts.0 >> (self.class_bits * u32::from(class.0))) & ((1 << self.class_bits) - 1)
    }

    /// How many wait.
    pub(super) fn waiting(&self, counts: Counts) -> u64 {
        counts.0 >> self.waiting_shift()
    }

    /// Whether one more of `class` may be in flight: in a place of its own, or in an open one.
    ///
    /// A class fills its own places first, so what it has beyond them is what it takes of the open ones. All own
    /// places and the open ones are `in_flight_max` together: no more are ever in flight. Only after limits were
    /// lowered more may be, and more of the open places be taken than there are; then even an own place has to wait
    /// until these have ended.
    pub(super) fn may_start(&self, counts: Counts, class: ClassId) -> bool {
        let limits = self.limits.load(Relaxed);
        let own = self.reserve_in(limits, usize::from(class.0)).saturating_sub(self.in_flight(counts, class));
        self.taken(counts, limits) < self.open(limits) + own
    }

    /// Whether more open places are taken than there are, since limits were lowered: one less makes no room.
    pub(super) fn is_over(&self, counts: Counts) -> bool {
        let limits = self.limits.load(Relaxed);
        self.taken(counts, limits) > self.open(limits)
    }

    /// Whether `class` takes open places, beside those of so many that are about to end.
    pub(super) fn may_yield(&self, counts: Counts, class: ClassId, ending: u32) -> bool {
        let own = self.reserve_in(self.limits.load(Relaxed), usize::from(class.0));
        self.in_flight(counts, class) > own + u64::from(ending)
    }

    /// Open places that are taken.
    fn taken(&self, counts: Counts, limits: u64) -> u64 {
        let beyond =
            |at| self.in_flight(counts, ClassId(at as u8)).saturating_sub(self.reserve_in(limits, at));
        (0..self.classes).map(beyond).sum()
    }

    /// Counts an arrival: in flight when nobody waits and there is room, else waiting if there is room for that.
    pub(super) fn arrive(&self, class: ClassId) -> Arrival {
        let mut counts = self.load();
        loop {
            let waiting = self.waiting(counts);
            let (arrival, next) = if waiting == 0 && self.may_start(counts, class) {
                (Arrival::Started, counts.0 + self.one_of(class))
            } else if waiting < self.waiting_max() {
                (Arrival::Waits, counts.0 + self.one_waiting())
            } else {
                return Arrival::Full;
            };
            match self.bits.compare_exchange_weak(counts.0, next, AcqRel, Acquire) {
                Ok(_) => return arrival,
                Err(now) => counts = Counts(now),
            }
        }
    }

    /// Counts one that is in flight as waiting instead; false when as many wait as may.
    pub(super) fn wait_after_all(&self, class: ClassId) -> bool {
        let moved = |bits: u64| {
            let is_room = self.waiting(Counts(bits)) < self.waiting_max();
            is_room.then(|| bits - self.one_of(class) + self.one_waiting())
        };
        self.bits.fetch_update(AcqRel, Acquire, moved).is_ok()
    }

    /// Counts one in flight that waits still. Only who holds the arbiter may call this, after [`Word::may_start`]:
    /// while somebody waits nobody else counts one in, so the room found is still there.
    pub(super) fn start_waiting(&self, class: ClassId) {
        self.bits.fetch_add(self.one_of(class), AcqRel);
    }

    /// Counts out one that waited.
    pub(super) fn end_waiting(&self) {
        let before = self.bits.fetch_sub(self.one_waiting(), AcqRel);
        debug_assert!(self.waiting(Counts(before)) > 0, "counted in before");
    }

    /// Counts out one that was in flight; true when somebody waits.
    pub(super) fn end(&self, class: ClassId) -> bool {
        let before = Counts(self.bits.fetch_sub(self.one_of(class), AcqRel));
        debug_assert!(self.in_flight(before, class) > 0, "a permit ends once");
        self.waiting(before) > 0
    }
}
