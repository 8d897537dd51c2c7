//! What a process is made of: every part found or made before the first thread runs, then the threads, each wired to
//! the parts it needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use api::endpoint::Endpoint;
use api::endpoint::METHODS;
use api::error::ErrorCode;
use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use fleet::access::TokenRoad;
use fleet::admin::ADMIN_CALLS_QUEUED_MAX;
use fleet::admin::AdminCall;
use fleet::admission::Gate;
use fleet::batch::BatchRoad;
use fleet::budget::RetryBudget;
use fleet::cell::Lifecycle;
use fleet::decision::DecisionRing;
use fleet::report::BATCHES_QUEUED_MAX;
use fleet::report::Report;
use fleet::snapshot::Snapshot;
use fleet::span::SPAN_BATCHES_QUEUED_MAX;
use fleet::span::SpanRoad;
use fleet::stats::ShardStats;
use fleet::stats::StatsShape;
use rustix::process::Resource;
use shard::ShardPlace;
use shard::Shared;
use shard::listen::Listener;
use shard::rt::driver;
use shard::rt::driver::IoDriver;
use tokio::signal::unix::SignalKind;
use tracing::error;
use tracing::warn;

use crate::Failure;
use crate::auth::AuthConfig;
use crate::batches;
use crate::batches::Surroundings;
use crate::cli::Launch;
use crate::config::Config;
use crate::config::stack::StackConfig;
use crate::control;
use crate::control::ControlConfig;
use crate::control::Destinations;
use crate::control::Doors;
use crate::control::MetricsPage;
use crate::control::State;
use crate::control::event::Event;
use crate::handover::Inheritance;
use crate::handover::Succession;
use crate::handover::successor;
use crate::logs;
use crate::logs::Logs;
use crate::metrics;
use crate::metrics::Sources;
use crate::reload::Reloader;
use crate::run::sources;
use crate::services::ExtraTask;
use crate::services::Services;
use crate::services::jwks;
use crate::services::jwks::Issuer;
use crate::sockets;
use crate::sockets::Sockets;
use crate::stack::Statistics;
use crate::stack::watch::has_tls as has_tls_workers;
use crate::systemd;
use crate::systemd::Pulse;
use crate::tls;
use crate::traces;
use crate::watched::Watched;

/// What a process is made of.
pub(super) struct Parts {
    pub(super) site: Site,
    pub(super) data: DataPlane,
    pub(super) control: ControlPlane,
    /// Its place between the process before it and the next, if processes hand over.
    pub(super) succession: Option<Succession>,
}

/// What every part of the process goes by.
pub(super) struct Site {
    pub(super) config: Config,
    pub(super) driver: IoDriver,
    pub(super) logs: Logs,
    pub(super) shared: Shared,
    pub(super) sources: Sources,
    /// Where clients connect.
    pub(super) listen: SocketAddr,
    /// From when this process, and the one before it, counts its time.
    start: Instant,
}

/// The shards, about to be started.
pub(super) struct DataPlane {
    listeners: Vec<Listener>,
    admin_listener: Option<Listener>,
    decisions: Vec<Arc<DecisionRing>>,
}

/// Control and services, about to be started.
pub(super) struct ControlPlane {
    config: ControlConfig,
    state: State,
    inboxes: Inboxes,
    services: Services,
    /// What services do beside their own work.
    tasks: Vec<ExtraTask>,
    is_successor: bool,
    /// The cluster whose pods are workers, if any are.
    cluster: Option<kube::Config>,
}

/// The far ends of the roads to control.
struct Inboxes {
    reports: Receiver<Vec<Report>>,
    admin: Receiver<AdminCall>,
    results: Receiver<Event>,
    /// For whoever else has news for control.
    to_results: Sender<Event>,
}

// === impl Parts ===

impl Parts {
    /// Finds and makes all of it, before the first thread starts and, as far as it can be, before another process is
    /// asked to hand over.
    ///
    /// # Errors
    /// Whatever is wrong with the command line, or with what is around the process.
    pub(super) fn gather(mut config: Config, began: Instant) -> Result<Self, Failure> {
        let shape = StatsShape {
            endpoints: Endpoint::COUNT,
            methods: METHODS.len(),
            error_codes: ErrorCode::COUNT,
            duration_bounds_us: Arc::clone(&config.duration_bounds_us),
        };
        let decisions: Vec<Arc<DecisionRing>> = config.cpus.iter().map(|_| Arc::default()).collect();
        let mut control_config = control_config(&config, shape.clone(), &decisions);
        control::check(&control_config).map_err(|error| Failure::usage(error.to_string()))?;
        let (driver, refusal) = resolve_driver(config.driver)?;
        // Before anything listens: whoever can connect can be answered.
        let issuer = config.security.tokens.take().map(find_issuer).transpose()?;
        sources::check_file(&config, &control_config)?;
        let cluster = sources::find_cluster(&config)?;
        let prepared = config.batches.as_ref().map(batches::prepare).transpose()?;
        let mut succession = config.handover.as_deref().map(Succession::begin).transpose()?;
        let mut before = succession.as_mut().and_then(Succession::before);
        let is_successor = before.is_some();
        let sockets = Sockets::open(&config, before.as_deref_mut())?;
        let start = before.as_ref().map_or(began, |before| before.start());
        let has_tls = before.as_ref().is_some_and(|before| before.has_tls_workers());
        if has_tls || has_tls_workers(&config.fleet.fixed_workers) {
            // Shards are given them before anybody has looked at them here.
            config.tls.client.authorities.load();
        }
        let (state, snapshot) = first_state(&mut control_config, before, start)?;
        if let Some(succession) = &mut succession {
            succession.keep(&sockets)?;
        }
        let logs = logs::init(&config.logs)?;
        if let (IoDriver::Epoll, Some(refusal)) = (driver, &refusal) {
            warn!(%refusal, "io_uring is refused here: shards run on epoll");
        }
        let connections_max = connections_max(raise_descriptor_limit(), config.cpus.len());
        config.shard.connections_max = connections_max.min(config.shard.connections_max);

        let listen = sockets.address().unwrap_or(config.listen);
        let Sockets { main: listeners, admin: admin_listener, metrics } = sockets;
        let (tokens, verify) = issuer.map(jwks::serve).unzip();
        let (spans, export) = config.collector.take().map(|collector| trace(collector, start)).unzip();
        let (to_batches, service) = prepared.unzip();
        let (shared, inboxes) = roads(&mut config, snapshot, tokens, spans, to_batches);
        let service = service.map(|service| {
            service.into_task(Surroundings {
                listen,
                tls: config.tls.server.clone(),
                settings: Arc::clone(&shared.config),
                lifecycle: Arc::clone(&shared.lifecycle),
            })
        });
        let sources = Sources {
            shards: config.cpus.iter().map(|_| Arc::new(ShardStats::new(&shape))).collect(),
            control: state.stats(),
            snapshot: Arc::clone(&shared.snapshot),
            reloads: Arc::default(),
            gate: shared.gate.clone(),
        };
        let scraped =
            metrics.map(|metrics| serve_metrics(metrics, sources.clone(), Arc::clone(&shared.lifecycle)));
        let control = ControlPlane {
            config: control_config,
            state,
            inboxes,
            services: Services::new().map_err(no_thread)?,
            cluster,
            tasks: scraped.into_iter().chain(verify).chain(export).chain(service).collect(),
            is_successor,
        };
        let data = DataPlane { listeners, admin_listener, decisions };
        let site = Site { config, driver, logs, shared, sources, listen, start };
        Ok(Self { site, data, control, succession })
    }
}

/// The roads between the threads: the ends that everybody has, and control's.
fn roads(
    config: &mut Config,
    snapshot: Snapshot,
    tokens: Option<TokenRoad>,
    spans: Option<SpanRoad>,
    batches: Option<BatchRoad>,
) -> (Shared, Inboxes) {
    let (reports, reports_inbox) = crossbeam_channel::bounded(BATCHES_QUEUED_MAX);
    let (admin, admin_inbox) = crossbeam_channel::bounded(ADMIN_CALLS_QUEUED_MAX);
    let (to_results, results) = crossbeam_channel::bounded(control::RESULTS_QUEUED_MAX);
    let shared = Shared {
        config: Arc::new(ArcSwap::from_pointee(config.shard.clone())),
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        lifecycle: Arc::new(Lifecycle::default()),
        spans,
        retry_budget: Arc::new(RetryBudget::new(config.retry_budget_percent)),
        reports,
        admin,
        tokens,
        batches,
        gate: config.admission.take().map(|rules| Arc::new(Gate::new(rules))),
        tenants: Arc::default(),
    };
    (shared, Inboxes { reports: reports_inbox, admin: admin_inbox, results, to_results })
}

// === impl DataPlane ===

impl DataPlane {
    /// Starts the shards, which serve from now on.
    ///
    /// # Errors
    /// When there is no thread for one.
    pub(super) fn spawn(mut self, site: &Site) -> Result<Vec<JoinHandle<std::io::Result<()>>>, Failure> {
        let cpus = &site.config.cpus;
        let mut shards = Vec::with_capacity(cpus.len());
        for (index, listeners) in sockets::spread(self.listeners, cpus.len()).into_iter().enumerate() {
            let place = ShardPlace {
                index,
                cpu: cpus[index],
                listeners,
                admin_listener: self.admin_listener.take(),
                stats: Arc::clone(&site.sources.shards[index]),
                decisions: Arc::clone(&self.decisions[index]),
                driver: site.driver,
            };
            shards.push(shard::spawn(site.shared.clone(), place, site.start).map_err(no_thread)?);
        }
        Ok(shards)
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Whatever has news for control sends them there.
    pub(super) fn results(&self) -> Sender<Event> {
        self.inboxes.to_results.clone()
    }

    /// Starts services and control. Settings are read again, and successors started, as `launch` says.
    ///
    /// # Errors
    /// When there is no thread for one, or a signal cannot be caught.
    pub(super) fn spawn(mut self, site: &Site, launch: Option<Launch>) -> Result<JoinHandle<()>, Failure> {
        let results = self.results();
        let Site { config, shared, sources, start, .. } = site;
        let metrics = config.stack.as_ref().map(|stack| self.keep_statistics(stack, site));
        self.tasks.extend(config.tls.server.clone().map(watch_certificate));
        if let Some(launch) = launch {
            self.watch_signals(site, launch)?;
        }
        if let Some(interval) = systemd::watchdog_interval(self.is_successor) {
            let pulse = Pulse {
                shards: sources.shards.clone(),
                control: self.state.stats(),
                lifecycle: Arc::clone(&shared.lifecycle),
                wake: results.clone(),
            };
            self.tasks.push(Box::new(move || Box::pin(systemd::feed_watchdog(pulse, interval))));
        }
        let cluster = self.cluster.take();
        self.tasks.extend(sources::tasks(config, &self.config, cluster, &results));
        let Self { state, inboxes, services, tasks, .. } = self;
        let (handle, _thread) =
            services.spawn(results, destinations(config), &config.tls.client, tasks).map_err(no_thread)?;
        let doors = Doors {
            reports: inboxes.reports,
            admin: inboxes.admin,
            results: inboxes.results,
            services: handle,
            snapshot: Arc::clone(&shared.snapshot),
            lifecycle: Arc::clone(&shared.lifecycle),
            metrics,
            shard_stats: sources.shards.clone(),
        };
        control::spawn(state, doors, *start).map_err(no_thread)
    }

    /// Has statistics by engine kept and logged; returns what makes the metrics page of them.
    fn keep_statistics(&mut self, stack: &StackConfig, site: &Site) -> MetricsPage {
        let statistics = Arc::new(Statistics::new(site.sources.clone(), stack, site.start));
        let sampled = Arc::clone(&statistics);
        self.tasks.push(Box::new(move || Box::pin(sampled.sample())));
        if let Some(interval) = stack.log_stats {
            let logged = Arc::clone(&statistics);
            self.tasks.push(Box::new(move || Box::pin(logged.log(interval))));
        }
        MetricsPage(Arc::new(move || statistics.page()))
    }

    /// Has SIGHUP and SIGUSR2 do what they are for. Both are caught before anybody is told that the process is ready.
    fn watch_signals(&mut self, site: &Site, launch: Launch) -> Result<(), Failure> {
        let Site { config, shared, sources, logs, .. } = site;
        let catch = |kind: SignalKind| {
            let caught = self.services.catch(kind);
            caught.map_err(|error| Failure::runtime(format!("cannot catch signals: {error}")))
        };
        if config.handover.is_some() {
            let (argv, signals) = (launch.argv.clone(), catch(SignalKind::user_defined2())?);
            self.tasks.push(Box::new(move || Box::pin(successor::watch(argv, signals))));
        }
        let signals = catch(SignalKind::hangup())?;
        let reloader = Reloader {
            launch,
            control_config: self.config.clone(),
            shard_config: Arc::clone(&shared.config),
            retry_budget: Arc::clone(&shared.retry_budget),
            gate: shared.gate.clone(),
            start: site.start,
            tls: config.tls.server.clone(),
            filter: logs.filter(),
            control: self.results(),
            counts: Arc::clone(&sources.reloads),
            authorities: Arc::clone(&config.tls.client.authorities),
            pods: config.fleet.pods.clone(),
            is_refused: false,
        };
        let file = config.stack.as_ref().and_then(|stack| stack.dynamic.clone()).map(Watched::new);
        self.tasks.push(Box::new(move || Box::pin(reloader.watch(signals, file))));
        Ok(())
    }
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::runtime(format!("cannot start a thread: {error}"))
}

fn serve_metrics(listener: Listener, sources: Sources, lifecycle: Arc<Lifecycle>) -> ExtraTask {
    Box::new(move || Box::pin(async move { metrics::serve(listener.socket, sources, lifecycle).await }))
}

fn watch_certificate(server: Arc<tls::Server>) -> ExtraTask {
    Box::new(move || Box::pin(async move { server.watch().await }))
}

/// The road for spans to `collector`, and the task at its end.
fn trace(collector: String, start: Instant) -> (SpanRoad, ExtraTask) {
    let (batches, inbox) = crossbeam_channel::bounded(SPAN_BATCHES_QUEUED_MAX);
    let road = SpanRoad { batches, start_unix_ns: unix_ns_at(start) };
    (road, Box::new(move || Box::pin(traces::run(inbox, collector))))
}

/// Control's state, from the process before if there is one, and what shards begin with.
fn first_state(
    config: &mut ControlConfig,
    mut before: Option<&mut Inheritance>,
    start: Instant,
) -> Result<(State, Snapshot), Failure> {
    let mut workers = Vec::new();
    if let Some(before) = &mut before {
        config.block_seed = before.block_seed();
        config.started_unix_s = before.started_unix_s();
        workers = std::mem::take(&mut before.workers);
    }
    let mut state = State::new(config.clone(), start.elapsed(), workers)
        .map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(before) = before {
        before.fill(&mut state)?;
    }
    let snapshot = state.first_publication(start.elapsed());
    // No shard runs yet: all of them begin with it.
    state.admit_newcomers();
    Ok((state, snapshot))
}

/// What control goes by, as a process of its own.
pub(crate) fn control_config(
    config: &Config,
    stats_shape: StatsShape,
    decisions: &[Arc<DecisionRing>],
) -> ControlConfig {
    let fleet = &config.fleet;
    ControlConfig {
        shards: config.cpus.len(),
        stats_shape,
        seed: config.shard.seed,
        block_seed: config.shard.seed,
        rules: fleet.rules,
        bucket_adjust_interval: fleet.bucket_adjust_interval,
        decisions: decisions.to_vec(),
        worker_urls: fleet.worker_urls.clone(),
        pair_workers: fleet.pair_workers.clone(),
        fixed_workers: fleet.fixed_workers.clone(),
        aliases: Arc::clone(&fleet.aliases),
        stack: fleet.stack.clone(),
        dp_aware: fleet.dp_aware,
        api_key: config.security.api_key.clone(),
        hides_workers: config.security.is_control_closed,
        destinations: destinations(config),
        health: fleet.health.clone(),
        startup_timeout: fleet.startup_timeout,
        startup_check_interval: fleet.startup_check_interval,
        prefix_bytes_max: fleet.prefix_bytes_max,
        blocks_per_holder_max: fleet.blocks_per_holder_max,
        eviction_interval: fleet.eviction_interval,
        load_monitor_interval: fleet.load_monitor_interval,
        breaker: fleet.breaker,
        recovery_ramp: fleet.recovery_ramp,
        pace: fleet.pace,
        worker_failures_max: fleet.worker_failures_max,
        drain_settle: fleet.drain_settle,
        shutdown_grace: fleet.shutdown_grace,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

fn destinations(config: &Config) -> Destinations {
    if config.security.allows_link_local { Destinations::Any } else { Destinations::Usual }
}

/// Without its issuer's keys the control plane would be closed to everybody, or open to the wrong ones.
fn find_issuer(config: AuthConfig) -> Result<Issuer, Failure> {
    let issuer = config.issuer.clone();
    jwks::find(config).map_err(|error| Failure::usage(format!("no keys of the issuer {issuer}: {error}")))
}

/// An instant in nanoseconds since 1970, by the clock of this moment.
fn unix_ns_at(instant: Instant) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(instant.elapsed()).as_nanos().try_into().unwrap_or(u64::MAX)
}

fn resolve_driver(wanted: IoDriver) -> Result<(IoDriver, Option<std::io::Error>), Failure> {
    match driver::resolve(wanted) {
        (IoDriver::Uring, Some(refusal)) => {
            Err(Failure::usage(format!("--io-driver uring: io_uring is refused here: {refusal}")))
        }
        resolved => Ok(resolved),
    }
}

/// Client connections that a shard may have: half the descriptors are for clients, the rest for workers and whatever
/// else is open, so that a crowd of clients does not cut the gateway off from its workers.
fn connections_max(descriptors: u64, shards: usize) -> u64 {
    (descriptors / 2 / shards as u64).max(1)
}

/// Each connection is a descriptor: takes all the system allows without asking, and says how many that is.
fn raise_descriptor_limit() -> u64 {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        error!(%error, "cannot raise the limit of open files");
    }
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
