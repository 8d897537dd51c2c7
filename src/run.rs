//! Putting the process together: listeners, shards, control, services; and taking it apart.

use std::net::SocketAddr;
use std::net::TcpListener;
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
use fleet::span::SPANS_QUEUED_MAX;
use fleet::stats::ShardStats;
use fleet::stats::StatsShape;
use rustix::process::Resource;
use shard::ShardPlace;
use shard::Shared;
use shard::rt::driver;
use shard::rt::driver::IoDriver;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::Failure;
use crate::auth::AuthConfig;
use crate::config::Config;
use crate::control;
use crate::control::ControlConfig;
use crate::control::Destinations;
use crate::logs;
use crate::logs::Logs;
use crate::metrics;
use crate::metrics::Sources;
use crate::services;
use crate::services::jwks;
use crate::services::jwks::Issuer;
use crate::tls;
use crate::traces;
use crate::traces::TraceConfig;

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
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    start(config)?.wait()
}

/// Starts a gateway. It listens when this returns; workers come in the background.
pub(crate) fn start(mut config: Config) -> Result<Running, Failure> {
    let start = Instant::now();
    // Only the first gateway of a process, as tests start several, finds none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shape = StatsShape {
        endpoints: Endpoint::COUNT,
        methods: METHODS.len(),
        error_codes: ErrorCode::COUNT,
        duration_bounds_us: Arc::clone(&config.duration_bounds_us),
    };
    let decisions: Vec<Arc<DecisionRing>> = config.cpus.iter().map(|_| Arc::default()).collect();
    // Everything that can be wrong with the command line is found before the first thread starts.
    let (state, snapshot) = control::initial(control_config(&config, shape.clone(), &decisions))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let driver = resolve_driver(config.driver)?;
    // Before anything listens: whoever can connect can be answered.
    let issuer = config.security.tokens.take().map(find_issuer).transpose()?;
    let listeners = bind(config.listen, config.cpus.len())?;
    let metrics_listener = bind(config.metrics, 1)?.into_iter().next();
    let mut admin_listeners =
        config.security.admin.map(|admin| bind(admin, 1)).transpose()?.into_iter().flatten();
    let logs = logs::init(&config.logs)?;
    if let (IoDriver::Epoll, Some(refusal)) = &driver {
        warn!(%refusal, "io_uring is refused here: shards run on epoll");
    }
    let descriptors = raise_descriptor_limit();
    config.shard.connections_max =
        connections_max(descriptors, config.cpus.len()).min(config.shard.connections_max);

    let shard_stats: Vec<_> = listeners.iter().map(|_| Arc::new(ShardStats::new(&shape))).collect();
    let (reports, reports_inbox) = crossbeam_channel::bounded(BATCHES_QUEUED_MAX);
    let (admin, admin_inbox) = crossbeam_channel::bounded(ADMIN_CALLS_QUEUED_MAX);
    let (results, results_inbox) = crossbeam_channel::bounded(control::RESULTS_QUEUED_MAX);
    let (tokens, verify) = issuer.map(jwks::serve).unzip();
    let (spans, span_inbox) =
        config.collector.is_some().then(|| crossbeam_channel::bounded(SPANS_QUEUED_MAX)).unzip();
    let shared = Shared {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        lifecycle: Arc::new(Lifecycle::default()),
        spans,
        retry_budget: Arc::new(RetryBudget::new(config.retry_budget_percent)),
        reports,
        admin,
        tokens,
        gate: config.admission.take().map(|rules| Arc::new(Gate::new(rules))),
    };
    let sources = Sources {
        shards: shard_stats.clone(),
        control: state.stats(),
        snapshot: Arc::clone(&shared.snapshot),
        gate: shared.gate.clone(),
    };
    let no_thread = |error: std::io::Error| Failure::runtime(format!("cannot start a thread: {error}"));
    let mut shards = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let place = ShardPlace {
            index,
            cpu: config.cpus[index],
            listener,
            admin_listener: admin_listeners.next(),
            stats: Arc::clone(&shard_stats[index]),
            decisions: Arc::clone(&decisions[index]),
            driver: driver.0,
        };
        shards.push(shard::spawn(config.shard.clone(), shared.clone(), place, start).map_err(no_thread)?);
    }
    let scraped = serve_metrics(metrics_listener, sources.clone());
    let mut extra: Vec<_> = std::iter::once(scraped).chain(verify).collect();
    if let (Some(spans), Some(collector)) = (span_inbox, config.collector.take()) {
        let config = TraceConfig { collector, start_unix_ns: unix_ns_at(start) };
        extra.push(Box::new(move || Box::pin(traces::run(spans, config))));
    }
    let destinations = destinations(&config);
    extra.extend(config.tls.server.map(watch_certificate));
    let (handle, _services) =
        services::spawn(results, destinations, &config.tls.client, extra).map_err(no_thread)?;
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
    info!(
        listen = %config.listen,
        metrics = %config.metrics,
        admin = config.security.admin.map(tracing::field::display),
        shards = shards.len(),
        cpus = ?config.cpus,
        driver = %driver.0,
        policy = config.fleet.rules.default.name(),
        seed = config.shard.seed,
        start_us = start.elapsed().as_micros() as u64,
        "ringway {} listens", env!("CARGO_PKG_VERSION")
    );
    Ok(Running { shards, control, shared, sources, _logs: logs })
}

fn serve_metrics(listener: Option<TcpListener>, sources: Sources) -> services::ExtraTask {
    Box::new(move || {
        Box::pin(async move {
            if let Some(listener) = listener {
                metrics::serve(listener, sources).await;
            }
        })
    })
}

fn watch_certificate(server: tls::Server) -> services::ExtraTask {
    Box::new(move || Box::pin(async move { server.watch().await }))
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

fn control_config(
    config: &Config,
    stats_shape: StatsShape,
    decisions: &[Arc<DecisionRing>],
) -> ControlConfig {
    let fleet = &config.fleet;
    ControlConfig {
        shards: config.cpus.len(),
        stats_shape,
        seed: config.shard.seed,
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

fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, Failure> {
    shard::listen::bind(address, count)
        .map_err(|error| Failure::usage(format!("cannot listen on {address}: {error}")))
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
