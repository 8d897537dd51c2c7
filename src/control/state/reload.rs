//! Settings that change while the process runs, and the workers that come and go with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleet::id::WorkerId;
use tracing::warn;

use super::News;
use super::Order;
use super::Shutdown;
use super::State;
use super::start;
use crate::control::config::ControlConfig;
use crate::control::worker::Checks;
use crate::control::worker::FULL_SHARE;
use crate::control::worker::Recovery;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;

impl State {
    /// Goes by `config` from now on. Workers that it names are added, those that earlier settings named and it does not
    /// are removed; those that were registered otherwise stay. Who was checked as the settings said still is.
    pub(super) fn reload(&mut self, config: ControlConfig, now: Duration, orders: &mut Vec<Order>) {
        // They were looked at before.
        let specs = match start::worker_specs(&config) {
            Ok(specs) => specs,
            Err(error) => return warn!(%error, "the settings are not taken over"),
        };
        let before = std::mem::replace(&mut self.config, config);
        let has_other_rules = self.config.rules != before.rules;
        self.models.set_rules(self.config.rules);
        if self.config.stack != before.stack || self.config.aliases != before.aliases {
            self.publisher.set_fronts(Arc::clone(&self.config.aliases), self.config.stack.clone());
            self.changed(News::Fleet);
        }
        self.health_endpoint = self.config.health.endpoint.as_str().into();
        let wanted: HashMap<_, _> = specs.iter().map(|spec| (spec.url.key(), spec)).collect();
        let ids: Vec<WorkerId> = self.registry.registered().map(|entry| entry.id).collect();
        for id in ids {
            let Some(entry) = self.registry.get(id) else { continue };
            let is_further_rank = entry.spec.url.is_further_rank();
            let is_ours = entry.spec.source == Source::Settings && !is_further_rank;
            let named = wanted.get(&entry.spec.url.key());
            // Who is to do another part of requests is another worker.
            let is_another = |named: &&WorkerSpec| {
                let is_said_otherwise = named.fixed != entry.spec.fixed || named.labels != entry.spec.labels;
                named.role != entry.spec.role || (named.fixed.is_some() && is_said_otherwise)
            };
            // Policies are those of a model's first worker: where the rules are others, all begin anew.
            if is_ours && (has_other_rules || named.is_none_or(is_another)) {
                self.remove(id, now, orders);
                continue;
            }
            let mut spec = entry.spec.clone();
            if let Some(named) = named.filter(|_| is_ours) {
                spec.bootstrap_port = named.bootstrap_port;
            }
            if spec.checks == Checks::from(&before.health) {
                spec.checks = Checks::from(&self.config.health);
            }
            if spec.source == Source::Settings && spec.api_key == before.api_key {
                spec.api_key = self.config.api_key.clone();
            }
            // Further ranks follow the first.
            if !is_further_rank && spec != entry.spec {
                self.update(id, spec, now);
            }
            if self.config.load_monitor_interval != before.load_monitor_interval {
                self.registry.schedule_poll(id, None);
                self.watch_load(id, now);
            }
            if self.config.breaker.is_none() && before.breaker.is_some() {
                self.let_all_through(id, now);
            }
        }
        if self.config.pace != before.pace {
            self.pace_rules_changed(now);
        }
        for spec in specs {
            let is_new = self.registry.by_url(&spec.url).is_none();
            if is_new && self.registry.has_room() && self.shutdown == Shutdown::Running {
                self.register(spec, now);
            }
        }
    }

    /// A worker has no circuit breaker any more.
    fn let_all_through(&mut self, id: WorkerId, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        entry.cells.breaker().reset();
        entry.is_tripped = false;
        entry.recovery = Recovery::Over;
        entry.set_share(FULL_SHARE);
        self.registry.schedule_circuit(id, None);
        self.touch(id);
        self.watch_load(id, now);
    }
}
