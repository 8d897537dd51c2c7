//! Settings read again while the process runs (SIGHUP): the command line and its file are read as at start, and if
//! everything is good and nothing was changed that cannot change, all of it holds from then on. Else nothing does.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use fleet::admission::Gate;
use fleet::budget::RetryBudget;
use shard::ShardConfig;
use tokio::signal::unix::Signal;
use tracing::info;
use tracing::warn;

use crate::Failure;
use crate::cli;
use crate::cli::Command;
use crate::cli::Exit;
use crate::cli::Launch;
use crate::config;
use crate::config::Config;
use crate::config::PodsConfig;
use crate::control;
use crate::control::ControlConfig;
use crate::control::event::Event;
use crate::logs::Filter;
use crate::metrics::Reloads;
use crate::run;
use crate::stack;
use crate::systemd;
use crate::tls;
use crate::tls::Authorities;
use crate::watched::Watched;

/// Flags that may change while the process runs, besides those that begin with one of [`GROUPS`].
const FLAGS: [&str; 30] = [
    "--affinity-keys",
    "--api-key",
    "--body-timeout-secs",
    "--bucket-adjust-interval-secs",
    "--connect-timeout-secs",
    "--control-plane-api-keys",
    "--control-plane-audit-enabled",
    "--cors-allowed-origins",
    "--decode",
    "--disable-audit-logging",
    "--disable-circuit-breaker",
    "--disable-health-check",
    "--disable-retries",
    "--drain-settle-secs",
    "--enable-igw",
    "--eviction-interval",
    "--explain-routing",
    "--first-token-timeout-secs",
    "--head-timeout-secs",
    "--inter-token-timeout-secs",
    "--keep-alive-timeout-secs",
    "--load-monitor-interval",
    "--log-level",
    "--model-alias",
    "--prefill",
    "--priority-scheduler-config",
    "--priority-scheduler-default-max-class",
    "--request-timeout-secs",
    "--verbose",
    "--worker-urls",
];
/// Beginnings of names of which all may change.
const GROUPS: [&str; 19] = [
    "--cb-",
    "--health-",
    "--max-concurrent-requests",
    "--max-payload-size",
    "--max-total-retries",
    "--max-worker-retries",
    "--min-body-rate",
    "--queue-",
    "--rate-limit-tokens-per-second",
    "--recovery-ramp-secs",
    "--request-id-headers",
    "--retry-",
    "--shutdown-grace-period-secs",
    "--slow-worker-factor",
    "--stream-resume",
    "--tenant-api-key",
    "--tenant-header-name",
    "--tenant-rate-limit-",
    "--trust-tenant-header",
];
const STARTUP_GROUP: &str = "--worker-startup-";

/// Reads settings again and puts them where they are gone by.
pub(crate) struct Reloader {
    /// What holds now.
    pub(crate) launch: Launch,
    pub(crate) control_config: ControlConfig,
    pub(crate) shard_config: Arc<ArcSwap<ShardConfig>>,
    pub(crate) retry_budget: Arc<RetryBudget>,
    pub(crate) gate: Option<Arc<Gate>>,
    /// When the time began that the gate goes by.
    pub(crate) start: Instant,
    pub(crate) tls: Option<Arc<tls::Server>>,
    pub(crate) filter: Filter,
    pub(crate) control: Sender<Event>,
    pub(crate) counts: Arc<Reloads>,
    /// Whom workers' certificates are checked by.
    pub(crate) authorities: Arc<Authorities>,
    /// The pods that are workers, if any are looked for.
    pub(crate) pods: Option<PodsConfig>,
    /// Whether a file of settings was refused, which `/health` says.
    pub(crate) is_refused: bool,
}

/// Settings that were found good.
struct Good {
    launch: Launch,
    config: Config,
    control_config: ControlConfig,
    changed: Vec<String>,
}

impl Reloader {
    /// Reads the settings again at every signal, and when a file of settings that is watched has changed.
    pub(crate) async fn watch(mut self, mut signals: Signal, mut file: Option<Watched>) {
        loop {
            let changed = async {
                match &mut file {
                    Some(file) => file.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                signal = signals.recv() => if signal.is_none() { return },
                () = changed => {}
            }
            systemd::notify_reloading();
            // Files may lie on a disk that does not answer, and control may be busy.
            let reloaded = tokio::task::spawn_blocking(move || {
                self.reload();
                self
            });
            match reloaded.await {
                Ok(reloader) => self = reloader,
                Err(_) => return,
            }
            systemd::notify("READY=1");
        }
    }

    fn reload(&mut self) {
        match self.read() {
            // Nobody wants to hear of a file that says what it said before.
            Ok(good)
                if good.launch.stack.is_some()
                    && good.launch.stack == self.launch.stack
                    && !self.is_refused => {}
            Ok(good) => {
                self.is_refused = false;
                info!(changed = good.changed.join(" "), "settings were read again");
                self.put_in_place(good);
                self.counts.done.add(1);
            }
            Err(error) => {
                warn!(%error, "the settings cannot be taken over: those before them stay");
                self.counts.refused.add(1);
                self.show_refusal(&error);
            }
        }
    }

    /// Has `/health` say why a file of settings does not hold.
    fn show_refusal(&mut self, error: &Failure) {
        let Some(flags) = &self.launch.stack else { return };
        self.is_refused = true;
        let Some(stack) = &mut self.control_config.stack else { return };
        Arc::make_mut(stack).health = config::stack::health(flags, Some(&error.to_string()));
        let _ = self.control.send(Event::Reload(Box::new(self.control_config.clone())));
    }

    fn read(&self) -> Result<Good, Failure> {
        let launch = match cli::parse(self.launch.argv.clone()) {
            Ok(Command::Launch(launch)) => *launch,
            Err(Exit::Refused(why) | Exit::Failed(why)) => {
                return Err(Failure::usage(
                    why.trim_start_matches("ringway: ").trim_start_matches("vllm-router: ").trim_end(),
                ));
            }
            Ok(Command::Demo(_) | Command::EngineSim(_) | Command::Replay(_)) | Err(Exit::Shown(_)) => {
                return Err(Failure::usage("the command line is another one than before"));
            }
        };
        let changed = self.launch.given.changed(&launch.given);
        if let Some(fixed) = changed.iter().find(|flag| !may_change(flag)) {
            return Err(Failure::usage(format!("{fixed} cannot change while the gateway runs")));
        }
        let mut config = config::of_launch(&launch)?;
        if config.admission.is_some() != self.gate.is_some() {
            return Err(Failure::usage(
                "--max-concurrent-requests cannot change between -1 and a number while the gateway runs",
            ));
        }
        if config.fleet.pods != self.pods {
            return Err(Failure::usage("where pods are looked for cannot change while the gateway runs"));
        }
        let before = &self.control_config;
        stack::watch::look_up(&mut config.fleet.fixed_workers, &before.fixed_workers, before.destinations);
        if stack::watch::has_tls(&config.fleet.fixed_workers) {
            self.authorities.load();
        }
        let control_config = ControlConfig {
            seed: before.seed,
            block_seed: before.block_seed,
            started_unix_s: before.started_unix_s,
            ..run::control_config(&config, before.stats_shape.clone(), &before.decisions)
        };
        control::check(&control_config).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Good { launch, config, control_config, changed })
    }

    fn put_in_place(&mut self, good: Good) {
        let Good { launch, config, control_config, .. } = good;
        let now = self.shard_config.load_full();
        let shard = ShardConfig {
            seed: now.seed,
            connections_max: now.connections_max,
            peers: now.peers.clone(),
            tls: now.tls.clone(),
            worker_tls: Arc::clone(&now.worker_tls),
            ..config.shard
        };
        self.shard_config.store(Arc::new(shard));
        if let (Some(gate), Some(rules)) = (&self.gate, config.admission) {
            gate.set_rules(rules, self.start.elapsed().as_micros() as u64);
        }
        self.retry_budget.set_percent(config.retry_budget_percent);
        self.filter.set(&config.logs);
        if let (Some(shown), Some(read)) = (&self.tls, &config.tls.server) {
            shown.adopt(read);
        }
        // Control ends later than services do.
        let _ = self.control.send(Event::Reload(Box::new(control_config.clone())));
        self.control_config = control_config;
        self.launch = launch;
    }
}

fn may_change(flag: &str) -> bool {
    FLAGS.contains(&flag) || GROUPS.iter().chain([&STARTUP_GROUP]).any(|group| flag.starts_with(group))
}
