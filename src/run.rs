//! Putting the process together: listeners, shards, control, services; and taking it apart.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use api::endpoint::Endpoint;
use api::endpoint::METHODS;
use api::error::ErrorCode;
use arc_swap::ArcSwap;
use fleet::admin::ADMIN_CALLS_QUEUED_MAX;
use fleet::admission::Gate;
use fleet::budget::RetryBudget;
use fleet::cell::Lifecycle;
use fleet::decision::DecisionRing;
use fleet::report::BATCHES_QUEUED_MAX;
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
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::Failure;
use crate::auth::AuthConfig;
use crate::cli::Launch;
use crate::config;
use crate::config::Config;
use crate::control;
use crate::control::ControlConfig;
use crate::control::Destinations;
use crate::control::State;
use crate::handover;
use crate::handover::Giver;
use crate::handover::Inheritance;
use crate::logs;
use crate::logs::Logs;
use crate::metrics;
use crate::metrics::Sources;
use crate::reload::Reloader;
use crate::services;
use crate::services::jwks;
use crate::services::jwks::Issuer;
use crate::sockets;
use crate::sockets::Sockets;
use crate::systemd;
use crate::systemd::Pulse;
use crate::tls;
use crate::traces;

/// How long shards may take to end once they have been told to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks at whether they have.
const STOP_POLL: Duration = Duration::from_millis(5);

/// A gateway that serves.
#[derive(Debug)]
pub(crate) struct Running {
    shards: Vec<JoinHandle<std::io::Result<()>>>,
    control: JoinHandle<()>,
    /// Kept whole, so that control's inboxes have a sender as long as it runs.
    shared: Shared,
    sources: Sources,
    _logs: Logs,
}

/// Starts a gateway and waits for its end.
pub(crate) fn run(launch: Launch) -> Result<(), Failure> {
    start(config::lower(&launch.flags)?, Some(launch))?.wait()
}

/// Starts a gateway. It listens when this returns; workers come in the background. Settings are read again as `launch`
/// says, if they ever are.
#[expect(clippy::too_many_lines, reason = "the parts of a process, each wired to those before it")]
pub(crate) fn start(mut config: Config, launch: Option<Launch>) -> Result<Running, Failure> {
    let began = Instant::now();
    // Only the first gateway of a process, as tests start several, finds none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shape = StatsShape {
        endpoints: Endpoint::COUNT,
        methods: METHODS.len(),
        error_codes: ErrorCode::COUNT,
        duration_bounds_us: Arc::clone(&config.duration_bounds_us),
    };
    let decisions: Vec<Arc<DecisionRing>> = config.cpus.iter().map(|_| Arc::default()).collect();
    // Everything that can be wrong with the command line is found before the first thread starts, and before another
    // process is asked to hand over.
    let mut control_config = control_config(&config, shape.clone(), &decisions);
    control::check(&control_config).map_err(|error| Failure::usage(error.to_string()))?;
    let driver = resolve_driver(config.driver)?;
    // Before anything listens: whoever can connect can be answered.
    let issuer = config.security.tokens.take().map(find_issuer).transpose()?;
    let mut before = config.handover.as_deref().map(handover::find).transpose()?.flatten();
    let sockets = Sockets::open(&config, before.as_mut())?;
    let spare = config.handover.is_some().then(|| sockets.try_clone()).transpose();
    let spare = spare.map_err(|error| Failure::runtime(format!("cannot copy the listeners: {error}")))?;
    let start = before.as_ref().map_or(began, Inheritance::start);
    let (state, snapshot) = first_state(&mut control_config, before.as_mut(), start)?;
    let logs = logs::init(&config.logs)?;
    if let (IoDriver::Epoll, Some(refusal)) = &driver {
        warn!(%refusal, "io_uring is refused here: shards run on epoll");
    }
    let descriptors = raise_descriptor_limit();
    config.shard.connections_max =
        connections_max(descriptors, config.cpus.len()).min(config.shard.connections_max);

    let shard_stats: Vec<_> = config.cpus.iter().map(|_| Arc::new(ShardStats::new(&shape))).collect();
    let (reports, reports_inbox) = crossbeam_channel::bounded(BATCHES_QUEUED_MAX);
    let (admin, admin_inbox) = crossbeam_channel::bounded(ADMIN_CALLS_QUEUED_MAX);
    let (results, results_inbox) = crossbeam_channel::bounded(control::RESULTS_QUEUED_MAX);
    let (tokens, verify) = issuer.map(jwks::serve).unzip();
    let (spans, span_inbox) = match &config.collector {
        Some(_) => {
            let (batches, inbox) = crossbeam_channel::bounded(SPAN_BATCHES_QUEUED_MAX);
            (Some(SpanRoad { batches, start_unix_ns: unix_ns_at(start) }), Some(inbox))
        }
        None => (None, None),
    };
    let destinations = destinations(&config);
    let seed = config.shard.seed;
    let shared = Shared {
        config: Arc::new(ArcSwap::from_pointee(config.shard)),
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        lifecycle: Arc::new(Lifecycle::default()),
        spans,
        retry_budget: Arc::new(RetryBudget::new(config.retry_budget_percent)),
        reports,
        admin,
        tokens,
        gate: config.admission.take().map(|rules| Arc::new(Gate::new(rules))),
        tenants: Arc::default(),
    };
    let sources = Sources {
        shards: shard_stats.clone(),
        control: state.stats(),
        snapshot: Arc::clone(&shared.snapshot),
        reloads: Arc::default(),
        gate: shared.gate.clone(),
    };
    let no_thread = |error: std::io::Error| Failure::runtime(format!("cannot start a thread: {error}"));
    let listen = sockets.address().unwrap_or(config.listen);
    let Sockets { main, admin: mut admin_listener, metrics: metrics_listener } = sockets;
    let mut shards = Vec::with_capacity(config.cpus.len());
    for (index, listeners) in sockets::spread(main, config.cpus.len()).into_iter().enumerate() {
        let place = ShardPlace {
            index,
            cpu: config.cpus[index],
            listeners,
            admin_listener: admin_listener.take(),
            stats: Arc::clone(&shard_stats[index]),
            decisions: Arc::clone(&decisions[index]),
            driver: driver.0,
        };
        shards.push(shard::spawn(shared.clone(), place, start).map_err(no_thread)?);
    }
    let scraped = serve_metrics(metrics_listener, sources.clone(), Arc::clone(&shared.lifecycle));
    let mut extra: Vec<_> = std::iter::once(scraped).chain(verify).collect();
    if let (Some(spans), Some(collector)) = (span_inbox, config.collector.take()) {
        extra.push(Box::new(move || Box::pin(traces::run(spans, collector))));
    }
    let server = config.tls.server.map(Arc::new);
    extra.extend(server.clone().map(watch_certificate));
    if let Some(launch) = launch {
        let argv = launch.argv.clone();
        if config.handover.is_some() {
            extra.push(Box::new(move || Box::pin(handover::successor::watch(argv))));
        }
        let reloader = Reloader {
            launch,
            control_config,
            shard_config: Arc::clone(&shared.config),
            retry_budget: Arc::clone(&shared.retry_budget),
            gate: shared.gate.clone(),
            start,
            tls: server,
            filter: logs.filter(),
            control: results.clone(),
            counts: Arc::clone(&sources.reloads),
        };
        extra.push(Box::new(move || Box::pin(reloader.watch())));
    }
    if let Some(interval) = systemd::watchdog_interval(before.is_some()) {
        let pulse = Pulse {
            shards: shard_stats.clone(),
            control: state.stats(),
            lifecycle: Arc::clone(&shared.lifecycle),
            wake: results.clone(),
        };
        extra.push(Box::new(move || Box::pin(systemd::feed_watchdog(pulse, interval))));
    }
    let (handle, _services) =
        services::spawn(results.clone(), destinations, &config.tls.client, extra).map_err(no_thread)?;
    let doors = control::Doors {
        reports: reports_inbox,
        admin: admin_inbox,
        results: results_inbox,
        services: handle,
        snapshot: Arc::clone(&shared.snapshot),
        lifecycle: Arc::clone(&shared.lifecycle),
        shard_stats,
    };
    let control = control::spawn(state, doors, start).map_err(no_thread)?;
    let after = before.as_ref().map(Inheritance::pid);
    if let (Some(path), Some(sockets)) = (config.handover, spare) {
        before.map(|before| before.serving(&path)).transpose()?;
        // Whatever a process before this one did to its sockets as it ended.
        sockets.main.iter().for_each(Listener::welcome_newcomers);
        let at = path.display().to_string();
        let giver = Giver { path, sockets, lifecycle: Arc::clone(&shared.lifecycle), control: results };
        match (giver.spawn(), &after) {
            (Ok(_), _) => {}
            (Err(error), None) => {
                return Err(Failure::usage(format!("--handover-socket {at}: {error}")));
            }
            // The process before serves no more: better to serve without a successor than not at all.
            (Err(error), Some(_)) => {
                error!(%error, "--handover-socket {at}: nobody can take over from this process")
            }
        }
    }
    systemd::notify("READY=1");
    info!(
        %listen,
        metrics = %config.metrics,
        admin = config.security.admin.map(tracing::field::display),
        shards = shards.len(),
        cpus = ?config.cpus,
        driver = %driver.0,
        policy = config.fleet.rules.default.name(),
        seed,
        after,
        start_us = began.elapsed().as_micros() as u64,
        "ringway {} listens", env!("CARGO_PKG_VERSION")
    );
    Ok(Running { shards, control, shared, sources, _logs: logs })
}

fn serve_metrics(listener: Listener, sources: Sources, lifecycle: Arc<Lifecycle>) -> services::ExtraTask {
    Box::new(move || Box::pin(async move { metrics::serve(listener.socket, sources, lifecycle).await }))
}

fn watch_certificate(server: Arc<tls::Server>) -> services::ExtraTask {
    Box::new(move || Box::pin(async move { server.watch().await }))
}

/// Control's state, from the process before if there is one, and what shards begin with.
fn first_state(
    config: &mut ControlConfig,
    before: Option<&mut Inheritance>,
    start: Instant,
) -> Result<(State, Snapshot), Failure> {
    if let Some(before) = &before {
        config.block_seed = before.block_seed();
        config.started_unix_s = before.started_unix_s();
    }
    let mut before = before;
    let workers = before.as_mut().map(|before| std::mem::take(&mut before.workers)).unwrap_or_default();
    let mut state = State::new(config.clone(), start.elapsed(), workers)
        .map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(before) = before {
        before.fill(&mut state)?;
    }
    let snapshot = state.first_publication(start.elapsed());
    // No shard runs yet: all of them begin with it.
    state.published();
    Ok((state, snapshot))
}

// === impl Running ===

impl Running {
    /// Where its numbers can be read.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Waits until it has been told to stop and every request has ended, or the grace period has.
    ///
    /// # Errors
    /// When a thread failed rather than ended.
    pub(crate) fn wait(self) -> Result<(), Failure> {
        // A shard that dies takes its connections with it: better a restart than a gateway that answers some.
        while !self.control.is_finished() {
            if let Some(dead) = self.shards.iter().position(JoinHandle::is_finished)
                && self.shared.lifecycle.phase() == fleet::cell::Phase::Running
            {
                let why = self.shards.into_iter().nth(dead).map(JoinHandle::join);
                return Err(Failure::runtime(format!("shard {dead} ended: {}", reason(why))));
            }
            std::thread::park_timeout(STOP_POLL * 10);
        }
        if self.control.join().is_err() {
            return Err(Failure::runtime("the control thread panicked"));
        }
        if !self.shared.lifecycle.is_handed_over() {
            systemd::notify("STOPPING=1");
        }
        self.shared.lifecycle.advance(fleet::cell::Phase::Stopping);
        let deadline = Instant::now() + STOP_WAIT;
        while Instant::now() < deadline && !self.shards.iter().all(JoinHandle::is_finished) {
            std::thread::park_timeout(STOP_POLL);
        }
        info!("stopped");
        Ok(())
    }
}

fn reason(result: Option<std::thread::Result<std::io::Result<()>>>) -> String {
    match result {
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(_)) => "it panicked".to_owned(),
        Some(Ok(Ok(()))) | None => "without a reason".to_owned(),
    }
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
