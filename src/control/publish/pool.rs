//! The pool of one model from publication to publication: lists of indexes, turns and ring, changed where they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::board::Board;
use fleet::ring::Layout;
use fleet::ring::Ring;
use fleet::ring::RingMember;
use fleet::rules::Policy;
use fleet::snapshot::Pool;
use fleet::snapshot::Weight;
use fleet::snapshot::Worker;
use fleet::snapshot::WorkerTable;

use crate::control::models::Model;
use crate::control::publish::pages::Card;

/// A model that somebody serves.
#[derive(Debug, Default)]
pub(super) struct PoolBook {
    registered: IndexList,
    members: IndexList,
    turns: Turns,
    ring: Option<Arc<Ring>>,
    /// Members that have left and joined since the last publication.
    left: Vec<Arc<Worker>>,
    joined: Vec<Arc<Worker>>,
    /// How `/v1/models` shows it; none while it has no member.
    card: Option<Card>,
    published: Option<Arc<Pool>>,
}

/// Indexes in ascending order, shared once they are published.
#[derive(Debug, Default)]
struct IndexList {
    sorted: Vec<u32>,
    shared: Option<Arc<[u32]>>,
}

/// The order of turns, by where each of them stands between 0 and 1.
#[derive(Debug, Default)]
struct Turns {
    /// Members by weight.
    weights: BTreeMap<Weight, usize>,
    /// Empty while all weigh the same, and the members are the order.
    places: Vec<(f64, u32)>,
    /// The weight of one turn when `places` was made.
    unit: Option<Weight>,
    shared: Option<Arc<[u32]>>,
}

// === impl PoolBook ===

impl PoolBook {
    /// Says whether the worker under this index serves the model at all.
    pub(super) fn set_registered(&mut self, index: u32, is_registered: bool) {
        self.registered.set(index, is_registered);
    }

    /// Replaces a member; either may be nobody.
    pub(super) fn set_member(&mut self, before: Option<Arc<Worker>>, now: Option<Arc<Worker>>) {
        // What a ring and the turns go by is whom they name and how much it weighs.
        let place = |worker: &Arc<Worker>| (worker.id, worker.weight);
        if before.as_ref().map(place) == now.as_ref().map(place) {
            return;
        }
        if let Some(before) = before {
            self.members.set(before.id.index, false);
            self.turns.count(before.weight, false);
            self.left.push(before);
        }
        if let Some(now) = now {
            self.members.set(now.id.index, true);
            self.turns.count(now.weight, true);
            self.joined.push(now);
        }
    }

    /// Makes the pool anew if anything about it has changed. `arrivals` gets who enters which board.
    pub(super) fn publish(
        &mut self,
        name: &str,
        model: &Model,
        workers: &WorkerTable,
        arrivals: &mut Vec<(Arc<Board>, u32)>,
    ) {
        let before = self.published.as_ref();
        let is_same = before.is_some_and(|before| {
            self.members.is_shared()
                && self.registered.is_shared()
                && self.left.is_empty()
                && self.joined.is_empty()
                && Arc::ptr_eq(&before.board, &model.board)
                && Arc::ptr_eq(&before.bounds, &model.bounds)
                && before.policy == model.policy
        });
        if is_same {
            return;
        }
        let arrivals = self.change_boards(&model.board, arrivals);
        let members = self.members.share();
        let turns = self.turns.publish(&members, &self.left, &self.joined, workers);
        self.change_ring(ring_layout(&model.policy), &members, workers);
        self.left.clear();
        self.joined.clear();
        self.published = Some(Arc::new(Pool {
            model: name.into(),
            policy: model.policy,
            block_seed: model.block_seed,
            members,
            turns,
            registered: self.registered.share(),
            ring: self.ring.clone(),
            bounds: Arc::clone(&model.bounds),
            rotation: Arc::clone(&model.rotation),
            board: Arc::clone(&model.board),
            arrivals,
            lengths: Arc::clone(&model.lengths),
            stats: Arc::clone(&model.stats),
        }));
    }

    pub(super) fn published(&self) -> Option<&Arc<Pool>> {
        self.published.as_ref()
    }

    /// Whether nobody serves the model any more.
    pub(super) fn is_empty(&self) -> bool {
        self.registered.sorted.is_empty()
    }

    pub(super) fn first_member(&self) -> Option<u32> {
        self.members.sorted.first().copied()
    }

    pub(super) fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// Says how the model is shown; true if it was shown otherwise.
    pub(super) fn set_card(&mut self, card: Option<Card>) -> bool {
        let is_new = self.card != card;
        self.card = card;
        is_new
    }

    /// Takes who left off the board, and has who joined enter it; returns the count of arrivals once they have. A model
    /// that was without workers may have another board than before.
    fn change_boards(&mut self, board: &Arc<Board>, arrivals: &mut Vec<(Arc<Board>, u32)>) -> u64 {
        let old = self.published.as_ref().map_or(board, |before| &before.board);
        // Who only weighs something else now stays: a fleet of one must not be without it for a moment.
        let is_gone = |worker: &&Arc<Worker>| self.joined.iter().all(|joined| joined.id != worker.id);
        self.left.iter().filter(is_gone).for_each(|worker| old.set_present(worker.id.index, false));
        let earlier = arrivals.len();
        if !Arc::ptr_eq(old, board) {
            self.members.sorted.iter().for_each(|&index| old.set_present(index, false));
            arrivals.extend(self.members.sorted.iter().map(|&index| (Arc::clone(board), index)));
        } else {
            arrivals.extend(self.joined.iter().map(|worker| (Arc::clone(board), worker.id.index)));
        }
        let is_new = |(board, index): &&(Arc<Board>, u32)| board.cost(*index).is_none();
        board.arrivals() + arrivals[earlier..].iter().filter(is_new).count() as u64
    }

    fn change_ring(&mut self, layout: Option<Layout>, members: &[u32], workers: &WorkerTable) {
        let Some(layout) = layout else {
            self.ring = None;
            return;
        };
        let ring = self.ring.take().filter(|ring| ring.layout() == layout);
        self.ring = Some(match ring {
            Some(ring) if self.left.is_empty() && self.joined.is_empty() => ring,
            Some(ring) => {
                let [left, joined] = [&self.left, &self.joined]
                    .map(|workers| workers.iter().map(|worker| ring_member(worker)).collect::<Vec<_>>());
                Arc::new(ring.changed(&left, &joined))
            }
            None => {
                let workers = members.iter().filter_map(|&index| workers.get(index));
                let members: Vec<RingMember<'_>> = workers.map(|worker| ring_member(worker)).collect();
                Arc::new(Ring::new(layout).changed(&[], &members))
            }
        });
    }
}

// === impl IndexList ===

impl IndexList {
    fn set(&mut self, index: u32, is_in: bool) {
        match (self.sorted.binary_search(&index), is_in) {
            (Err(at), true) => self.sorted.insert(at, index),
            (Ok(at), false) => drop(self.sorted.remove(at)),
            (Ok(_), true) | (Err(_), false) => return,
        }
        self.shared = None;
    }

    fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn share(&mut self) -> Arc<[u32]> {
        Arc::clone(self.shared.get_or_insert_with(|| self.sorted.as_slice().into()))
    }
}

// === impl Turns ===

impl Turns {
    fn count(&mut self, weight: Weight, is_more: bool) {
        let members = self.weights.entry(weight).or_default();
        *members = if is_more { *members + 1 } else { members.saturating_sub(1) };
        if *members == 0 {
            self.weights.remove(&weight);
        }
    }

    /// The order after some have left and joined.
    fn publish(
        &mut self,
        members: &Arc<[u32]>,
        left: &[Arc<Worker>],
        joined: &[Arc<Worker>],
        workers: &WorkerTable,
    ) -> Arc<[u32]> {
        let unit = self.weights.first_key_value().map(|(weight, _)| *weight);
        let Some(unit) = unit.filter(|_| self.weights.len() > 1) else {
            *self = Self { weights: std::mem::take(&mut self.weights), ..Self::default() };
            return Arc::clone(members);
        };
        if self.unit == Some(unit) {
            if let (Some(shared), [], []) = (&self.shared, left, joined) {
                return Arc::clone(shared);
            }
            let mut gone: Vec<u32> = left.iter().map(|worker| worker.id.index).collect();
            gone.sort_unstable();
            self.places.retain(|(_, index)| gone.binary_search(index).is_err());
            self.places.extend(joined.iter().flat_map(|worker| places(worker, unit)));
        } else {
            let members = members.iter().filter_map(|&index| workers.get(index));
            self.places = members.flat_map(|worker| places(worker, unit)).collect();
        }
        // Two ordered runs, which a stable sort merges.
        self.places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.unit = Some(unit);
        Arc::clone(self.shared.insert(self.places.iter().map(|(_, index)| *index).collect()))
    }
}

/// The places of one worker's turns, spread evenly: the k-th turn of one that weighs w stands at (k + 1/2) / w.
pub(super) fn places(worker: &Worker, unit: Weight) -> impl Iterator<Item = (f64, u32)> + use<> {
    let (index, turns) = (worker.id.index, (worker.weight.ratio() / unit.ratio()).round().max(1.0));
    (0..turns as u32).map(move |turn| ((f64::from(turn) + 0.5) / turns, index))
}

/// The ring that a policy reads, if any.
pub(super) fn ring_layout(policy: &Policy) -> Option<Layout> {
    match policy {
        Policy::ConsistentHashing | Policy::PrefixHash(_) => Some(Layout::Sglang),
        Policy::Session => Some(Layout::Uhashring),
        Policy::Random
        | Policy::RoundRobin
        | Policy::PowerOfTwo
        | Policy::CacheAware(_)
        | Policy::LeastLoad
        | Policy::Manual(_)
        | Policy::Bucket(_)
        | Policy::PrefixAware(_) => None,
    }
}

pub(super) fn ring_member(worker: &Worker) -> RingMember<'_> {
    RingMember { index: worker.id.index, url: &worker.url, weight: worker.weight.ratio() }
}
