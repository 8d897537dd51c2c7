//! Keeps the published fleet from change to change: what is published again costs what has changed, not what there is.
//!
//! State says which workers and models were touched. At the next publication each of them is compared with what was
//! published last, and the difference is applied: one chunk of the worker table, the lists of the models concerned,
//! the pages that show something else than before.
//!
//! Invariants
//! - What is published equals what would be made from the registry alone (the tests make it, and compare).
//! - A worker leaves the boards before a fleet without it is published, and enters them after one with it was: nobody
//!   is chosen whom a shard cannot look up.

mod pages;
mod pool;
#[cfg(test)]
mod scratch;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet::board::Board;
use fleet::snapshot::Aliases;
use fleet::snapshot::Fleet;
use fleet::snapshot::PoolName;
use fleet::snapshot::Role;
use fleet::snapshot::Worker;
use fleet::snapshot::WorkerTable;
use fleet::stack::Stack;
use fleet::sticky::StickyTable;

use crate::control::models::Models;
use crate::control::publish::pages::Card;
use crate::control::publish::pages::Pages;
use crate::control::publish::pool::PoolBook;
#[cfg(test)]
pub(crate) use crate::control::publish::scratch::Rings;
#[cfg(test)]
pub(crate) use crate::control::publish::scratch::check;
use crate::control::registry::Registry;
use crate::control::worker::Entry;
use crate::control::worker::Stage;

/// What a fleet is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) models: &'a Models,
    /// Time of the start in seconds since 1970.
    pub(crate) started_unix_s: u64,
}

/// The fleet as last published, and what was touched since.
#[derive(Debug)]
pub(crate) struct Publisher {
    workers: WorkerTable,
    /// By index, what was published of each worker.
    shown: Vec<Option<Shown>>,
    pools: BTreeMap<PoolName, PoolBook>,
    sticky: Arc<StickyTable>,
    pages: Pages,
    aliases: Arc<Aliases>,
    stack: Option<Arc<Stack>>,
    registered: usize,
    routable: usize,
    touched_workers: BTreeSet<u32>,
    touched_models: BTreeSet<PoolName>,
    /// Who enters which board once the fleet is published.
    arrivals: Vec<(Arc<Board>, u32)>,
}

/// One worker as it was published.
#[derive(Clone, Debug)]
struct Shown {
    worker: Arc<Worker>,
    /// Whether it is more than draining.
    is_registered: bool,
    is_routable: bool,
    models: Vec<PoolName>,
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(sticky: Arc<StickyTable>, aliases: Arc<Aliases>, stack: Option<Arc<Stack>>) -> Self {
        Self {
            workers: WorkerTable::default(),
            shown: Vec::new(),
            pools: BTreeMap::new(),
            sticky,
            pages: Pages::new(stack.is_some()),
            aliases,
            stack,
            registered: 0,
            routable: 0,
            touched_workers: BTreeSet::new(),
            touched_models: BTreeSet::new(),
            arrivals: Vec::new(),
        }
    }

    /// The worker under this index is no longer what it was, or no longer there.
    pub(crate) fn touch(&mut self, index: u32) {
        self.touched_workers.insert(index);
    }

    /// What is kept of this model is no longer what it was.
    fn touch_model(&mut self, name: &PoolName) {
        if self.pools.contains_key(name) {
            self.touched_models.insert(name.clone());
        }
    }

    /// Gives the members of a bucket model other ranges of lengths. True if they had others.
    pub(crate) fn set_bounds(&mut self, name: &PoolName, bounds: Vec<u32>) -> bool {
        let has_moved = self.pools.get_mut(name).is_some_and(|pool| pool.set_bounds(bounds));
        if has_moved {
            self.touch_model(name);
        }
        has_moved
    }

    /// Has clients know models by other names, and those of vLLM's production-stack router be served by other settings.
    pub(crate) fn set_fronts(&mut self, aliases: Arc<Aliases>, stack: Option<Arc<Stack>>) {
        self.aliases = aliases;
        self.stack = stack;
    }

    /// Has `/readiness` send everybody elsewhere, whoever the workers are.
    pub(crate) fn set_draining(&mut self) {
        self.pages.is_draining = true;
    }

    /// The fleet of this moment.
    pub(crate) fn fleet(&mut self, sources: &Sources<'_>) -> Fleet {
        for index in std::mem::take(&mut self.touched_workers) {
            self.take_over(index, sources.registry);
        }
        let mut has_new_card = false;
        for name in std::mem::take(&mut self.touched_models) {
            has_new_card |= self.publish_model(&name, sources);
        }
        if has_new_card {
            self.pages.set_models(cards(&self.pools));
        }
        let routable = if is_serving(&self.pools) { self.routable } else { 0 };
        self.pages.set_counts(routable, self.registered);
        Fleet {
            workers: self.workers.clone(),
            pools: self.pools.values().filter_map(PoolBook::published).map(Arc::clone).collect(),
            sticky: Arc::clone(&self.sticky),
            aliases: Arc::clone(&self.aliases),
            readiness: self.pages.readiness(),
            health_generate: self.pages.health_generate.clone(),
            models: self.pages.models.clone(),
            stack: self.stack.clone(),
        }
    }

    /// Puts whoever has joined on the boards. Shards that have not seen the fleet know that they do not know them.
    pub(crate) fn admit_newcomers(&mut self) {
        for (board, index) in self.arrivals.drain(..) {
            board.set_present(index, true);
        }
    }

    /// Compares a worker with what was published of it, and applies the difference.
    fn take_over(&mut self, index: u32, registry: &Registry) {
        if self.shown.len() <= index as usize {
            self.shown.resize(index as usize + 1, None);
        }
        let now = registry.slots().get(index as usize).and_then(Option::as_ref).map(Shown::of);
        let before = std::mem::replace(&mut self.shown[index as usize], now.clone());
        let worker = |shown: &Option<Shown>| shown.as_ref().map(|shown| Arc::as_ptr(&shown.worker));
        if worker(&before) != worker(&now) {
            self.workers.set(index, now.as_ref().map(|now| Arc::clone(&now.worker)));
        }
        let count = |of: fn(&Shown) -> bool| {
            let is = |shown: &Option<Shown>| usize::from(shown.as_ref().is_some_and(of));
            (is(&before), is(&now))
        };
        let (was_registered, is_registered) = count(|shown| shown.is_registered);
        let (was_routable, is_routable) = count(|shown| shown.is_routable);
        self.registered = self.registered + is_registered - was_registered;
        self.routable = self.routable + is_routable - was_routable;

        let (before, now) = (before.as_ref(), now.as_ref());
        let models = [before, now].into_iter().flatten().flat_map(|shown| &shown.models);
        for name in models.collect::<BTreeSet<_>>() {
            let serves = |shown: Option<&Shown>| shown.is_some_and(|shown| shown.models.contains(name));
            let member = |shown: Option<&Shown>| {
                shown
                    .filter(|shown| shown.is_routable && serves(Some(shown)))
                    .map(|shown| Arc::clone(&shown.worker))
            };
            let pool = self.pools.entry(name.clone()).or_default();
            pool.set_registered(index, serves(now));
            pool.set_member(member(before), member(now));
            self.touched_models.insert(name.clone());
        }
    }

    /// Makes the pool of a model anew if it has changed. True if `/v1/models` has to show something else.
    fn publish_model(&mut self, name: &PoolName, sources: &Sources<'_>) -> bool {
        let Some(pool) = self.pools.get_mut(name) else { return false };
        let had_card = pool.card().is_some();
        pool.publish(name, sources.models.get(name), &self.workers, &mut self.arrivals);
        let first =
            pool.first_member().and_then(|index| sources.registry.slots().get(index as usize)?.as_ref());
        let card = first.map(|entry| Card::of(&name.model, entry, sources.started_unix_s));
        if pool.is_empty() {
            self.pools.remove(name);
            return had_card;
        }
        pool.set_card(card)
    }
}

/// Whether some model has a worker that does all of a request, or both of a pair.
fn is_serving(pools: &BTreeMap<PoolName, PoolBook>) -> bool {
    let mut prefill = None;
    pools.iter().filter(|(_, pool)| pool.first_member().is_some()).any(|(name, _)| match name.role {
        Role::Regular => true,
        // Pools are ordered by model, then by role: who prefills comes before who decodes.
        Role::Prefill => {
            prefill = Some(&name.model);
            false
        }
        Role::Decode => prefill == Some(&name.model),
    })
}

/// What `/v1/models` shows: each model once, as the first of its pools that has a member tells of it.
fn cards(pools: &BTreeMap<PoolName, PoolBook>) -> impl Iterator<Item = &Card> {
    let mut last = None;
    let with_card = pools.iter().filter_map(|(name, pool)| Some((&name.model, pool.card()?)));
    with_card.filter(move |(model, _)| last.replace(*model) != Some(*model)).map(|(_, card)| card)
}

// === impl Shown ===

impl Shown {
    fn of(entry: &Entry) -> Self {
        let is_registered = entry.stage != Stage::Draining;
        Self {
            worker: Arc::clone(&entry.published),
            is_registered,
            is_routable: entry.is_routable(),
            // Who drains serves nobody new.
            models: if is_registered { entry.pools.clone() } else { Vec::new() },
        }
    }
}

/// A moment of this process in seconds since 1970.
pub(crate) fn unix_s(started_unix_s: u64, now: Duration) -> u64 {
    started_unix_s + now.as_secs()
}
