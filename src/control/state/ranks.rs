//! Data-parallel ranks: an engine that runs its model several times behind one address is one routable unit per rank.
//!
//! Invariants
//! - The registration itself is the first rank; the others stand beside it, and come, change and go with it.
//! - What speaks of workers by address (settings, sources, health) speaks of all ranks there.

use std::time::Duration;

use engine::metadata::RANKS_MAX;
use fleet::id::WorkerId;
use tracing::info;
use tracing::warn;

use super::Order;
use super::State;
use crate::control::url::WorkerUrl;
use crate::control::worker::WorkerSpec;

impl State {
    /// Everybody behind the address of the registered worker `id`, the registration itself first.
    pub(super) fn ranks_of(&self, id: WorkerId) -> Vec<WorkerId> {
        let Some(entry) = self.registry.get(id) else { return Vec::new() };
        let url = &entry.spec.url;
        let first = self.registry.by_url(&url.at_rank(None)).map(|entry| entry.id);
        // Any of them may be missing: one that never became healthy was given up.
        let further = if url.rank.is_some() { 1..RANKS_MAX } else { 0..0 };
        first.into_iter().chain(further.filter_map(|rank| self.unit(url, rank))).collect()
    }

    fn unit(&self, url: &WorkerUrl, rank: u16) -> Option<WorkerId> {
        self.registry.by_url(&url.at_rank(Some(rank))).map(|entry| entry.id)
    }

    /// A worker has said what it is: brings the units behind its address to the ranks that it has.
    pub(super) fn count_ranks(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        if entry.spec.url.is_further_rank() {
            return;
        }
        let ranks = if self.config.dp_aware { entry.metadata.ranks() } else { 1 };
        let first = (ranks > 1).then_some(0);
        let had_ranks = entry.spec.url.rank.is_some();
        if entry.spec.url.rank != first {
            entry.set_rank(first);
            info!(worker = %entry.spec.url.text, ranks, "worker has other ranks than before");
            self.touch(id);
        }
        let Some(entry) = self.registry.get(id) else { return };
        let spec = entry.spec.clone();
        for rank in (ranks..RANKS_MAX).filter(|_| had_ranks) {
            if let Some(id) = self.unit(&spec.url, rank) {
                self.remove_unit(id, now, orders);
            }
        }
        for rank in 1..ranks {
            if self.unit(&spec.url, rank).is_some() {
                continue;
            }
            if !self.registry.has_room() {
                return warn!(worker = %spec.url.text, rank, "no room for more ranks");
            }
            self.register(WorkerSpec { url: spec.url.at_rank(Some(rank)), ..spec.clone() }, now);
        }
    }
}
