//! What control looks after from time to time: ranges of prompt lengths, and keys that nobody uses any more.

use std::time::Duration;

use fleet::rules::Policy;
use fleet::tree::HolderId;

use super::News;
use super::State;
use crate::control::limits;

/// When what is due next.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    bounds_due: Option<Duration>,
    sweep_due: Option<Duration>,
    /// Blocks the tree had lost when the holders' numbers were last made right.
    evicted_blocks_seen: u64,
    held_due: Duration,
    /// When breakers are looked at, at the first occasion.
    circuits_due: Duration,
}

impl State {
    pub(super) fn next_upkeep(&self) -> Option<Duration> {
        [self.upkeep.bounds_due, self.upkeep.sweep_due].into_iter().flatten().min()
    }

    /// Does what is due by `now`, and plans the next time for what is needed at all.
    pub(super) fn keep_up(&mut self, now: Duration) {
        self.count_held(now);
        if now >= self.upkeep.circuits_due {
            self.look_at_circuits(now);
            self.upkeep.circuits_due = now + limits::CIRCUITS_INTERVAL;
        }
        // What was not needed may be since the fleet has changed.
        let has_changed = self.news == News::Fleet;
        let is_due = |due: Option<Duration>| due.map_or(has_changed, |due| due <= now);
        if is_due(self.upkeep.bounds_due) {
            let has_ranges = self.adjust_ranges();
            self.upkeep.bounds_due = has_ranges.then(|| now + self.config.bucket_adjust_interval);
        }
        if is_due(self.upkeep.sweep_due) {
            let has_keys = self.sweep_keys(now);
            self.upkeep.sweep_due = has_keys.then(|| now + self.config.eviction_interval);
        }
    }

    /// Tells shards how many blocks each worker holds by now. A placement tells its own worker's number at once; this is
    /// for those who lost blocks to a bound meanwhile.
    fn count_held(&mut self, now: Duration) {
        let evicted = self.tree.evicted_blocks_total();
        if evicted == self.upkeep.evicted_blocks_seen || now < self.upkeep.held_due {
            return;
        }
        for entry in self.registry.registered() {
            entry.cells.set_held_blocks(self.tree.holder_blocks(HolderId(entry.id.index)));
        }
        self.upkeep.evicted_blocks_seen = evicted;
        self.upkeep.held_due = now + limits::HELD_BLOCKS_INTERVAL;
    }

    /// Moves the ranges of every bucket model to the lengths seen lately; false if there is no such model.
    fn adjust_ranges(&mut self) -> bool {
        let mut has_ranges = false;
        let mut has_moved = false;
        for (name, model) in self.models.iter_mut() {
            if !matches!(model.policy, Policy::Bucket(_)) || model.workers == 0 {
                continue;
            }
            has_ranges = true;
            // A pool that is new, or has other members by the next publication, gets ranges there.
            let Some(pool) = self.fleet.pools.iter().find(|pool| pool.name == *name) else { continue };
            has_moved |= self.publisher.set_bounds(name, model.lengths.take_bounds(pool.members.len()));
        }
        if has_moved {
            self.changed(News::Fleet);
        }
        has_ranges
    }

    /// Forgets keys that were not used for the time their policy allows, or whose worker has left; false if no policy
    /// keeps keys.
    fn sweep_keys(&mut self, now: Duration) -> bool {
        let keeps_keys = |policy: &Policy| matches!(policy, Policy::Manual(_) | Policy::CacheAware(_));
        if !self.models.iter_mut().any(|(_, model)| keeps_keys(&model.policy) && model.workers > 0) {
            return false;
        }
        let tick = now.as_secs() as u32;
        let idle_s_max = self.config.rules.manual.max_idle_s;
        let fleet = &self.fleet;
        let mut kept = vec![0; fleet.workers.index_end() as usize];
        self.sticky.sweep(|key, owner| {
            let is_registered = fleet.workers.get(owner.index).is_some_and(|worker| owner.is(worker.id));
            let is_over = !is_registered || owner.idle_s(tick) > idle_s_max;
            if !is_over && !policy::is_answer(key) {
                kept[owner.index as usize] += 1;
            }
            is_over
        });
        // Keys that gave way in a full set were not counted out: this is the true number.
        fleet.workers.iter().for_each(|worker| worker.cells.set_keys(kept[worker.id.index as usize]));
        true
    }
}
