//! The state of the control plane, free of I/O: an event and the time go in, orders come out.
//!
//! Invariants
//! - Every pool member is routable, and stands in the worker table of the same snapshot.
//! - Only ready workers have a presence in the prefix tree.
//! - Every [`AdminCall`](fleet::admin::AdminCall) is answered by exactly one [`Order::Reply`].
//! - Each worker has at most one check and one poll at services.
//! - A worker is polled exactly while it is routable.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use fleet::admin::AdminReply;
use fleet::cell::Phase;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Fleet;
use fleet::snapshot::Snapshot;
use fleet::sticky::StickyTable;
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;
use futures_channel::oneshot;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::admin;
use crate::control::config::ConfigError;
use crate::control::config::ControlConfig;
use crate::control::event::Event;
use crate::control::job::FailedJobs;
use crate::control::limits;
use crate::control::models::Models;
use crate::control::publish::Publisher;
use crate::control::publish::Sources;
use crate::control::record::WorkerRecord;
use crate::control::registry::Registry;
use crate::control::stats::ControlStats;
use crate::control::stats::Health;
use crate::control::task::Task;
use crate::control::worker::Entry;

mod calls;
mod circuits;
mod discovered;
mod ejection;
pub(crate) mod engine_cost;
pub(crate) mod handover;
mod loads;
pub(crate) mod members;
mod ranks;
mod reload;
mod shutdown;
pub(crate) mod start;
mod upkeep;

use self::calls::Calls;
use self::handover::Export;
use self::handover::Successors;
use self::shutdown::Shutdown;
use self::upkeep::Upkeep;

/// Keeps the UUIDs apart from other draws with the same seed.
const SALT_UUIDS: u64 = 0x7575_6964_7300_0000;

/// What the loop has to do.
#[derive(Debug)]
pub enum Order {
    /// Answer an admin call.
    Reply {
        /// The way back.
        to: oneshot::Sender<AdminReply>,
        /// The answer.
        reply: AdminReply,
    },
    /// Answer with the metrics page.
    Metrics {
        /// The way back.
        to: oneshot::Sender<AdminReply>,
    },
    /// Have services do something.
    Task(Task),
    /// Tell another process everything.
    Export {
        /// The way there.
        to: Sender<Box<Export>>,
        /// What there is to tell.
        export: Box<Export>,
    },
}

/// Everything control knows.
#[derive(Debug)]
pub struct State {
    pub(crate) config: ControlConfig,
    pub(crate) registry: Registry,
    pub(crate) failed_jobs: FailedJobs,
    models: Models,
    publisher: Publisher,
    sticky: Arc<StickyTable>,
    tree: PrefixTree,
    calls: Calls,
    uuids: SmallRng,
    health_endpoint: Arc<str>,
    shutdown: Shutdown,
    /// Another process has been told everything, and may come to serve: a change that is made now would be lost there.
    is_told: bool,
    drain_check_due: Option<Duration>,
    upkeep: Upkeep,
    /// Who the workers of the process before are now, until all of it is taken over.
    successors: Successors,
    garbage_due: Option<Duration>,
    fleet: Arc<Fleet>,
    news: News,
    version: u64,
    stats: Arc<ControlStats>,
}

/// What has changed since the last publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Nothing,
    Tree,
    Fleet,
}

impl State {
    /// The state at start, with the workers of `config` pending, and what shards begin with.
    ///
    /// # Errors
    /// When a worker URL, the key or the health endpoint of `config` cannot be used.
    pub fn initial(config: ControlConfig) -> Result<(Self, Snapshot), ConfigError> {
        let mut state = Self::new(config, Duration::ZERO, Vec::new())?;
        let snapshot = state.first_publication(Duration::ZERO);
        Ok((state, snapshot))
    }

    /// The state of a process that goes on from another one's `workers`, with its own of `config` beside them. It has
    /// not published anything.
    ///
    /// # Errors
    /// As [`State::initial`].
    pub(crate) fn new(
        config: ControlConfig,
        now: Duration,
        workers: Vec<WorkerRecord>,
    ) -> Result<Self, ConfigError> {
        let specs = start::worker_specs(&config)?;
        let models = Models::new(config.shards, config.stats_shape.clone(), config.block_seed, config.rules);
        let registry = Registry::default();
        let sticky = Arc::default();
        let mut publisher =
            Publisher::new(Arc::clone(&sticky), Arc::clone(&config.aliases), config.stack.clone());
        let sources = Sources { registry: &registry, models: &models, started_unix_s: config.started_unix_s };
        let fleet = Arc::new(publisher.fleet(&sources));
        let tree = PrefixTree::new(TreeConfig {
            bytes_max: config.prefix_bytes_max,
            blocks_per_holder_max: config.blocks_per_holder_max,
        });
        let mut state = Self {
            registry,
            failed_jobs: FailedJobs::default(),
            models,
            publisher,
            sticky,
            tree,
            calls: Calls::default(),
            uuids: SmallRng::seed_from_u64(config.seed ^ SALT_UUIDS),
            health_endpoint: config.health.endpoint.as_str().into(),
            shutdown: Shutdown::Running,
            is_told: false,
            drain_check_due: None,
            upkeep: Upkeep::default(),
            successors: Successors::default(),
            garbage_due: None,
            fleet,
            news: News::Fleet,
            version: 0,
            stats: Arc::new(ControlStats::default()),
            config,
        };
        state.go_on_with(workers, &specs, now);
        for spec in specs {
            if state.registry.by_url(&spec.url).is_none() {
                state.register(spec, now);
            }
        }
        Ok(state)
    }

    /// What shards begin with.
    pub(crate) fn first_publication(&mut self, now: Duration) -> Snapshot {
        self.changed(News::Fleet);
        self.publication(now).expect("a new state has news")
    }

    /// The cells this state counts in.
    pub fn stats(&self) -> Arc<ControlStats> {
        Arc::clone(&self.stats)
    }

    /// Where the process should stand.
    pub fn phase(&self) -> Phase {
        self.shutdown.phase()
    }

    /// When the next [`Event::Tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let shutdown = self.shutdown.next_due();
        let upkeep = self.next_upkeep();
        [self.registry.next_due(), self.drain_check_due, self.garbage_due, upkeep, shutdown]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes in what happened, and appends what has to be done about it.
    pub fn apply(&mut self, event: Event, now: Duration, orders: &mut Vec<Order>) {
        match event {
            Event::Admin(call) => admin::handle(self, call, now, orders),
            Event::Reports(reports) => self.reported(reports, now, orders),
            Event::Probed { worker, probe } => self.probed(worker, probe, now, orders),
            Event::Described { worker, metadata } => self.described(worker, metadata, now, orders),
            Event::Polled { worker, polled } => self.polled(worker, &polled, now),
            Event::Called { ticket, answers } => self.called(ticket, &answers, orders),
            Event::Discovered(discovered) => self.discovered(*discovered, now, orders),
            Event::Reload(config) => self.reload(*config, now, orders),
            Event::Export(to) => orders.push(Order::Export { to, export: Box::new(self.export(now)) }),
            Event::NotHandedOver => self.is_told = false,
            Event::HandedOver => self.handed_over(now, orders),
            Event::Ping => {}
            Event::Terminate => self.terminate(now, orders),
            Event::Tick { requests_active } => self.tick(requests_active, now, orders),
        }
    }

    /// What shards should route by from now on, if that has changed since the last time.
    pub fn publication(&mut self, now: Duration) -> Option<Snapshot> {
        if self.news == News::Nothing {
            return None;
        }
        if self.news == News::Fleet {
            let sources = Sources {
                registry: &self.registry,
                models: &self.models,
                started_unix_s: self.config.started_unix_s,
            };
            self.fleet = Arc::new(self.publisher.fleet(&sources));
            self.stats.show_models(&self.models);
        }
        self.collect_garbage(now);
        self.news = News::Nothing;
        self.version += 1;
        self.stats.publications_total.add(1);
        let snapshot =
            Snapshot { version: self.version, fleet: Arc::clone(&self.fleet), tree: self.tree.snapshot() };
        self.count_tree();
        Some(snapshot)
    }

    /// The model whose block seed begins with `hash`; empty if there is none.
    pub(crate) fn model_of(&self, hash: u32) -> &str {
        let pools = &self.fleet.pools;
        pools.iter().find(|pool| pool.block_seed as u32 == hash).map_or("", |pool| &pool.name.model)
    }

    /// Has whoever joined be chosen by those who see the publication. To be called just before they can.
    pub fn admit_newcomers(&mut self) {
        self.publisher.admit_newcomers();
    }

    /// Notes that what is published of a worker has changed.
    fn touch(&mut self, id: WorkerId) {
        self.publisher.touch(id.index);
        self.changed(News::Fleet);
    }

    fn changed(&mut self, news: News) {
        self.news = self.news.max(news);
    }

    fn reported(&mut self, reports: Vec<Report>, now: Duration, orders: &mut Vec<Order>) {
        self.stats.reports_total.add(reports.len() as u64);
        for report in reports {
            match report {
                Report::Placed { worker, version, blocks } => self.placed(worker, version, &blocks, now),
                Report::Failing { worker } => self.failing(worker, now, orders),
                Report::Circuit { worker } => self.circuit_moved(worker, now),
            }
        }
    }

    fn placed(&mut self, worker: WorkerId, version: u64, blocks: &[u64], now: Duration) {
        // A report may be older than the news that the worker's cache is empty.
        let may_hold = |entry: &&Entry| entry.health() == Health::Ready && version >= entry.emptied_version;
        let Some(entry) = self.registry.get(worker).filter(may_hold) else { return };
        // The tick is in seconds since the start, as shards count them.
        self.tree.insert(blocks, HolderId(worker.index), now.as_secs() as u32);
        entry.cells.set_held_blocks(self.tree.holder_blocks(HolderId(worker.index)));
        self.changed(News::Tree);
    }

    fn tick(&mut self, requests_active: u64, now: Duration, orders: &mut Vec<Order>) {
        self.stats.turns_total.add(1);
        while let Some(worker) = self.registry.take_due(now) {
            self.check(worker, now, orders);
        }
        while let Some(worker) = self.registry.take_poll_due(now) {
            self.poll(worker, orders);
        }
        while let Some(worker) = self.registry.take_circuit_due(now) {
            self.circuit_due(worker, now);
        }
        if self.drain_check_due.is_some_and(|due| due <= now) {
            for id in self.registry.free_idle() {
                self.touch(id);
            }
            self.drain_check_due = self.registry.has_draining().then(|| now + limits::DRAIN_CHECK);
        }
        if self.garbage_due.is_some_and(|due| due <= now) {
            self.collect_garbage(now);
        }
        self.keep_up(now);
        self.drain(requests_active, now);
    }

    /// Frees tree versions that nobody reads, a bounded number of nodes at a time.
    fn collect_garbage(&mut self, now: Duration) {
        let pause = if self.tree.collect_garbage() {
            limits::PUBLISH_INTERVAL
        } else {
            self.config.eviction_interval
        };
        self.garbage_due =
            (self.tree.versions_retained() > 1).then(|| now + pause.max(limits::PUBLISH_INTERVAL));
        self.count_tree();
    }

    fn count_tree(&self) {
        let Self { stats, tree, .. } = self;
        stats.tree_bytes.set(tree.bytes() as u64);
        stats.tree_nodes.set(tree.nodes() as u64);
        stats.tree_blocks.set(tree.blocks());
        stats.tree_versions_retained.set(tree.versions_retained() as u64);
        stats.tree_evicted_blocks_total.set(tree.evicted_blocks_total());
    }
}

#[cfg(test)]
impl State {
    /// Compares the published fleet with one made anew.
    fn check_fleet(&self, rings: crate::control::publish::Rings) {
        let Self { registry, models, config, .. } = self;
        let sources = Sources { registry, models, started_unix_s: config.started_unix_s };
        crate::control::publish::check(&self.fleet, &sources, rings);
    }
}

#[cfg(test)]
mod tests;
