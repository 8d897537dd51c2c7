//! Workers that a source keeps finding: the fleet is brought to what the source says, whatever was missed in between.

use std::collections::HashMap;
use std::time::Duration;

use fleet::id::WorkerId;
use tracing::warn;

use super::Order;
use super::State;
use crate::control::event::Discovered;
use crate::control::worker::Entry;
use crate::control::worker::WorkerSpec;

impl State {
    /// Brings the workers of one source to what it says now: those it names are added, or changed if its own word has
    /// changed, and those it does not name are removed. Workers of others stay as they are, also under the same URL.
    pub(super) fn discovered(&mut self, discovered: Discovered, now: Duration, orders: &mut Vec<Order>) {
        let Discovered { source, workers } = discovered;
        let mut wanted: HashMap<_, _> = workers.into_iter().map(|spec| (spec.url.key(), spec)).collect();
        let ids: Vec<WorkerId> = self.registry.registered().map(|entry| entry.id).collect();
        for id in ids {
            let Some(entry) = self.registry.get(id).filter(|entry| !entry.spec.url.is_further_rank()) else {
                continue;
            };
            let spec = wanted.remove(&entry.spec.url.key());
            if entry.spec.source != source {
                continue;
            }
            match spec {
                None => self.remove(id, now, orders),
                Some(spec) if entry.discovered.as_deref() == Some(&spec) => {}
                Some(spec) if is_another(entry, &spec) => {
                    self.remove(id, now, orders);
                    self.find(spec, now);
                }
                Some(spec) => {
                    self.update(id, spec.clone(), now);
                    self.remember(id, spec);
                }
            }
        }
        // In an order that does not depend on how the table hashes.
        let mut new: Vec<_> = wanted.into_values().collect();
        new.sort_by(|a, b| a.url.text.cmp(&b.url.text));
        for spec in new {
            self.find(spec, now);
        }
    }

    /// Registers a worker that a source has found.
    fn find(&mut self, spec: WorkerSpec, now: Duration) {
        if let Err(error) = self.may_add(&spec.url) {
            return warn!(worker = %spec.url.text, ?error, "a worker that was found cannot be added");
        }
        let id = self.register(spec.clone(), now);
        self.remember(id, spec);
    }

    fn remember(&mut self, id: WorkerId, spec: WorkerSpec) {
        if let Some(entry) = self.registry.get_mut(id) {
            entry.discovered = Some(Box::new(spec));
        }
    }
}

/// Whether what a source says now is about another worker behind the same URL: it serves something else, or does another
/// part of it.
fn is_another(entry: &Entry, spec: &WorkerSpec) -> bool {
    let serves = |spec: &WorkerSpec| (spec.model_id.clone(), spec.policy().map(str::to_owned), spec.role);
    serves(&entry.spec) != serves(spec)
}
