//! Data-parallel ranks: an engine that runs its model several times behind one address is one routable unit per rank.
//!
//! Invariants
//! - The registration itself is the first rank; the others stand beside it, and come, change and go with it.
//! - What speaks of workers by address (settings, sources, health) speaks of all ranks there.

use std::time::Duration;

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
        let first = self.registry.by_url(&entry.spec.url.at_rank(None)).map(|entry| entry.id);
        let further = self.further_ranks(&entry.spec.url);
        first.into_iter().chain(further).collect()
    }

    fn further_ranks(&self, url: &WorkerUrl) -> impl Iterator<Item = WorkerId> {
        let unit = |rank| self.registry.by_url(&url.at_rank(Some(rank))).map(|entry| entry.id);
        (1..=u16::MAX).map_while(unit)
    }

    /// A worker has said what it is: brings the units behind its address to the ranks that it has.
    pub(super) fn count_ranks(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        if entry.spec.url.is_further_rank() {
            return;
        }
        let ranks = if self.config.dp_aware { entry.metadata.ranks() } else { 1 };
        let first = (ranks > 1).then_some(0);
        if entry.spec.url.rank != first {
            entry.set_rank(first);
            info!(worker = %entry.spec.url.text, ranks, "worker has other ranks than before");
            self.touch(id);
        }
        let Some(entry) = self.registry.get(id) else { return };
        let spec = entry.spec.clone();
        let there: Vec<WorkerId> = self.further_ranks(&spec.url).collect();
        for &id in there.iter().skip(usize::from(ranks) - 1) {
            self.remove_unit(id, now, orders);
        }
        for rank in there.len() as u16 + 1..ranks {
            if !self.registry.has_room() {
                return warn!(worker = %spec.url.text, rank, "no room for more ranks");
            }
            self.register(WorkerSpec { url: spec.url.at_rank(Some(rank)), ..spec.clone() }, now);
        }
    }
}
