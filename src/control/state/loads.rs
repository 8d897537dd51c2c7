//! What engines are busy with: polls of routable workers, and engines that turn out to have restarted.

use std::sync::Arc;
use std::time::Duration;

use engine::incarnation::Seen;
use fleet::cell;
use fleet::cell::PrefixCache;
use fleet::id::WorkerId;
use tracing::info;

use super::Order;
use super::State;
use crate::control::limits;
use crate::control::poll;
use crate::control::poll::Polled;
use crate::control::task::Task;

impl State {
    /// Has a worker polled while it is routable, and not otherwise. To be called whenever that may have changed.
    pub(super) fn watch_load(&mut self, id: WorkerId, now: Duration) {
        let Some(entry) = self.registry.get(id) else { return };
        let is_planned = entry.polling.due.is_some() || entry.polling.is_under_way;
        match self.config.load_monitor_interval.filter(|_| entry.is_routable()) {
            Some(_) if is_planned => {}
            Some(interval) => {
                let interval = interval.max(limits::POLL_INTERVAL_MIN);
                self.registry.schedule_poll(id, Some(poll::next_moment(id.index, interval, now)));
                let known = self.registry.get(id).and_then(|entry| entry.cells.engine_load());
                self.weigh_engine(id, known);
            }
            None => {
                entry.cells.set_engine_load(None);
                self.registry.schedule_poll(id, None);
                self.forget_engine_cost(id);
            }
        }
    }

    /// A worker is due to be polled.
    pub(super) fn poll(&mut self, id: WorkerId, orders: &mut Vec<Order>) {
        let entry = self.registry.get_mut(id).expect("only registered workers are in the timetable");
        let endpoints = entry.polling.begin(entry.metadata.dialect);
        orders.push(Order::Task(Task::Poll { worker: id, target: Arc::clone(&entry.target), endpoints }));
    }

    /// Takes in what came of a poll.
    pub(super) fn polled(&mut self, id: WorkerId, polled: &Polled, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        entry.polling.is_under_way = false;
        if !entry.is_routable() {
            return;
        }
        entry.polling.endpoints = polled.endpoints;
        // A poll that failed makes the load unknown: an old number would draw requests to a worker in trouble.
        let load = polled.load.map(|load| cell_load(load, now));
        entry.cells.set_engine_load(load);
        entry
            .cells
            .set_prefix_cache(polled.prefix.map(|of| PrefixCache { hits: of.hits, queries: of.queries }));
        let counter = if polled.load.is_some() {
            &self.stats.polls_passed_total
        } else {
            &self.stats.polls_failed_total
        };
        counter.add(1);
        let seen = polled.marks.as_ref().map(|marks| entry.polling.incarnation.observe(marks));
        if seen == Some(Seen::Restarted) {
            info!(worker = %entry.spec.url.text, "worker has restarted; its cache is empty");
            // It may speak otherwise, and serve something else: it is asked at once, or with the check under way.
            entry.polling.look_again();
            entry.owes_description = true;
            if !entry.is_under_way {
                self.registry.schedule(id, Some(now));
            }
            self.stats.worker_restarts_total.add(1);
            self.forget_placements(id);
        }
        // Plans the next poll, and weighs what this one told.
        self.watch_load(id, now);
    }
}

/// A load as shards see it.
fn cell_load(load: engine::load::EngineLoad, now: Duration) -> cell::EngineLoad {
    cell::EngineLoad {
        tokens: load.tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        running: load.running,
        waiting: load.waiting,
        kv_used_permille: load.kv_used.map(|kv_used| (kv_used * 1000.0).round() as u16),
        at_s: now.as_secs() as u32,
    }
}
