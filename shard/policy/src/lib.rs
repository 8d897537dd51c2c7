//! Pure routing decisions over a snapshot: which worker of a pool gets a request.
//!
//! A decision has two halves. [`Replica::choose`] gathers [`Evidence`]: a few candidates with what they have to do and
//! what they hold, found in a bounded number of steps whatever the size of the fleet. [`decide`] weighs it, a function
//! of the evidence and the policy's settings alone, so a recorded decision can be explained and made again.
//!
//! Invariants
//! - Nothing here reads a clock, draws from a global generator, locks, awaits or knows a socket: the replica of the
//!   shard holds the generator, the tick is an argument.
//! - A choice is a member of the pool, present on its board, and never one of the excluded workers. A board is newer than
//!   a pool of an older snapshot: who has joined since counts for nobody.
//! - No step walks the members of a pool, and none allocates, but for a table that is used for the first time.
//! - A choice is remembered once it is committed to, and one that a circuit breaker turned away never: no key, overlay
//!   entry or count of held blocks is left of it.
//! - Equal workers take turns: on the board by its cursor, among holders by least recently chosen.

mod affinity;
mod decide;
mod draw;
mod keys;
mod overlay;
mod place;

use std::sync::Arc;

use fleet::board::Least;
use fleet::decision::Candidate;
use fleet::decision::Evidence;
pub use fleet::decision::Reason;
use fleet::decision::Role;
use fleet::id::WorkerId;
pub use fleet::rules::Policy;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use fleet::sticky::Owner;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use smallvec::SmallVec;

pub use crate::decide::decide;
pub use crate::keys::Keys;
pub use crate::keys::answer_key;
pub use crate::keys::is_answer;
use crate::overlay::Overlay;

/// Times that another shard may be first to give a key to somebody, until a choice is given up.
const KEY_RACES_MAX: usize = 16;
/// Workers that one request can have failed on and still be tried elsewhere without an allocation.
const EXCLUDED_INLINE: usize = 8;
/// Newcomers, lighter than all members, that a search for the lightest member passes over.
const NEWCOMERS_MAX: usize = 8;
/// Members among whom it looks after that.
const MEMBERS_LOOKED_AT_MAX: usize = 64;

/// What a decision may look at, besides the snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Block hashes of the prompt; empty when the policy does not read it or there is none.
    pub blocks: &'a [u64],
    /// Length of the prompt that the blocks were made from.
    pub prompt_bytes: usize,
    /// What the client says about where it belongs.
    pub keys: Keys<'a>,
    /// Workers that already failed this request.
    pub excluded: &'a [WorkerId],
    /// Whether only those may be chosen who can go on with another's answer.
    pub must_continue: bool,
    /// Coarse time, in seconds since the process started.
    pub tick: u32,
}

/// A decision.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Who gets the request.
    pub worker: &'a Arc<Worker>,
    /// Why.
    pub reason: Reason,
    /// Blocks of the prompt this worker is known to hold.
    pub matched_blocks: u32,
    /// Whether control should learn of this placement: false when the tree already says so.
    pub is_news: bool,
    /// Hash of the key that was looked at; 0 for none.
    pub key: u64,
    role: Role,
}

/// What a shard remembers between decisions.
#[derive(Debug)]
pub struct Replica {
    rng: SmallRng,
    /// Number of choices made; the clock of `last_chosen`.
    turn: u32,
    /// By worker index: the turn at which this shard last chose it.
    last_chosen: Vec<u32>,
    overlay: Overlay,
    evidence: Evidence,
    /// Leading blocks of the prompt that the published tree knows.
    published: usize,
    /// For each candidate: the tick of its last use of what it holds.
    ticks: SmallVec<[u32; fleet::decision::CANDIDATES_MAX]>,
    /// Whom the key belongs to that the decision looked at.
    owner: Option<Owner>,
}

/// One decision being made: what every policy reads.
#[derive(Clone, Copy)]
struct Scene<'a, 'r> {
    snapshot: &'a Snapshot,
    pool: &'a Pool,
    request: &'r Request<'r>,
    /// Indexes of the excluded workers.
    excluded: &'r [u32],
    /// Where a search among those who can continue begins.
    draw: usize,
}

impl Replica {
    /// A fresh replica whose draws follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            turn: 0,
            last_chosen: Vec::new(),
            overlay: Overlay::new(),
            evidence: Evidence::default(),
            published: 0,
            ticks: SmallVec::new(),
            owner: None,
        }
    }

    /// Chooses a worker of `pool` by the pool's policy and commits to it; none if nobody can be chosen.
    pub fn choose<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pool: &'a Pool,
        request: &Request<'_>,
    ) -> Option<Choice<'a>> {
        for _ in 0..KEY_RACES_MAX {
            let choice = self.propose(snapshot, pool, request)?;
            if self.commit(snapshot, pool, request, &choice) {
                return Some(choice);
            }
        }
        None
    }

    /// Says which worker of `pool` the pool's policy would choose; none if nobody can be chosen. Whoever asks it
    /// commits to the choice, or asks again with it excluded: until then nobody remembers it.
    pub fn propose<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pool: &'a Pool,
        request: &Request<'_>,
    ) -> Option<Choice<'a>> {
        // Who has left and been followed by another at the same index excludes nobody.
        let is_there = |id: &&WorkerId| snapshot.fleet.worker(**id).is_some();
        let excluded: SmallVec<[u32; EXCLUDED_INLINE]> =
            request.excluded.iter().filter(is_there).map(|id| id.index).collect();
        let draw = if request.must_continue { self.rng.random_range(0..usize::MAX) } else { 0 };
        let scene = Scene { snapshot, pool, request, excluded: &excluded, draw };
        let index_end = snapshot.fleet.workers.index_end() as usize;
        if self.last_chosen.len() < index_end {
            self.last_chosen.resize(index_end, 0);
        }
        self.begin(&scene);
        let key = match &pool.policy {
            Policy::Random => self.gather_random(&scene),
            Policy::RoundRobin => self.gather_turn(&scene),
            Policy::PowerOfTwo => self.gather_two(&scene),
            Policy::CacheAware(config) => self.gather_affine(&scene, config),
            Policy::LeastLoad => self.gather_work(&scene),
            Policy::PrefixHash(config) => self.gather_prefix_hash(&scene, config),
            Policy::ConsistentHashing => self.gather_ring_key(&scene),
            Policy::Manual(config) => self.gather_manual(&scene, config),
            Policy::Bucket(_) => self.gather_bucket(&scene),
            Policy::Session => self.gather_session(&scene),
            Policy::PrefixAware(config) => self.gather_any_holder(&scene, config),
        };
        let (at, reason) = decide(&pool.policy, &self.evidence)?;
        let candidate = self.evidence.candidates[at];
        let worker = snapshot.fleet.workers.get(candidate.worker)?;
        let is_news = pool.policy.reads_tree() && self.is_news(&scene, at);
        let matched_blocks = u32::from(candidate.matched);
        Some(Choice { worker, reason, matched_blocks, is_news, key, role: candidate.role })
    }

    /// Remembers the choice that was proposed last: what its worker is about to hold, whose its key is, whose turn is
    /// next. False, and nothing has changed, when another shard has given its key to somebody else meanwhile: then a
    /// new proposal finds that one.
    pub fn commit(
        &mut self,
        snapshot: &Snapshot,
        pool: &Pool,
        request: &Request<'_>,
        choice: &Choice<'_>,
    ) -> bool {
        if !self.settle_key(snapshot, pool, request, choice) {
            return false;
        }
        let Choice { worker, role, .. } = *choice;
        if pool.policy.reads_tree() {
            self.turn = self.turn.wrapping_add(1);
            self.last_chosen[worker.id.index as usize] = self.turn;
        }
        if matches!(role, Role::Least | Role::Spare) {
            pool.board.take_turn(worker.id.index);
        }
        if choice.is_news {
            let epoch = worker.cells.epoch();
            self.overlay.place(request.blocks, self.published, (worker.id, epoch), request.tick);
            worker.cells.gain_blocks(u32::from(self.evidence.blocks).saturating_sub(choice.matched_blocks));
        }
        if matches!(pool.policy, Policy::Bucket(_)) {
            pool.lengths.add(self.evidence.prompt_bytes);
        }
        true
    }

    /// What the last decision was made from.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Forgets the last decision's evidence and notes what is common to all policies.
    fn begin(&mut self, scene: &Scene<'_, '_>) {
        let evidence = &mut self.evidence;
        evidence.candidates.clear();
        self.ticks.clear();
        self.published = 0;
        self.owner = None;
        evidence.blocks = scene.request.blocks.len().min(usize::from(u16::MAX)) as u16;
        evidence.known = 0;
        evidence.prompt_bytes = scene.request.prompt_bytes.min(u32::MAX as usize) as u32;
        evidence.cost_max = u32::MAX;
        evidence.total = scene.pool.board.total().min(u64::from(u32::MAX)) as u32;
        evidence.members = scene.pool.board.present();
    }

    /// Makes `worker` a candidate, if it can be chosen and there is room; true if it is one.
    fn offer(&mut self, scene: &Scene<'_, '_>, worker: u32, role: Role, matched: usize, tick: u32) -> bool {
        let is_full = self.evidence.candidates.len() == fleet::decision::CANDIDATES_MAX;
        let Some(cost) = scene.cost(worker).filter(|_| !is_full) else { return false };
        let is_ranked = matches!(role, Role::Holder | Role::Recent | Role::Least | Role::Spare);
        let last_chosen = if is_ranked { self.last_chosen.get(worker as usize).copied() } else { None };
        let matched = matched.min(usize::from(u16::MAX)) as u16;
        self.evidence.candidates.push(Candidate {
            worker,
            cost,
            matched,
            role,
            last_chosen: last_chosen.unwrap_or(0),
            held_blocks: 0,
            weight: 0,
        });
        self.ticks.push(tick);
        true
    }

    /// Makes the worker with the least to do a candidate.
    fn offer_least(&mut self, scene: &Scene<'_, '_>) {
        if let Some(least) = scene.least() {
            self.offer(scene, least.index, Role::Least, 0, 0);
        }
    }
}

impl Scene<'_, '_> {
    /// What `worker` has to do; none if it cannot be chosen.
    #[inline]
    fn cost(&self, worker: u32) -> Option<u32> {
        if self.excluded.contains(&worker) {
            return None;
        }
        self.pool.board.cost(worker).filter(|_| self.pool.knows(worker) && self.may_serve(worker))
    }

    /// Whether it can do what the request asks for.
    #[inline]
    fn may_serve(&self, worker: u32) -> bool {
        let can_continue =
            || self.snapshot.fleet.workers.get(worker).is_some_and(|worker| worker.can_continue);
        !self.request.must_continue || can_continue()
    }

    /// The member with the least to do.
    #[inline]
    fn least(&self) -> Option<Least> {
        if self.request.must_continue {
            return self.least_continuing();
        }
        let least = self.pool.board.least(self.excluded)?;
        if self.pool.knows(least.index) { Some(least) } else { self.least_known() }
    }

    /// As [`Scene::least`], when the lightest of all has joined since the snapshot: control published while this shard
    /// was at work on the request.
    #[cold]
    fn least_known(&self) -> Option<Least> {
        let mut passed: SmallVec<[u32; EXCLUDED_INLINE + NEWCOMERS_MAX]> = self.excluded.into();
        for _ in 0..NEWCOMERS_MAX {
            let least = self.pool.board.least(&passed)?;
            if self.pool.knows(least.index) {
                return Some(least);
            }
            passed.push(least.index);
        }
        let members =
            self.pool.members.iter().filter_map(|&index| Some(Least { index, cost: self.cost(index)? }));
        members.take(MEMBERS_LOOKED_AT_MAX).min_by_key(|least| least.cost)
    }

    /// As [`Scene::least`], among some of those who can go on with another's answer: the board knows nothing of that.
    #[cold]
    fn least_continuing(&self) -> Option<Least> {
        let members = &self.pool.continuing;
        let begin = self.draw % members.len().max(1);
        let (before, after) = members.split_at(begin);
        let some = after.iter().chain(before).take(MEMBERS_LOOKED_AT_MAX);
        some.filter_map(|&index| Some(Least { index, cost: self.cost(index)? }))
            .min_by_key(|least| least.cost)
    }
}

#[cfg(test)]
mod tests;
