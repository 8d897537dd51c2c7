//! Admission: how many requests are in flight at a time over all shards, who waits, and who goes next.
//!
//! # How it works
//!
//! One atomic [`word`] holds how many requests are in flight, by class, and how many wait. An arrival takes its
//! permit by one compare-and-swap when nobody waits and there is room, and a permit goes back by one subtraction:
//! some nanoseconds, no message, no lock. Only when there is no room, an arrival is counted as waiting instead and
//! sent to the [`arbiter`], a plain value that holds the queues and decides whose turn it is.
//!
//! Nobody ever waits for the arbiter. News for it (who entered, who left) go into a channel; whoever has
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
//! their way: the channel has no bound of its own, and holds no more than two for each that the word counts.
//!
//! *Who is broken off has not begun to answer, and makes room once.* Whoever is admitted below a class that preempts
//! takes a slot of [`stakes`]. To begin an answer and to be chosen are compare-and-swaps of one word of that slot, so
//! one of them fails. Only the arbiter's holder chooses, when nobody who waits may start, and no more than wait and
//! have not been chosen for. Who was chosen is woken where it waits, ends its exchange, gives its permit back like
//! anybody else, and then counts itself as ended: so the arbiter sees the place before it looks for another. Until
//! somebody of a preempting class has taken the place, no start goes out of turn. An arrival that takes its slot looks
//! for waiters after that, and who waits is counted before the arbiter looks through the slots: one sees the other.
//!
//! No thread sleeps for another. What is left of waiting is inside the channel: who reads it spins for as long as a
//! sender that has taken a slot has not filled it, which is some instructions.

mod arbiter;
mod bucket;
mod desk;
mod lane;
mod pace;
mod permit;
mod rules;
mod stakes;
mod stats;
mod word;

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
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

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use futures_channel::oneshot;

use self::arbiter::Arbiter;
use self::bucket::Bucket;
use self::desk::Desk;
use self::desk::News;
use self::desk::Settlement;
use self::lane::Waiter;
use self::pace::Pace;
pub use self::permit::Claim;
pub use self::permit::Entry;
pub use self::permit::Permit;
use self::permit::Place;
pub use self::permit::TenantId;
pub use self::permit::Ticket;
pub use self::permit::Verdict;
pub use self::rules::CLASSES_MAX;
pub use self::rules::ClassId;
pub use self::rules::ClassRules;
pub use self::rules::ClassSettings;
pub use self::rules::GateRules;
pub use self::rules::IN_FLIGHT_BY_CLASS_MAX;
pub use self::rules::IN_FLIGHT_MAX;
pub use self::rules::PRIORITIES;
pub use self::rules::QUEUE_BY_CLASS_MAX;
pub use self::rules::QUEUE_MAX;
pub use self::rules::STARTS_PER_S_MAX;
pub use self::rules::priority_names;
pub use self::stakes::Stake;
use self::stakes::Stakes;
pub use self::stats::AdmissionStats;
pub use self::stats::Outcome;
use self::word::Arrival;
use self::word::Word;

/// Arrivals beyond a full queue that may be on their way to the arbiter, which decides who of the queue gives way.
/// A queue that is overrun by more than that refuses without asking.
const ARRIVALS_TO_JUDGE_MAX: u32 = 256;
/// Settlements that may be on their way; one that finds no room is dropped, and a tenant's share is off by so much.
const SETTLEMENTS_QUEUED_MAX: usize = 1024;
/// Most tokens that one request is taken to cost: no request can put its tenant behind by more.
const TOKENS_MAX: u32 = 1 << 20;
/// No time at all.
const NEVER: u64 = u64::MAX;

/// The gate that all shards share.
#[derive(Debug)]
pub struct Gate {
    word: Word,
    rules: ArcSwap<GateRules>,
    default_class: ClassId,
    has_classes: bool,
    /// Whether a class preempts those below it.
    has_preemption: AtomicBool,
    /// Who may be broken off; none where there is one class.
    stakes: Option<Stakes>,
    /// Requests of each class that were broken off and have ended since the arbiter looked.
    ended: [AtomicU32; CLASSES_MAX],
    has_pace: AtomicBool,
    bucket: ArcSwapOption<Bucket>,
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

/// How many may be counted as waiting at a time.
fn waiting_max(rules: &GateRules) -> u32 {
    match rules.places() {
        0 => 0,
        places => places + ARRIVALS_TO_JUDGE_MAX,
    }
}

// === impl Gate ===

impl Gate {
    /// A gate nobody has passed yet.
    pub fn new(rules: GateRules) -> Self {
        let bucket = rules.starts_per_s.map(|starts_per_s| Bucket::new(starts_per_s, rules.in_flight_max));
        let has_classes = rules.classes.len() > 1;
        let rules = Arc::new(rules);
        let desk = Desk {
            arbiter: Arbiter::new(&rules),
            pace: Pace::default(),
            rules: Arc::clone(&rules),
            ending: [0; CLASSES_MAX],
            in_vain: None,
        };
        Self {
            word: Word::new(&rules, waiting_max(&rules)),
            default_class: rules.default_class,
            has_classes,
            has_preemption: AtomicBool::new(rules.preempting() > 0),
            stakes: has_classes.then(Stakes::new),
            ended: Default::default(),
            has_pace: AtomicBool::new(bucket.is_some()),
            bucket: ArcSwapOption::from_pointee(bucket),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
            // It holds two news of each who is counted as waiting, at most.
            news: crossbeam_channel::unbounded(),
            settlements: crossbeam_channel::bounded(SETTLEMENTS_QUEUED_MAX),
            is_dirty: AtomicBool::new(false),
            desk: Mutex::new(desk),
            due_us: AtomicU64::new(NEVER),
            retry_after_s: AtomicU32::new(1),
            depths: Default::default(),
            rules: ArcSwap::new(rules),
        }
    }

    /// What it goes by.
    pub fn rules(&self) -> Arc<GateRules> {
        self.rules.load_full()
    }

    /// Goes by other rules from now on, with the same classes. Who is in flight or waits keeps its place, also where
    /// there are fewer now; the next ones come in when there is room again.
    ///
    /// One caller at a time.
    pub fn set_rules(&self, rules: GateRules, now_us: u64) {
        let (rate, burst) = (rules.starts_per_s, rules.in_flight_max);
        let before = self.bucket.load_full();
        let bucket = rate.map(|rate| match before {
            Some(before) if before.is_as(rate, burst) => before,
            Some(before) => Arc::new(before.successor(rate, burst, now_us)),
            None => Arc::new(Bucket::new(rate, burst)),
        });
        self.bucket.store(bucket);
        self.has_pace.store(rate.is_some(), Relaxed);
        self.has_preemption.store(rules.preempting() > 0, Relaxed);
        self.word.set_limits(&rules, waiting_max(&rules));
        self.rules.store(Arc::new(rules));
        self.pump(now_us);
    }

    /// Whether requests are told apart by class.
    pub fn has_classes(&self) -> bool {
        self.has_classes
    }

    /// The class of requests that ask for none.
    pub fn default_class(&self) -> ClassId {
        self.default_class
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
        self.has_pace.load(Relaxed)
    }

    /// Takes a start, if they are limited in time.
    ///
    /// # Errors
    /// When the next one is due.
    #[inline]
    fn take_start(&self, now_us: u64) -> Result<(), u64> {
        if !self.has_pace() {
            return Ok(());
        }
        self.bucket.load().as_ref().map_or(Ok(()), |bucket| bucket.take(now_us))
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
        if self.take_start(now_us).is_ok() {
            let stake = self.stake(class);
            // Who waits may be looking for somebody to break off, and has not seen this one.
            if stake.is_some() && self.word.waiting(self.word.load()) > 0 {
                self.pump(now_us);
            }
            return Entry::Admitted(Permit { class, charged: None, stake });
        }
        if self.word.wait_after_all(class) {
            return self.queue(class, now_us, claim());
        }
        if self.word.end(class) {
            self.pump(now_us);
        }
        Entry::Full
    }

    /// Has a request that was counted in stand where a higher class may have it broken off, if any does.
    #[inline]
    fn stake(&self, class: ClassId) -> Option<Stake> {
        let stakes = self.stakes.as_ref()?;
        if class == ClassId(0) || !self.has_preemption.load(Relaxed) {
            return None;
        }
        let stake = stakes.take(class);
        fence(SeqCst);
        stake
    }

    /// A request begins to answer: nobody breaks it off any more. False when it has been broken off already; then it
    /// has to end at once, unanswered.
    #[inline]
    pub fn begin_answer(&self, stake: Stake) -> bool {
        self.stakes.as_ref().is_none_or(|stakes| stakes.begin(stake))
    }

    /// Ready when the request whose stake this is has to end for one of a higher class.
    #[inline]
    pub fn poll_preempted(&self, stake: Stake, cx: &Context<'_>) -> Poll<()> {
        match &self.stakes {
            Some(stakes) => stakes.poll_preempted(stake, cx),
            None => Poll::Pending,
        }
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
            debug_assert!(false, "the gate holds the other end");
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
                debug_assert!(is_sent, "the gate holds the other end");
                true
            }
        }
    }

    /// Gives a permit back. `used` is what its request cost in tokens, if that is known. True when somebody waits: then
    /// the caller has to [`Gate::pump`].
    #[inline]
    pub fn release(&self, permit: Permit, used: Option<u32>) -> bool {
        // First the stake: whoever is counted in finds one.
        let was_preempted = self.give_stake(&permit);
        let somebody_waits = self.word.end(permit.class);
        if somebody_waits && let (Some((place, tokens)), Some(used)) = (permit.charged, used) {
            let tokens = i64::from(used.min(TOKENS_MAX)) - i64::from(tokens);
            // Without room it is dropped: shares are a little off, counts are not.
            let _ = self.settlements.0.try_send(Settlement { place, tokens });
        }
        if was_preempted {
            // After the place is free, so that nobody else is broken off for want of it.
            self.ended[usize::from(permit.class.0)].fetch_add(1, AcqRel);
        }
        somebody_waits || was_preempted
    }

    fn give_stake(&self, permit: &Permit) -> bool {
        match (&self.stakes, permit.stake) {
            (Some(stakes), Some(stake)) => stakes.give(stake),
            _ => false,
        }
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
}

#[cfg(test)]
mod tests;
