//! Who belongs to the fleet: registration, checks, recovery and removal.

use std::sync::Arc;
use std::time::Duration;

use engine::metadata::Metadata;
use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::tree::HolderId;
use futures_channel::oneshot;
use rand::RngExt;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;
use uuid::Uuid;

use super::News;
use super::Order;
use super::State;
use crate::admin::legacy;
use crate::control::event::Failure;
use crate::control::event::Probe;
use crate::control::job::FailedJob;
use crate::control::limits;
use crate::control::models::UNKNOWN_MODEL;
use crate::control::stats::Health;
use crate::control::task::Ask;
use crate::control::task::Lookup;
use crate::control::task::Task;
use crate::control::url::WorkerUrl;
use crate::control::worker::Change;
use crate::control::worker::Stage;
use crate::control::worker::WorkerSpec;

/// Why a worker cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddError {
    /// Its URL is registered.
    Duplicate,
    /// There are too many.
    Full,
    /// The process is ending.
    ShuttingDown,
}

impl State {
    /// Whether a worker with this URL can be added now.
    pub(crate) fn may_add(&self, url: &WorkerUrl) -> Result<(), AddError> {
        if self.shutdown != super::Shutdown::Running {
            Err(AddError::ShuttingDown)
        } else if self.registry.by_url(url).is_some() {
            Err(AddError::Duplicate)
        } else if !self.registry.has_room() {
            Err(AddError::Full)
        } else {
            Ok(())
        }
    }

    /// Registers a worker that [`State::may_add`] allows. Its first check is due at once.
    pub(crate) fn register(&mut self, spec: WorkerSpec, now: Duration) -> WorkerId {
        if spec.api_key.is_none() && self.config.api_key.is_some() {
            warn!(worker = %spec.url.text, "worker has no API key; the gateway's own is not passed on");
        }
        let uuid = uuid::Builder::from_random_bytes(self.uuids.random()).into_uuid();
        let id = self.registry.insert(uuid, spec, now);
        self.registry.schedule(id, Some(now));
        self.join_if_fixed(id, now);
        self.touch(id);
        id
    }

    /// A worker of which everything is said serves at once.
    fn join_if_fixed(&mut self, id: WorkerId, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        let Some(fixed) = entry.spec.fixed.clone() else { return };
        let role = entry.spec.role;
        let pools: Vec<_> = fixed.models.iter().map(|model| self.models.admit(model, role, None)).collect();
        let boards = pools.iter().map(|name| Arc::clone(&self.models.get(name).board)).collect();
        entry.join(pools, boards);
        info!(worker = %entry.spec.url.text, models = fixed.models.join(","), "worker added");
        self.stats.workers_added_total.add(1);
        if entry.spec.checks.disabled && entry.lookup() == Lookup::Needless {
            self.registry.schedule(id, None);
        }
        self.watch_load(id, now);
    }

    /// An engine was put to sleep, or woken up.
    pub(crate) fn set_asleep(&mut self, id: WorkerId, is_asleep: bool) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        if std::mem::replace(&mut entry.is_asleep, is_asleep) != is_asleep {
            info!(worker = %entry.spec.url.text, is_asleep, "worker told to sleep or wake");
            self.touch(id);
        }
    }

    /// Has `to` answered when the pending worker `id` becomes healthy or is given up.
    pub(crate) fn answer_when_healthy(&mut self, id: WorkerId, to: oneshot::Sender<AdminReply>) {
        let entry = self.registry.get_mut(id).expect("the worker was registered just now");
        let earlier = entry.waiting.replace(to);
        assert!(earlier.is_none(), "a worker is waited for by who added it");
    }

    /// Takes a worker out of the fleet, with all ranks behind its address. Requests in flight go on.
    pub(crate) fn remove(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        for id in self.ranks_of(id) {
            self.remove_unit(id, now, orders);
        }
    }

    /// The same for one unit of several.
    pub(super) fn remove_unit(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        self.registry.retire(id);
        self.watch_load(id, now);
        let entry = self.registry.get(id).expect("a draining worker is still there");
        self.models.release(&entry.pools);
        self.forget_placements(id);
        self.stats.workers_removed_total.add(1);
        let entry = self.registry.get_mut(id).expect("a draining worker is still there");
        info!(worker = %entry.spec.url.text, "worker removed");
        if entry.pacing.ejected().is_some() {
            entry.pacing.readmit(entry.cells.pace().read(), now);
            self.stats.workers_ejected.sub(1);
        }
        if let Some(to) = entry.waiting.take() {
            let reply = legacy::removed_while_waiting(&entry.spec.url.text);
            orders.push(Order::Reply { to, reply });
        }
        self.drain_check_due.get_or_insert(now + limits::DRAIN_CHECK);
        self.touch(id);
        self.make_up_for_loss(now);
    }

    /// Replaces what is said about a worker, and about all ranks behind its address.
    pub(crate) fn update(&mut self, id: WorkerId, spec: WorkerSpec, now: Duration) {
        for id in self.ranks_of(id) {
            self.update_unit(id, spec.clone(), now);
        }
    }

    fn update_unit(&mut self, id: WorkerId, spec: WorkerSpec, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        let spec = WorkerSpec { url: entry.spec.url.clone(), ..spec };
        entry.set_spec(spec);
        // What is under way schedules the next check when it ends.
        if !entry.is_under_way && matches!(entry.health(), Health::Ready | Health::Unhealthy) {
            self.schedule_check(id, now);
        }
        self.watch_load(id, now);
        self.touch(id);
    }

    /// Makes the tree and the shards forget what a worker holds, because it holds it no longer.
    pub(crate) fn forget_placements(&mut self, id: WorkerId) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        entry.emptied_version = self.version + 1;
        entry.cells.lose_blocks();
        self.tree.remove_holder(HolderId(id.index));
        // Also if the tree held nothing: reports on their way are told from later ones by what is published next.
        self.changed(News::Tree);
    }

    /// Removes a worker whose requests kept failing, if they still do.
    pub(super) fn failing(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        let failures_max = self.config.worker_failures_max;
        let Some(entry) = self.registry.get(id) else { return };
        let failures = entry.cells.failures_in_a_row();
        if failures == 0 || entry.health() == Health::Draining {
            return;
        }
        if failures_max == 0 || failures < failures_max {
            // Who refuses connections is down: when it comes back, its cache is empty.
            self.forget_placements(id);
            return;
        }
        warn!(worker = %entry.spec.url.text, "worker removed: {failures} transport failures in a row");
        self.stats.workers_removed_failing_total.add(1);
        let whole = entry.spec.url.at_rank(None);
        let Some(first) = self.registry.by_url(&whole) else { return };
        let (spec, uuid) = (WorkerSpec { url: whole, ..first.spec.clone() }, first.uuid);
        self.remove(id, now, orders);
        self.expect_back(spec, uuid, now);
    }

    /// Has a worker that was removed for failing join again, under its old id, when it is up: what died may be started
    /// again, and nobody else would say so.
    fn expect_back(&mut self, spec: WorkerSpec, uuid: Uuid, now: Duration) {
        if !self.registry.has_room() {
            return;
        }
        let id = self.registry.insert(uuid, spec, now);
        if let Some(entry) = self.registry.get_mut(id) {
            entry.is_expected_back = true;
        }
        self.registry.schedule(id, Some(now + limits::BACKOFF_FIRST));
        self.touch(id);
    }

    /// A worker is due: sends its next check, or gives up on one that never came.
    pub(super) fn check(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        let startup_timeout = self.config.startup_timeout;
        let entry = self.registry.get_mut(id).expect("only registered workers are in the timetable");
        let is_new = matches!(entry.stage, Stage::Pending { .. });
        if is_new && now.saturating_sub(entry.since) >= startup_timeout {
            return self.give_up(id, now, orders);
        }
        assert!(!entry.is_under_way, "a worker has one task at services at most");
        entry.is_under_way = true;
        let asks = is_new || !entry.spec.checks.disabled;
        orders.push(Order::Task(Task::Probe {
            worker: id,
            target: Arc::clone(&entry.target),
            ask: match &entry.spec.fixed {
                _ if !asks => Ask::Nothing,
                None => Ask::Path(Arc::clone(&self.health_endpoint)),
                Some(fixed) => Ask::Inference(Arc::clone(fixed)),
            },
            lookup: entry.lookup(),
            timeout: entry.spec.checks.timeout,
        }));
    }

    /// A new worker did not become healthy in time.
    fn give_up(&mut self, id: WorkerId, now: Duration, orders: &mut Vec<Order>) {
        let seconds = self.config.startup_timeout.as_secs();
        let entry = self.registry.get_mut(id).expect("the caller found it");
        let url = entry.spec.url.text.clone();
        let message = format!("Timeout {seconds}s waiting for worker {url} to become healthy");
        error!(worker = %url, "worker given up: not healthy within {seconds} s");
        if let Some(to) = entry.waiting.take() {
            orders.push(Order::Reply { to, reply: legacy::refused(message.clone()) });
        }
        let uuid = entry.uuid;
        self.failed_jobs.push(FailedJob { uuid, url, message, at: now });
        self.remove_unit(id, now, orders);
    }

    pub(super) fn probed(&mut self, id: WorkerId, probe: Probe, now: Duration, orders: &mut Vec<Order>) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        if entry.health() == Health::Draining {
            return;
        }
        entry.is_under_way = false;
        let has_moved = probe.addresses.is_some_and(|addresses| entry.set_addresses(addresses));
        let is_alive = is_alive(&probe.answer, entry.stage, entry.spec.checks.disabled)
            && !entry.published.addresses.is_empty();
        let is_ignored = entry.spec.checks.disabled && !matches!(entry.stage, Stage::Pending { .. });
        let change = if is_ignored { Change::None } else { entry.on_check(is_alive) };
        let (url, target) = (&entry.spec.url.text, Arc::clone(&entry.target));
        entry.is_under_way =
            matches!(change, Change::Reached | Change::Recovered) || (is_alive && entry.owes_description);
        let must_describe = entry.is_under_way;
        match change {
            Change::None if is_alive => {}
            // The first is news; a worker that stays away says so at its state, not in every line of the log.
            Change::None if matches!(entry.stage, Stage::Pending { failures: 1 } | Stage::Ready { .. }) => {
                info!(worker = %url, reason = %reason(&probe.answer), "health check failed");
            }
            Change::None => debug!(worker = %url, reason = %reason(&probe.answer), "health check failed"),
            Change::Reached => info!(worker = %url, "worker reached"),
            Change::Lost => warn!(worker = %url, reason = %reason(&probe.answer), "worker is unhealthy"),
            Change::Recovered => info!(worker = %url, "worker is healthy again"),
        }
        let stats = &self.stats;
        let counter =
            if is_alive { &stats.health_checks_passed_total } else { &stats.health_checks_failed_total };
        counter.add(1);
        if has_moved || matches!(change, Change::Lost | Change::Recovered) {
            self.touch(id);
        }
        // Nobody listens: it comes back as a new process, whose cache is empty, perhaps before the next check.
        if change == Change::Lost || probe.answer == Err(Failure::Connect) {
            self.forget_placements(id);
        }
        self.watch_load(id, now);
        match change {
            Change::Recovered => self.recover(id, now),
            Change::Lost => self.make_up_for_loss(now),
            Change::None | Change::Reached => {}
        }
        if must_describe {
            orders.push(Order::Task(Task::Describe { worker: id, target }));
        } else {
            self.schedule_check(id, now);
        }
    }

    /// A worker said what it serves: a new one joins the fleet.
    pub(super) fn described(
        &mut self,
        id: WorkerId,
        metadata: Box<Metadata>,
        now: Duration,
        orders: &mut Vec<Order>,
    ) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        if entry.health() == Health::Draining {
            return;
        }
        entry.is_under_way = false;
        // A worker that has names and now says nothing is only slow to come back: it is asked again with the next
        // check.
        let is_silent = *metadata == Metadata::default() && entry.stage != Stage::Reached;
        entry.owes_description = is_silent;
        if is_silent {
            self.schedule_check(id, now);
            return;
        }
        let names = match (&entry.spec.fixed, &entry.spec.model_id) {
            (Some(fixed), _) => fixed.models.iter().map(String::as_str).collect(),
            (None, Some(name)) => vec![name.as_str()],
            (None, None) => metadata.model_names(),
        };
        let names = if names.is_empty() { vec![UNKNOWN_MODEL] } else { names };
        let hint = entry.spec.policy();
        let mut pools = Vec::with_capacity(names.len());
        for name in names {
            let name = self.models.admit(name, entry.spec.role, hint);
            if let Some(hint) = hint.filter(|_| entry.stage == Stage::Reached) {
                warn_of_other_policy(&entry.spec.url.text, hint, &name.model, &self.models.get(&name).policy);
            }
            // Names beyond the bound share one.
            if pools.contains(&name) {
                self.models.release(&[name]);
            } else {
                pools.push(name);
            }
        }
        let before = std::mem::replace(&mut entry.pools, pools);
        entry.metadata = metadata;
        if self.config.stack.is_some() {
            entry.tally();
        }
        entry.set_boards(entry.pools.iter().map(|name| Arc::clone(&self.models.get(name).board)).collect());
        entry.polling.look_again();
        // Reached => Ready
        if entry.stage == Stage::Reached {
            entry.stage = Stage::Ready { failures: 0 };
            info!(
                worker = %entry.spec.url.text,
                model = entry.model(),
                engine = entry.metadata.dialect.name(),
                "worker added"
            );
            self.stats.workers_added_total.add(1);
            if let Some(to) = entry.waiting.take() {
                orders.push(Order::Reply { to, reply: legacy::added(&entry.spec.url.text) });
            }
        }
        let has_other_models = self.registry.get(id).is_some_and(|entry| entry.pools != before);
        self.models.release(&before);
        self.touch(id);
        self.watch_load(id, now);
        if has_other_models {
            self.make_up_for_loss(now);
            let known = self.registry.get(id).and_then(|entry| entry.cells.engine_load());
            self.weigh_engine(id, known);
        }
        self.schedule_check(id, now);
        self.count_ranks(id, now, orders);
    }

    /// Says when a worker is checked next, now that nothing is under way.
    pub(super) fn schedule_check(&mut self, id: WorkerId, now: Duration) {
        let backoff_max =
            self.config.startup_check_interval.clamp(limits::BACKOFF_FIRST, limits::BACKOFF_MAX);
        let startup_timeout = self.config.startup_timeout;
        let Some(entry) = self.registry.get(id) else { return };
        let due = match entry.stage {
            Stage::Pending { failures } => {
                let doublings = failures.saturating_sub(1).min(16);
                let pause = (limits::BACKOFF_FIRST * (1 << doublings)).min(backoff_max);
                // The last attempt is when time is up.
                Some((now + pause).min(entry.since.saturating_add(startup_timeout).max(now)))
            }
            Stage::Reached | Stage::Draining => None,
            Stage::Ready { .. } | Stage::Unhealthy { .. } => {
                let has_nothing_to_check = entry.spec.checks.disabled && entry.lookup() == Lookup::Needless;
                // Who was never found is looked for soon again.
                let is_lost = entry.published.addresses.is_empty();
                let pause = if is_lost { backoff_max } else { entry.spec.checks.interval };
                (!has_nothing_to_check).then(|| now + pause)
            }
        };
        self.registry.schedule(id, due);
    }
}

/// Whether an answer counts as life. Engines without a health endpoint are served when checks are off.
fn is_alive(answer: &Result<u16, Failure>, stage: Stage, are_checks_disabled: bool) -> bool {
    let is_new = matches!(stage, Stage::Pending { .. });
    match answer {
        Ok(200..=299) => true,
        Ok(404) => is_new && are_checks_disabled,
        Ok(_) | Err(_) => false,
    }
}

/// Says that a worker's label has no effect because the model is served by another policy already.
fn warn_of_other_policy(url: &str, label: &str, model: &str, running: &Policy) {
    // By name: settings are those of the process.
    let wanted = Rules::default().policy(label);
    if wanted.is_none_or(|wanted| wanted.name() != running.name()) {
        let running = running.name();
        warn!(worker = %url, model, label, running, "policy label has no effect: the model has another policy");
    }
}

fn reason(answer: &Result<u16, Failure>) -> Failure {
    match answer {
        Ok(status) => Failure::Status(*status),
        Err(failure) => failure.clone(),
    }
}
