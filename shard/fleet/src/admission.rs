//! Admission: how many requests are in flight at a time over all shards, who waits, and who goes next.
//!
//! # How it works
//!
//! One atomic [`word`] holds how many requests are in flight, by class, and how many wait. An arrival takes its
//! permit by one compare-and-swap when nobody waits and there is room, and a permit goes back by one subtraction:
//! some nanoseconds, no message, no lock. Only when there is no room, an arrival is counted as waiting instead and
//! sent to the [`arbiter`], a plain value that holds the queues and decides whose turn it is.
//!
//! Nobody ever waits for the arbiter. News for it (who entered, who left) go into a bounded channel; whoever has
//! brought news, or has given a permit back while somebody waits, calls [`Gate::pump`], which *tries* to take the
//! arbiter. Who gets it reads the news and admits whoever can be; who finds it taken goes on with its own work, and the
//! holder looks again after it has let go.
//!
//! # Why it is right
//!
//! *Never too many in flight.* Room is counted in the word alone. An arrival finds room and takes it in one
//! compare-and-swap. The arbiter's holder reads the word and then adds: between the two nobody else adds, because
//! arrivals only do while nobody waits, and the one about to be admitted is still counted as waiting; others only
//! subtract.
//!
//! *No wake-up is lost.* Whoever changes something that the arbiter must see does so first, then sets `is_dirty`, then
//! tries the lock. The holder clears `is_dirty` before it reads anything, and reads it once more after it has let the
//! lock go. Say P found the lock taken by H. Either H clears P's mark after it was set, and then reads what P changed
//! (both are read-modify-writes of one atomic, so the clear happens after the mark and all before it). Or the mark is
//! set after H's last clear; then H, which lets go only after P's failed try, finds it set and goes round again. The
//! two sequentially consistent fences, between mark and try and between letting go and looking, keep either side from
//! looking before its own write can be seen.
//!
//! *A release needs no message while nobody waits.* "Somebody waits" and "one less in flight" are read and written by
//! one operation on one word. If nobody waited then, whoever comes later finds the room. If somebody did, the releaser
//! pumps.
//!
//! *No permit leaks.* A permit is counted in before it is sent through a [`Ticket`]'s one-shot channel. If the channel
//! is closed, the send fails and the permit is counted out again on the spot. If it is not, the waiting side gets it:
//! by waiting, or, when it leaves, by [`Gate::leave`], which closes the channel and then looks into it; what it finds
//! there is given back.
//!
//! *Whoever is counted as waiting is counted out once*: by the verdict it was sent, or, if it closed its channel
//! before that, by the word that it left. So at any time at most one entry and one leaving per counted waiter are on
//! their way, and the channel, with room for two of each, never overflows.
//!
//! No thread sleeps for another. What is left of waiting is inside the channel: who reads it spins for as long as a
//! sender that has taken a slot has not filled it, which is some instructions.

mod arbiter;
mod bucket;
mod lane;
mod rules;
mod stats;
mod word;

use std::future::Future;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::task::Context;
use std::task::Poll;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use futures_channel::oneshot;

use self::arbiter::Arbiter;
use self::bucket::Bucket;
use self::lane::Waiter;
pub use self::rules::CLASSES_MAX;
pub use self::rules::ClassId;
pub use self::rules::ClassRules;
pub use self::rules::GateRules;
pub use self::rules::IN_FLIGHT_BY_CLASS_MAX;
pub use self::rules::IN_FLIGHT_MAX;
pub use self::rules::QUEUE_MAX;
pub use self::rules::STARTS_PER_S_MAX;
pub use self::rules::priority_names;
pub use self::stats::AdmissionStats;
pub use self::stats::Outcome;
use self::word::Arrival;
use self::word::Word;

/// Arrivals beyond a full queue that may be on their way to the arbiter, which decides who of the queue gives way.
/// A queue that is overrun by more than that refuses without asking.
const ARRIVALS_TO_JUDGE_MAX: u32 = 256;
/// Settlements that may be on their way; one that finds no room is dropped, and a tenant's share is off by so much.
const SETTLEMENTS_QUEUED_MAX: usize = 4096;
/// Most tokens that one request is taken to cost: no request can put its tenant behind by more.
const TOKENS_MAX: u32 = 1 << 20;
/// Shortest time over which it is counted how fast the queue moves.
const PACE_WINDOW_US: u64 = 1_000_000;
/// Longest time that a refused client is asked to wait.
const RETRY_AFTER_S_MAX: u64 = 30;
/// No time at all.
const NEVER: u64 = u64::MAX;

/// Who a request is from, as far as sharing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

/// What a request that must wait is queued by.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Whose it is.
    pub tenant: TenantId,
    /// Tokens it is taken to cost, prompt and answer.
    pub tokens: u32,
}

/// Where somebody waits, or has waited.
#[derive(Clone, Copy, Debug)]
struct Place {
    class: ClassId,
    tenant: TenantId,
    id: u64,
}

/// One request in flight. It goes back through [`Gate::release`], and is worth nothing but that.
#[derive(Debug)]
#[must_use = "a permit that is not released is lost"]
pub struct Permit {
    class: ClassId,
    /// What its tenant has been charged, if it waited.
    charged: Option<(Place, u32)>,
}

/// What came of a wait.
#[derive(Debug)]
pub enum Verdict {
    /// It is admitted.
    Admitted {
        /// Its permit.
        permit: Permit,
        /// Whether it went before a higher class, having waited too long.
        is_promoted: bool,
    },
    /// It found no place in the queue, or had to give up its own.
    Refused,
}

/// A place in the queue, and the future of what comes of it. Whoever gives it up calls [`Gate::leave`].
#[derive(Debug)]
#[must_use = "a ticket that is not given back holds its place in the queue"]
pub struct Ticket {
    place: Place,
    verdict: oneshot::Receiver<Verdict>,
}

/// What becomes of an arrival.
#[derive(Debug)]
pub enum Entry {
    /// It is admitted at once.
    Admitted(Permit),
    /// It waits.
    Queued(Ticket),
    /// There is no place for it.
    Full,
}

/// News for the arbiter.
#[derive(Debug)]
enum News {
    Entered(ClassId, Waiter<oneshot::Sender<Verdict>>),
    Left(Place),
}

/// What a request cost beyond what its tenant was charged, or below it.
#[derive(Clone, Copy, Debug)]
struct Settlement {
    place: Place,
    tokens: i64,
}

/// What whoever takes the lock takes hold of.
#[derive(Debug)]
struct Desk {
    arbiter: Arbiter<oneshot::Sender<Verdict>>,
    pace: Pace,
}

/// How fast the queue moves.
#[derive(Debug, Default)]
struct Pace {
    since_us: u64,
    admitted: u64,
    /// Whether somebody has waited since then.
    is_moving: bool,
}

/// The gate that all shards share.
#[derive(Debug)]
pub struct Gate {
    word: Word,
    rules: GateRules,
    bucket: Option<Bucket>,
    hasher: RandomState,
    next_id: AtomicU64,
    news: (Sender<News>, Receiver<News>),
    settlements: (Sender<Settlement>, Receiver<Settlement>),
    is_dirty: AtomicBool,
    desk: Mutex<Desk>,
    /// When the next start is due that somebody waits for.
    due_us: AtomicU64,
    retry_after_s: AtomicU32,
    depths: [AtomicU32; CLASSES_MAX],
}

// === impl Gate ===

impl Gate {
    /// A gate nobody has passed yet.
    pub fn new(rules: GateRules) -> Self {
        let places: u32 = rules.classes.iter().map(|class| class.queue_max).sum();
        let waiting_max = if places == 0 { 0 } else { places + ARRIVALS_TO_JUDGE_MAX };
        let settlements_max = (rules.in_flight_max as usize).min(SETTLEMENTS_QUEUED_MAX);
        Self {
            word: Word::new(&rules, waiting_max),
            bucket: rules.starts_per_s.map(|starts_per_s| Bucket::new(starts_per_s, rules.in_flight_max)),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
            news: crossbeam_channel::bounded(2 * waiting_max.max(1) as usize),
            settlements: crossbeam_channel::bounded(settlements_max),
            is_dirty: AtomicBool::new(false),
            desk: Mutex::new(Desk { arbiter: Arbiter::new(&rules), pace: Pace::default() }),
            due_us: AtomicU64::new(NEVER),
            retry_after_s: AtomicU32::new(1),
            depths: Default::default(),
            rules,
        }
    }

    /// What it goes by.
    pub fn rules(&self) -> &GateRules {
        &self.rules
    }

    /// The tenant that a header or an address stands for: a keyed hash, so that nobody can make up another's.
    pub fn tenant(&self, kind: &str, name: &[u8]) -> TenantId {
        TenantId(self.hasher.hash_one((kind, name)))
    }

    /// Requests of a class in flight.
    pub fn in_flight(&self, class: ClassId) -> u64 {
        self.word.in_flight(self.word.load(), class)
    }

    /// Requests of a class in the queue.
    pub fn depth(&self, class: ClassId) -> u32 {
        self.depths[usize::from(class.0)].load(Relaxed)
    }

    /// Seconds after which a refused client may try again: about the time in which the queue empties.
    pub fn retry_after_s(&self) -> u32 {
        self.retry_after_s.load(Relaxed)
    }

    /// When somebody has to call [`Gate::pump`] although nothing happens: when the next start is due. None when it need
    /// not be.
    pub fn due_us(&self) -> Option<u64> {
        Some(self.due_us.load(Relaxed)).filter(|&due_us| due_us != NEVER)
    }

    /// Whether starts are limited in time, so that whoever waits must see to it that somebody pumps.
    pub fn has_pace(&self) -> bool {
        self.bucket.is_some()
    }

    /// Asks for a permit. What the request is queued by is only worked out if it must wait.
    #[inline]
    pub fn enter(&self, class: ClassId, now_us: u64, claim: impl FnOnce() -> Claim) -> Entry {
        match self.word.arrive(class) {
            Arrival::Started => self.start(class, now_us, claim),
            Arrival::Waits => self.queue(class, now_us, claim()),
            Arrival::Full => Entry::Full,
        }
    }

    /// Admits an arrival that is counted as in flight, unless the next start is not due.
    #[inline]
    fn start(&self, class: ClassId, now_us: u64, claim: impl FnOnce() -> Claim) -> Entry {
        if self.bucket.as_ref().is_none_or(|bucket| bucket.take(now_us).is_ok()) {
            return Entry::Admitted(Permit { class, charged: None });
        }
        if self.word.wait_after_all(class) {
            return self.queue(class, now_us, claim());
        }
        if self.word.end(class) {
            self.pump(now_us);
        }
        Entry::Full
    }

    /// Queues an arrival that is counted as waiting.
    #[cold]
    fn queue(&self, class: ClassId, now_us: u64, claim: Claim) -> Entry {
        let id = self.next_id.fetch_add(1, Relaxed);
        let (reply, verdict) = oneshot::channel();
        let place = Place { class, tenant: claim.tenant, id };
        let tokens = claim.tokens.clamp(1, TOKENS_MAX);
        let waiter = Waiter { id, tenant: claim.tenant, tokens, entered_us: now_us, reply };
        if self.news.0.try_send(News::Entered(class, waiter)).is_err() {
            debug_assert!(false, "there is room for everybody who is counted as waiting");
            self.word.end_waiting();
            return Entry::Full;
        }
        self.pump(now_us);
        Entry::Queued(Ticket { place, verdict })
    }

    /// Gives up a place in the queue, or the permit that came just now. True when somebody has to [`Gate::pump`].
    pub fn leave(&self, mut ticket: Ticket) -> bool {
        ticket.verdict.close();
        match ticket.verdict.try_recv() {
            Ok(Some(Verdict::Admitted { permit, .. })) => self.release(permit, Some(0)),
            Ok(Some(Verdict::Refused)) => false,
            Ok(None) | Err(oneshot::Canceled) => {
                let is_sent = self.news.0.try_send(News::Left(ticket.place)).is_ok();
                debug_assert!(is_sent, "there is room for everybody who leaves");
                true
            }
        }
    }

    /// Gives a permit back. `used` is what its request cost in tokens, if that is known. True when somebody waits: then
    /// the caller has to [`Gate::pump`].
    #[inline]
    pub fn release(&self, permit: Permit, used: Option<u32>) -> bool {
        let somebody_waits = self.word.end(permit.class);
        if somebody_waits && let (Some((place, tokens)), Some(used)) = (permit.charged, used) {
            let tokens = i64::from(used.min(TOKENS_MAX)) - i64::from(tokens);
            // Without room it is dropped: shares are a little off, counts are not.
            let _ = self.settlements.0.try_send(Settlement { place, tokens });
        }
        somebody_waits
    }

    /// Sees to it that news are read and permits handed out: by this thread, or by whoever is at it.
    pub fn pump(&self, now_us: u64) {
        self.is_dirty.swap(true, AcqRel);
        fence(SeqCst);
        while self.is_dirty.load(Relaxed) {
            let Some(mut desk) = self.try_desk() else { return };
            self.is_dirty.swap(false, AcqRel);
            self.work(&mut desk, now_us);
            drop(desk);
            fence(SeqCst);
        }
    }

    fn try_desk(&self) -> Option<MutexGuard<'_, Desk>> {
        match self.desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn work(&self, desk: &mut Desk, now_us: u64) {
        for Settlement { place, tokens } in self.settlements.1.try_iter().take(SETTLEMENTS_QUEUED_MAX) {
            desk.arbiter.settle(place, tokens);
        }
        // First those who wait already: a place that they leave is there for who enters.
        self.admit(desk, now_us);
        // As many as there are now: what comes meanwhile is marked, and read in the next round.
        for _ in 0..self.news.1.len() {
            match self.news.1.try_recv() {
                Ok(News::Entered(class, waiter)) => {
                    if let Some(refused) = desk.arbiter.enter(class, waiter) {
                        self.conclude(refused.reply.send(Verdict::Refused).is_ok());
                    }
                }
                Ok(News::Left(place)) => {
                    desk.arbiter.leave(place);
                    self.word.end_waiting();
                }
                Err(_) => break,
            }
        }
        let due_us = self.admit(desk, now_us);
        self.due_us.store(due_us, Relaxed);
        let mut waiting = 0;
        for class in self.rules.class_ids() {
            let depth = desk.arbiter.depth(class) as u32;
            waiting += u64::from(depth);
            self.depths[usize::from(class.0)].store(depth, Relaxed);
        }
        if let Some(retry_after_s) = desk.pace.retry_after_s(waiting, now_us) {
            self.retry_after_s.store(retry_after_s, Relaxed);
        }
    }

    /// Counts out who waited, if it was told; if it left before, the word that it did counts it out.
    fn conclude(&self, is_told: bool) {
        if is_told {
            self.word.end_waiting();
        }
    }

    /// Admits whoever can be; returns when the next start is due if that is what is waited for.
    fn admit(&self, desk: &mut Desk, now_us: u64) -> u64 {
        while !desk.arbiter.is_empty() {
            if let Some(Err(due_us)) = self.bucket.as_ref().map(|bucket| bucket.take(now_us)) {
                return due_us;
            }
            let counts = self.word.load();
            let turn = desk.arbiter.next(|class| self.word.may_start(counts, class), now_us);
            let Some(turn) = turn else {
                self.put_back_start();
                break;
            };
            let Waiter { id, tenant, tokens, reply, .. } = turn.waiter;
            let place = Place { class: turn.class, tenant, id };
            let permit = Permit { class: turn.class, charged: Some((place, tokens)) };
            // Counted in first: once it is sent it may come back at once.
            self.word.start_waiting(turn.class);
            if reply.send(Verdict::Admitted { permit, is_promoted: turn.is_promoted }).is_ok() {
                self.word.end_waiting();
                desk.pace.admitted += 1;
            } else {
                self.word.end(turn.class);
                desk.arbiter.settle(place, -i64::from(tokens));
                self.put_back_start();
            }
        }
        NEVER
    }

    fn put_back_start(&self) {
        if let Some(bucket) = &self.bucket {
            bucket.put_back();
        }
    }
}

// === impl Ticket ===

impl Future for Ticket {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        // A waiter is never dropped without a verdict.
        Pin::new(&mut self.verdict).poll(cx).map(|verdict| verdict.unwrap_or(Verdict::Refused))
    }
}

// === impl Pace ===

impl Pace {
    /// At the end of each window: how long who comes now would wait behind so many.
    fn retry_after_s(&mut self, waiting: u64, now_us: u64) -> Option<u32> {
        let elapsed_us = now_us.saturating_sub(self.since_us);
        let is_over =
            elapsed_us >= PACE_WINDOW_US && (self.admitted > 0 || elapsed_us >= 10 * PACE_WINDOW_US);
        let seconds = match self.is_moving {
            true if !is_over => return None,
            true => Some((waiting * elapsed_us).div_ceil(self.admitted.max(1) * 1_000_000)),
            // Nobody waited: the time before says nothing.
            false => None,
        };
        *self = Self { since_us: now_us, admitted: 0, is_moving: waiting > 0 };
        Some(seconds?.clamp(1, RETRY_AFTER_S_MAX) as u32)
    }
}

#[cfg(test)]
mod tests;
