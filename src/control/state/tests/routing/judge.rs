//! Judges choices by what is known of the fleet, of its loads and of earlier choices, without any code of the policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::blocks::bytes_covered;
use fleet::decision::Candidate;
use fleet::decision::Evidence;
use fleet::decision::Role;
use fleet::id::WorkerId;
use fleet::rules::CacheAware;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use policy::Choice;
use policy::Policy;
use policy::Reason;
use policy::Request;

use super::KEY_IDLE_S_MAX;
use super::flights::Flights;

/// Cost of a request on a worker of the usual weight.
const REQUEST: u64 = 256;
/// Turns of the rotation that are looked at for somebody who can be chosen, beside one per excluded worker.
const TURNS_LOOKED_AT: usize = 16;
/// Seconds by which the clocks of control and shards may differ.
const SKEW_S: u32 = 1;

/// What earlier choices mean for later ones.
#[derive(Default)]
pub(super) struct Book {
    /// By model: turns taken.
    turns: BTreeMap<Box<str>, u64>,
    /// By model and key: whom manual assigned it to, and when it was last used.
    keys: BTreeMap<(Box<str>, Vec<u8>), (WorkerId, u32)>,
    /// By model's seed and answer: who has it, and since when.
    answers: BTreeMap<(u64, Vec<u8>), (WorkerId, u32)>,
    pub(super) seen: Seen,
}

/// What a run has come across.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) policies: BTreeMap<&'static str, u64>,
    pub(super) reasons: BTreeMap<&'static str, u64>,
    /// Choices over a snapshot whose pool did not know everybody.
    pub(super) outrun: u64,
    pub(super) keys_kept: u64,
    /// Workers that failed their checks, and processes found to be others than before.
    pub(super) lost: u64,
    pub(super) restarted: u64,
    pub(super) placements_held: u64,
}

/// A choice about to be made.
pub(super) struct Scene<'a> {
    /// What the shard routes by.
    pub(super) snapshot: &'a Snapshot,
    pub(super) pool: &'a Arc<Pool>,
    /// What control published last.
    pub(super) newest: &'a Snapshot,
    pub(super) flights: &'a Flights,
    pub(super) request: &'a Request<'a>,
}

// === impl Scene ===

impl Scene<'_> {
    /// Whether the newest pool with this board has somebody under the index: only those stand on the board.
    fn is_present(&self, index: u32) -> bool {
        let has =
            |pool: &&Arc<Pool>| Arc::ptr_eq(&pool.board, &self.pool.board) && pool.members.contains(&index);
        self.newest.fleet.pools.iter().any(|pool| has(&pool))
    }

    /// Whether a shard with this snapshot can choose who stands under the index.
    fn can_choose(&self, index: u32) -> bool {
        self.is_present(index)
            && self.pool.members.contains(&index)
            && self.request.excluded.iter().all(|excluded| excluded.index != index)
    }

    /// Whether this registration gets requests for the model by now.
    fn is_routable(&self, id: WorkerId) -> bool {
        self.newest.fleet.worker(id).is_some() && self.is_present(id.index)
    }

    /// Whether the shard would choose this registration if it wanted to.
    fn knows(&self, id: WorkerId) -> bool {
        self.snapshot.fleet.worker(id).is_some() && self.can_choose(id.index)
    }

    /// Whether the board adds up for the newest pool what it does for this one.
    fn has_same_policy(&self) -> bool {
        let is_same =
            |pool: &Arc<Pool>| Arc::ptr_eq(&pool.board, &self.pool.board) && pool.policy == self.pool.policy;
        self.newest.fleet.pools.iter().any(is_same)
    }

    fn cost(&self, index: u32) -> u64 {
        self.flights.cost(&self.pool.board, index)
    }

    fn choosable(&self) -> impl Iterator<Item = u32> + '_ {
        self.pool.members.iter().copied().filter(|&index| self.can_choose(index))
    }
}

// === impl Book ===

impl Book {
    /// Judges a choice that was made, or that there was none.
    pub(super) fn judge(&mut self, scene: &Scene<'_>, choice: Option<&Choice<'_>>, evidence: &Evidence) {
        let turn = self.take_turn(scene);
        let Some(choice) = choice else {
            assert!(
                scene.choosable().all(|index| !may_choose(scene, index)),
                "somebody could have been chosen"
            );
            return;
        };
        *self.seen.policies.entry(scene.pool.policy.name()).or_default() += 1;
        *self.seen.reasons.entry(choice.reason.name()).or_default() += 1;
        self.seen.outrun += u64::from(scene.pool.is_outrun());
        let id = choice.worker.id;
        assert!(scene.can_choose(id.index), "{id:?} is excluded, no member or off the board");
        let known = scene.snapshot.fleet.worker(id).expect("the choice stands in the shard's snapshot");
        assert!(Arc::ptr_eq(known, choice.worker) && !known.addresses.is_empty());

        let (at, reason) = policy::decide(&scene.pool.policy, evidence).expect("a candidate");
        let candidate = evidence.candidates[at];
        assert_eq!((candidate.worker, reason), (id.index, choice.reason), "the evidence says otherwise");
        match &scene.pool.policy {
            Policy::CacheAware(config) => {
                self.judge_pinned(scene, choice);
                if scene.has_same_policy() {
                    judge_bound(scene, config, &candidate);
                }
            }
            Policy::RoundRobin => judge_turn(scene, turn.expect("a turn was taken"), id.index),
            Policy::Manual(_) => self.judge_key(scene, choice),
            _ => {}
        }
    }

    /// Control has published: what was assigned under another policy counts no longer.
    pub(super) fn published(&mut self, snapshot: &Snapshot) {
        let is_manual = |model: &str| {
            let pool = snapshot.fleet.pools.iter().find(|pool| &*pool.name.model == model);
            pool.is_some_and(|pool| matches!(pool.policy, Policy::Manual(_)))
        };
        self.keys.retain(|(model, _), _| is_manual(model));
    }

    /// A worker has answered: who continues the answer belongs there.
    pub(super) fn answered(&mut self, block_seed: u64, answer: &[u8], worker: WorkerId, tick: u32) {
        self.answers.insert((block_seed, answer.to_vec()), (worker, tick));
    }

    fn take_turn(&mut self, scene: &Scene<'_>) -> Option<u64> {
        let takes = scene.pool.policy == Policy::RoundRobin && !scene.pool.turns.is_empty();
        let turns = self.turns.entry(scene.pool.name.model.clone()).or_default();
        takes.then(|| std::mem::replace(turns, *turns + 1))
    }

    fn judge_pinned(&self, scene: &Scene<'_>, choice: &Choice<'_>) {
        let Some(answer) = scene.request.keys.previous_answer else { return };
        let Some(&(owner, since)) = self.answers.get(&(scene.pool.block_seed, answer.to_vec())) else {
            return;
        };
        // Control forgets answers as it forgets keys.
        let is_kept = scene.request.tick.saturating_sub(since) + SKEW_S <= KEY_IDLE_S_MAX;
        if is_kept && scene.is_routable(owner) && scene.knows(owner) {
            assert_eq!((choice.worker.id, choice.reason), (owner, Reason::Pinned), "only it has the answer");
        }
    }

    /// A key stays with its worker as long as that gets requests, whichever shard asks and whatever it knows.
    fn judge_key(&mut self, scene: &Scene<'_>, choice: &Choice<'_>) {
        let Some(key) = scene.request.keys.routing.or(scene.request.keys.session) else { return };
        let (id, tick) = (choice.worker.id, scene.request.tick);
        let entry = (scene.pool.name.model.clone(), key.to_vec());
        let before = self.keys.get(&entry).copied();
        let is_excluded = |owner: WorkerId| scene.request.excluded.iter().any(|id| id.index == owner.index);
        if let Some((owner, used)) = before
            && scene.is_routable(owner)
            && !is_excluded(owner)
            && tick.saturating_sub(used) + SKEW_S <= KEY_IDLE_S_MAX
        {
            let is_known = scene.knows(owner);
            assert!(!is_known || owner == id, "key {key:?} of {owner:?} went to {id:?}");
            assert!(choice.reason != Reason::Assigned, "key {key:?} was taken from {owner:?}");
            if is_known {
                self.seen.keys_kept += 1;
                self.keys.insert(entry, (owner, used.max(tick)));
            }
        } else if matches!(choice.reason, Reason::Assigned | Reason::Key) {
            self.keys.insert(entry, (id, tick));
        }
    }
}

/// Whether nothing about the request speaks against the worker: who names one by its position gets that or none.
fn may_choose(scene: &Scene<'_>, index: u32) -> bool {
    match scene.request.keys.target {
        Some(target) if scene.pool.policy == Policy::ConsistentHashing => {
            let position = std::str::from_utf8(target).ok().and_then(|text| text.parse::<usize>().ok());
            position.and_then(|position| scene.pool.registered.get(position)) == Some(&index)
        }
        _ => true,
    }
}

/// Turn `turn` belongs to one member, and passes to the next in order if that cannot be chosen.
fn judge_turn(scene: &Scene<'_>, turn: u64, index: u32) {
    let turns = &scene.pool.turns;
    let looks = turns.len().min(TURNS_LOOKED_AT + scene.request.excluded.len());
    let order = (0..looks).map(|step| turns[(turn as usize + step) % turns.len()]);
    if let Some(expected) = order.into_iter().find(|&index| scene.can_choose(index)) {
        assert_eq!(index, expected, "turn {turn} of {turns:?}");
    }
}

/// Nobody gets more by affinity than the thresholds and the bounds on it allow.
fn judge_bound(scene: &Scene<'_>, config: &CacheAware, candidate: &Candidate) {
    let cost = scene.cost(candidate.worker);
    assert_eq!(u64::from(candidate.cost), cost, "the board adds up otherwise");
    let min = scene.choosable().map(|index| scene.cost(index)).min().expect("somebody was chosen");
    let by_difference = min + u64::from(config.balance_abs_threshold) * REQUEST;
    let by_ratio = (min as f64 * f64::from(config.balance_rel_threshold)).floor() as u64;
    let balanced = by_difference.max(by_ratio);
    // With this request, nobody has more than the factor over the average, in whole requests.
    let requests = scene.flights.total(&scene.pool.board) as f64 / REQUEST as f64 + 1.0;
    let members = (0..64).filter(|&index| scene.is_present(index)).count() as f64;
    let share = (f64::from(config.affinity_load_factor) * requests / members).ceil() as u64;
    let by_share =
        if config.affinity_load_factor >= 1.0 { share.saturating_sub(1) * REQUEST } else { u64::MAX };
    let matched = bytes_covered(u32::from(candidate.matched), scene.request.prompt_bytes);
    let slack = match candidate.role {
        Role::Holder | Role::Recent => (matched / 4096).min(8) as u64,
        Role::Key => 1,
        // The least loaded, and who is about as light.
        Role::Least | Role::Spare => {
            assert!(cost <= min + REQUEST, "{cost} is not light beside {min}");
            return;
        }
        // Whoever has the answer that the request continues is chosen whatever it has to do.
        Role::Pinned => return,
        Role::Turn | Role::Drawn | Role::Placed => unreachable!("no candidate of cache_aware"),
    };
    let bound = balanced.min(by_share.max(min + slack * REQUEST));
    assert!(cost <= bound, "{cost} of {min} at least is more than {bound}: {candidate:?}");
}
