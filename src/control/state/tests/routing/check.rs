//! What must hold after every step: of the fleet, of its boards, and of what the tree says its workers hold.

use std::time::Duration;

use fleet::id::WorkerId;
use fleet::rules::Policy;
use fleet::tree::HolderId;
use rand::RngExt;

use super::MODELS;
use super::Simulation;
use super::engines::prefixes;
use super::flights::Leg;
use super::judge::Seen;
use super::traffic::CONVERSATIONS;
use super::traffic::LONG_BLOCKS_MAX;
use super::traffic::prompt;
use crate::control::publish::Rings;
use crate::control::stats::Health;

/// Prompts looked up in the tree after a step, of all there are.
const LOOKUPS: usize = 4;

impl Simulation {
    pub(super) fn check(&mut self) {
        let is_new = std::mem::replace(&mut self.version, self.rig.snapshot.version) != self.version;
        if is_new {
            self.rig.state.check_fleet(Rings::Left);
        }
        self.check_boards();
        self.check_tree(LOOKUPS);
    }

    fn check_boards(&self) {
        for pool in &self.rig.snapshot.fleet.pools {
            // These count what engines say they have to do for others, too.
            if matches!(pool.policy, Policy::PowerOfTwo | Policy::LeastLoad) {
                assert!(pool.board.total() >= self.flights.total(&pool.board));
                continue;
            }
            assert_eq!(pool.board.total(), self.flights.total(&pool.board));
            for &index in &*pool.members {
                let cost = self.flights.cost(&pool.board, index);
                assert_eq!(pool.board.cost(index).map(u64::from), Some(cost));
            }
        }
    }

    /// Whoever the tree shows as a holder was sent the prefix, and is the process that it was sent to.
    fn check_tree(&mut self, lookups: usize) {
        let state = &self.rig.state;
        assert!(state.tree.bytes() <= self.prefix_bytes_max || state.tree.nodes() == 0, "too many bytes");
        for (index, slot) in state.registry.slots().iter().enumerate() {
            let blocks = state.tree.holder_blocks(HolderId(index as u32));
            let ready = slot.as_ref().filter(|entry| entry.health() == Health::Ready);
            let most = ready.map_or(0, |entry| self.engines.blocks(entry.id));
            assert!(blocks <= most, "worker {index} holds {blocks} blocks of {most}");
        }
        let snapshot = &self.rig.snapshot;
        for _ in 0..lookups {
            let Some(pool) = snapshot.fleet.pools.get(self.rng.random_range(0..MODELS as usize)) else {
                continue;
            };
            let conversation = self.rng.random_range(0..CONVERSATIONS);
            let blocks = prompt(pool.block_seed, conversation, LONG_BLOCKS_MAX);
            let prefixes: Vec<u64> = prefixes(&blocks).collect();
            for step in snapshot.tree.trail(&blocks).deepest_first() {
                for (holder, _) in step.holders() {
                    let worker = snapshot.fleet.workers.get(holder.0).expect("a holder is registered");
                    let prefix = prefixes[step.blocks as usize - 1];
                    assert!(self.engines.was_sent(worker.id, prefix), "{:?} never got this", worker.id);
                    self.book.seen.placements_held += 1;
                }
            }
        }
    }

    /// Everything ends: nothing is left on any board.
    pub(super) fn finish(mut self) -> Seen {
        self.check_tree(100);
        self.flights.legs.drain(..).for_each(Leg::end);
        let registered: Vec<WorkerId> = self.rig.state.registry.registered().map(|entry| entry.id).collect();
        let now = self.rig.now;
        registered.into_iter().for_each(|id| self.rig.state.remove(id, now, &mut Vec::new()));
        self.pass(Duration::from_secs(1));
        for board in self.flights.boards() {
            assert_eq!((board.total(), board.present()), (0, 0), "something is left on a board");
        }
        assert!(self.rig.snapshot.fleet.workers.iter().next().is_none());
        assert_eq!(self.rig.state.tree.blocks(), 0);
        self.book.seen
    }
}
