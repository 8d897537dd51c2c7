//! Policies by a key of the request: consistent_hashing, session and manual; and the keys that cache_aware follows.

use std::sync::Arc;

use fleet::decision::Role;
use fleet::rules::AssignmentMode;
use fleet::rules::Manual;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use fleet::sticky::Owner;
use rand::RngExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Choice;
use crate::Policy;
use crate::Replica;
use crate::Request;
use crate::Scene;

/// Points of the ring looked at before the least loaded worker takes the request.
const POINTS_LOOKED_AT_MAX: usize = 512;
/// Members looked at for the fewest keys: all of a small pool.
const GROUPS_LOOKED_AT_MAX: usize = 16;

/// What a client says about where its request belongs: values as they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys<'a> {
    /// `X-SMG-Target-Worker`: a worker by its position.
    pub target: Option<&'a [u8]>,
    /// `X-SMG-Routing-Key`.
    pub routing: Option<&'a [u8]>,
    /// The first of the configured session keys, from a header or from the body.
    pub session: Option<&'a [u8]>,
    /// The answer that the request continues (`previous_response_id`), which only its worker has.
    pub previous_answer: Option<&'a [u8]>,
    /// Whoever the client is: `Authorization`, `X-Forwarded-For` or `Cookie`.
    pub identity: Option<&'a [u8]>,
}

/// Set in the keys of answers, which are no sessions.
const ANSWER: u64 = 1 << 63;

/// Where the id of an answer stands in the sticky table, for the request that continues it.
pub fn answer_key(answer_id: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(answer_id, seed) | ANSWER
}

/// Whether a key of the sticky table is that of an answer.
pub fn is_answer(key: u64) -> bool {
    key & ANSWER != 0
}

pub(crate) fn session_key(key: &[u8], seed: u64) -> u64 {
    (xxh3_64_with_seed(key, seed) & !ANSWER).max(1)
}

/// Notes that `key` belongs to `worker` from now on.
fn remember(snapshot: &Snapshot, key: u64, worker: &Arc<Worker>, tick: u32) {
    let sticky = &snapshot.fleet.sticky;
    match sticky.get(key) {
        Some(owner) if owner.is(worker.id) => sticky.touch(key, owner, tick),
        before => drop(assign(snapshot, key, before, worker, tick)),
    }
}

/// Gives `key` to `worker`, counts it there and no longer where it was before; returns whom it belongs to now.
fn assign(snapshot: &Snapshot, key: u64, before: Option<Owner>, worker: &Arc<Worker>, tick: u32) -> Owner {
    let fleet = &snapshot.fleet;
    let owner = fleet.sticky.assign(key, before, worker.id, tick);
    if owner.is(worker.id) {
        worker.cells.gain_key();
        let loser =
            before.and_then(|before| fleet.workers.get(before.index).filter(|loser| before.is(loser.id)));
        if let Some(loser) = loser {
            loser.cells.lose_key();
        }
    }
    owner
}

impl Replica {
    /// Notes whose the key of a choice is. False when somebody else was first, and the policy keeps to that.
    pub(crate) fn settle_key(
        &mut self,
        snapshot: &Snapshot,
        pool: &Pool,
        request: &Request<'_>,
        choice: &Choice<'_>,
    ) -> bool {
        let Choice { worker, key, role, .. } = *choice;
        let sticky = &snapshot.fleet.sticky;
        match (&pool.policy, role) {
            (Policy::Manual(_), Role::Key) => {
                if let Some(owner) = self.owner {
                    sticky.touch(key, owner, request.tick);
                }
                true
            }
            (Policy::Manual(_), Role::Placed) => {
                // Whoever this decision found is whom it may replace: another shard may be about to assign the key too.
                let is_first = assign(snapshot, key, self.owner, worker, request.tick).is(worker.id);
                if is_first {
                    pool.board.take_turn(worker.id.index);
                }
                is_first
            }
            (Policy::CacheAware(_), _) => {
                if let (Role::Pinned, Some(answer)) = (role, request.keys.previous_answer) {
                    // An answer that is continued is still wanted.
                    let key = answer_key(answer, pool.block_seed);
                    sticky.get(key).into_iter().for_each(|owner| sticky.touch(key, owner, request.tick));
                }
                // Whoever does not know everybody takes no key from anybody.
                if key != 0 && !pool.is_outrun() {
                    remember(snapshot, key, worker, request.tick);
                }
                true
            }
            _ => true,
        }
    }

    /// The worker that has the answer which the request continues.
    pub(crate) fn offer_pinned(&mut self, scene: &Scene<'_, '_>) -> bool {
        let Some(answer) = scene.request.keys.previous_answer else { return false };
        let owner = scene.snapshot.fleet.sticky.get(answer_key(answer, scene.pool.block_seed));
        self.offer_owner(scene, owner, Role::Pinned, u32::MAX)
    }

    /// The worker that the request's session belongs to; the key, or 0 if there is none.
    pub(crate) fn offer_session(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let keys = &scene.request.keys;
        let Some(key) = keys.routing.or(keys.session) else { return 0 };
        let key = session_key(key, scene.pool.block_seed);
        let owner = scene.snapshot.fleet.sticky.get(key);
        self.offer_owner(scene, owner, Role::Key, u32::MAX);
        key
    }

    /// Whoever a key belongs to, unless it was not used for `idle_s_max` or its worker has left.
    fn offer_owner(
        &mut self,
        scene: &Scene<'_, '_>,
        owner: Option<Owner>,
        role: Role,
        idle_s_max: u32,
    ) -> bool {
        let Some(owner) = owner else { return false };
        let is_valid = owner.idle_s(scene.request.tick) <= idle_s_max
            && scene.snapshot.fleet.workers.get(owner.index).is_some_and(|worker| owner.is(worker.id));
        is_valid && self.offer(scene, owner.index, role, 0, 0)
    }

    /// SGLang's order: the worker that is named, the routing key, the session, the client, chance.
    pub(crate) fn gather_ring_key(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let keys = &scene.request.keys;
        if let Some(target) = keys.target {
            // Whoever names a worker that cannot be chosen gets none.
            if let Some(worker) = named(scene, target) {
                self.offer(scene, worker, Role::Pinned, 0, 0);
            }
            return 0;
        }
        match keys.routing.or(keys.session).or(keys.identity) {
            Some(key) => self.offer_on_ring(scene, key),
            None => self.gather_random(scene),
        }
    }

    pub(crate) fn gather_session(&mut self, scene: &Scene<'_, '_>) -> u64 {
        match scene.request.keys.session {
            Some(key) => self.offer_on_ring(scene, key),
            None => {
                self.offer_least(scene);
                0
            }
        }
    }

    fn offer_on_ring(&mut self, scene: &Scene<'_, '_>, key: &[u8]) -> u64 {
        let at = scene.pool.ring.as_ref().map_or(0, |ring| ring.layout().key(key));
        if !self.offer_clockwise(scene, at, u32::MAX) {
            self.offer_least(scene);
        }
        // What is remembered says nothing of the key, which may be a credential or an address.
        xxh3_64_with_seed(&at.to_le_bytes(), scene.pool.block_seed).max(1)
    }

    /// The first worker clockwise from `at` whose cost is at most `cost_max`.
    pub(crate) fn offer_clockwise(&mut self, scene: &Scene<'_, '_>, at: u64, cost_max: u32) -> bool {
        let Some(ring) = &scene.pool.ring else { return false };
        let found = ring
            .clockwise(at)
            .take(POINTS_LOOKED_AT_MAX.min(ring.points()))
            .find(|&worker| scene.cost(worker).is_some_and(|cost| cost <= cost_max));
        found.is_some_and(|worker| self.offer(scene, worker, Role::Placed, 0, 0))
    }

    /// The worker a key was assigned to, or one that it is assigned to if the choice is committed to.
    pub(crate) fn gather_manual(&mut self, scene: &Scene<'_, '_>, config: &Manual) -> u64 {
        let keys = &scene.request.keys;
        let Some(key) = keys.routing.or(keys.session) else {
            self.offer_assignee(scene, config.assignment);
            return 0;
        };
        let key = session_key(key, scene.pool.block_seed);
        self.owner = scene.snapshot.fleet.sticky.get(key);
        if self.offer_owner(scene, self.owner, Role::Key, config.max_idle_s) {
            return key;
        }
        let Some(chosen) = self.offer_assignee(scene, config.assignment) else { return key };
        if self.owner.is_some() && scene.pool.is_outrun() {
            // It may belong to somebody of whom this shard is about to learn, from whom it must not be taken.
            return key;
        }
        self.evidence.candidates.clear();
        self.ticks.clear();
        self.offer(scene, chosen, Role::Placed, 0, 0);
        key
    }

    fn offer_assignee(&mut self, scene: &Scene<'_, '_>, assignment: AssignmentMode) -> Option<u32> {
        match assignment {
            AssignmentMode::Random => drop(self.gather_random(scene)),
            AssignmentMode::MinLoad => self.offer_least(scene),
            AssignmentMode::MinGroup => match self.fewest_keys(scene) {
                Some(worker) => drop(self.offer(scene, worker, Role::Drawn, 0, 0)),
                None => self.offer_least(scene),
            },
        }
        self.evidence.candidates.first().map(|candidate| candidate.worker)
    }

    /// Of all members of a small pool, or of some drawn from a large one: who has the fewest keys for its weight.
    fn fewest_keys(&mut self, scene: &Scene<'_, '_>) -> Option<u32> {
        let members = &scene.pool.members;
        let looks = members.len().min(GROUPS_LOOKED_AT_MAX);
        let begin = if members.is_empty() { 0 } else { self.rng.random_range(0..members.len()) };
        let mut best: Option<(u64, u32)> = None;
        for look in 0..looks {
            let at =
                if looks == members.len() { begin + look } else { self.rng.random_range(0..members.len()) };
            let worker = members[at % members.len()];
            let Some(entry) =
                scene.snapshot.fleet.workers.get(worker).filter(|_| scene.cost(worker).is_some())
            else {
                continue;
            };
            let keys = u64::from(entry.cells.keys()) * u64::from(entry.request_cost());
            if best.is_none_or(|(fewest, _)| keys < fewest) {
                best = Some((keys, worker));
            }
        }
        best.map(|(_, worker)| worker)
    }
}

/// The worker at a position among all registered ones of the model.
pub(crate) fn named(scene: &Scene<'_, '_>, target: &[u8]) -> Option<u32> {
    let position: usize = std::str::from_utf8(target).ok()?.trim().parse().ok()?;
    let worker = *scene.pool.registered.get(position)?;
    scene.cost(worker).map(|_| worker)
}
