//! Policies that need no knowledge of the request: random, round_robin and power_of_two.

use fleet::decision::Role;
use rand::RngExt;

use crate::Replica;
use crate::Scene;

/// Draws before an excluded worker is given up as unavoidable: by then nearly all members are excluded.
const DRAWS_MAX: usize = 16;

impl Replica {
    pub(crate) fn gather_random(&mut self, scene: &Scene<'_, '_>) -> u64 {
        match self.draw(scene, None) {
            Some(worker) => drop(self.offer(scene, worker, Role::Drawn, 0, 0)),
            None => self.offer_least(scene),
        }
        0
    }

    /// The member whose turn it is; one that cannot be chosen passes its turn to the next in order.
    pub(crate) fn gather_turn(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let turns = &scene.pool.turns;
        if turns.is_empty() {
            return 0;
        }
        let start = (scene.pool.next_turn() % turns.len() as u64) as usize;
        // A retry passes over those it failed on; members that left a moment ago are few.
        let found = (0..turns.len().min(DRAWS_MAX + scene.excluded.len()))
            .map(|step| turns[(start + step) % turns.len()])
            .find(|&worker| scene.cost(worker).is_some());
        match found {
            Some(worker) => drop(self.offer(scene, worker, Role::Turn, 0, 0)),
            None => self.offer_least(scene),
        }
        0
    }

    /// Two distinct members, each as likely as its weight.
    pub(crate) fn gather_two(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let first = self.draw(scene, None);
        let second = first.and_then(|first| self.draw(scene, Some(first)));
        for worker in first.into_iter().chain(second) {
            self.offer(scene, worker, Role::Drawn, 0, 0);
        }
        if first.is_none() {
            self.offer_least(scene);
        }
        0
    }

    /// A member that can be chosen and is not `other`, each as likely as its weight; none after too many misses.
    pub(crate) fn draw(&mut self, scene: &Scene<'_, '_>, other: Option<u32>) -> Option<u32> {
        let turns = &scene.pool.turns;
        if turns.is_empty() {
            return None;
        }
        if let (Some(other), true) =
            (other, scene.excluded.is_empty() && turns.len() == scene.pool.members.len())
        {
            // Two distinct picks without a loop: draw from one fewer, step over the other.
            let at = turns.binary_search(&other).ok()?;
            let drawn = (turns.len() > 1).then(|| self.rng.random_range(0..turns.len() - 1))?;
            let worker = turns[drawn + usize::from(drawn >= at)];
            return scene.cost(worker).map(|_| worker);
        }
        (0..DRAWS_MAX)
            .map(|_| turns[self.rng.random_range(0..turns.len())])
            .find(|&worker| Some(worker) != other && scene.cost(worker).is_some())
    }
}
