//! The pool of one model from publication to publication: lists of indexes, turns and ring, changed where they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::board::Board;
use fleet::ring::Layout;
use fleet::ring::Ring;
use fleet::ring::RingMember;
use fleet::rules::Policy;
use fleet::snapshot::Pool;
use fleet::snapshot::PoolName;
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
    /// For the bucket policy: where one member's range of lengths ends and the next one's begins.
    bounds: Arc<[u32]>,
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

/// The order of turns.
#[derive(Debug, Default)]
struct Turns {
    /// Indexes of members by weight, each list ascending.
    classes: BTreeMap<Weight, Vec<u32>>,
    /// As published; none while it is not made from the members there are now.
    shared: Option<Arc<[u32]>>,
}

/// Turns that a pool has at most: so many a member, and so many more, with which a small pool is exact. A change of
/// ten thousand members that weigh all sorts of things makes 41,024 turns anew, not millions.
const TURNS_PER_MEMBER_MAX: usize = 4;
const TURNS_MORE_MAX: usize = 1024;

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
            self.turns.set(before.weight, before.id.index, false);
            self.left.push(before);
        }
        if let Some(now) = now {
            self.members.set(now.id.index, true);
            self.turns.set(now.weight, now.id.index, true);
            self.joined.push(now);
        }
    }

    /// Makes the pool anew if anything about it has changed. `arrivals` gets who enters which board.
    pub(super) fn publish(
        &mut self,
        name: &PoolName,
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
                && Arc::ptr_eq(&before.bounds, &self.bounds)
                && before.policy == model.policy
        });
        if is_same {
            return;
        }
        let arrivals = self.change_boards(&model.board, arrivals);
        let members = self.members.share();
        let turns = self.turns.share(&members);
        self.change_ring(model.policy.ring_layout(), &members, workers);
        self.change_bounds(model, members.len());
        self.left.clear();
        self.joined.clear();
        self.published = Some(Arc::new(Pool {
            name: name.clone(),
            policy: model.policy,
            block_seed: model.block_seed,
            members,
            turns,
            registered: self.registered.share(),
            ring: self.ring.clone(),
            bounds: Arc::clone(&self.bounds),
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

    /// Gives other ranges of lengths to the members; true if they had others.
    pub(super) fn set_bounds(&mut self, bounds: Vec<u32>) -> bool {
        let is_new = *self.bounds != *bounds;
        if is_new {
            self.bounds = bounds.into();
        }
        is_new
    }

    /// Makes the ranges of lengths anew if there are more or fewer members than ranges: everybody has one at once.
    fn change_bounds(&mut self, model: &Model, members: usize) {
        let ranges = if matches!(model.policy, Policy::Bucket(_)) { members } else { 0 };
        if self.bounds.len() != ranges.saturating_sub(1) {
            self.bounds = model.lengths.bounds(ranges).into();
        }
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
    fn set(&mut self, weight: Weight, index: u32, is_in: bool) {
        let class = self.classes.entry(weight).or_default();
        match (class.binary_search(&index), is_in) {
            (Err(at), true) => class.insert(at, index),
            (Ok(at), false) => drop(class.remove(at)),
            (Ok(_), true) | (Err(_), false) => {}
        }
        if class.is_empty() {
            self.classes.remove(&weight);
        }
        self.shared = None;
    }

    /// The order of `members`: they themselves while all weigh the same.
    fn share(&mut self, members: &Arc<[u32]>) -> Arc<[u32]> {
        let made = || if self.classes.len() > 1 { order(&self.classes).into() } else { Arc::clone(members) };
        Arc::clone(self.shared.get_or_insert_with(made))
    }
}

/// Every member as often as its weight says, spread evenly: the k-th of n turns stands at (k + 1/2) / n between 0 and 1.
pub(super) fn order(classes: &BTreeMap<Weight, Vec<u32>>) -> Vec<u32> {
    let turns = turns_each(classes);
    let mut places: Vec<(f64, &[u32])> = Vec::new();
    for (members, turns) in classes.values().zip(turns) {
        places.extend((0..turns).map(|turn| ((f64::from(turn) + 0.5) / f64::from(turns), &**members)));
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    places.into_iter().flat_map(|(_, members)| members).copied().collect()
}

/// The turns of a member of each class: the least that are exactly in proportion, or, if those were too many for the
/// pool, about in proportion and at least one.
fn turns_each(classes: &BTreeMap<Weight, Vec<u32>>) -> Vec<u32> {
    let unit = classes.keys().fold(0, |unit, weight| divisor(unit, weight.parts()));
    let turns = classes.keys().map(|weight| weight.parts() / unit.max(1));
    let total: u64 =
        turns.clone().zip(classes.values()).map(|(turns, of)| u64::from(turns) * of.len() as u64).sum();
    let members: usize = classes.values().map(Vec::len).sum();
    let turns_max = members * TURNS_PER_MEMBER_MAX + TURNS_MORE_MAX;
    if total <= turns_max as u64 {
        return turns.collect();
    }
    // Rounding, and the one turn that everybody has, add less than one a member.
    let scale = (turns_max - members) as f64 / total as f64;
    turns.map(|turns| (f64::from(turns) * scale).round().max(1.0) as u32).collect()
}

/// The greatest number that divides both; of 0 and another, that other.
fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}

pub(super) fn ring_member(worker: &Worker) -> RingMember<'_> {
    RingMember { index: worker.id.index, url: &worker.url, weight: worker.ring_weight.ratio() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns of each of these members, given as a priority and how many have it.
    fn counts(priorities: &[(u32, u32)]) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut members = 0;
        for &(priority, count) in priorities {
            (members..members + count).for_each(|index| turns.set(Weight::of(priority, 1.0), index, true));
            members += count;
        }
        let order = turns.share(&(0..members).collect());
        let mut counts = vec![0; members as usize];
        order.iter().for_each(|&index| counts[index as usize] += 1);
        counts
    }

    #[test]
    fn turns_are_the_least_in_exact_proportion() {
        assert_eq!(counts(&[(50, 1), (70, 1)]), [5, 7]);
        assert_eq!(counts(&[(50, 2), (100, 1)]), [1, 1, 2]);
        assert_eq!(counts(&[(70, 3)]), [1, 1, 1]);
        assert_eq!(counts(&[(1, 1), (800, 1)]), [1, 256], "a sixteenth is the least");
        assert_eq!(counts(&[(51, 1), (52, 1), (53, 1)]), [51, 52, 53]);
    }

    #[test]
    fn turns_are_spread_evenly() {
        let mut turns = Turns::default();
        turns.set(Weight::of(50, 1.0), 0, true);
        turns.set(Weight::of(200, 1.0), 1, true);
        assert_eq!(*turns.share(&[0, 1].into()), [1, 1, 0, 1, 1]);
    }

    #[test]
    fn turns_of_a_large_pool_are_few_and_everybody_has_one() {
        let members = 10_000;
        let counts = counts(&[(1, members / 2 - 1), (77, 1), (800, members / 2)]);
        assert!(counts.iter().all(|&turns| turns > 0));
        let total: usize = counts.iter().sum();
        assert!(total <= members as usize * TURNS_PER_MEMBER_MAX + TURNS_MORE_MAX, "{total}");
        let (light, heavy) = (counts[0], counts[members as usize - 1]);
        assert!(heavy >= 6 * light, "{light} to {heavy}");
    }
}
