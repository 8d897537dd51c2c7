//! Putting the process together, and taking it apart.

mod parts;

use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use fleet::cell::Phase;
use shard::Shared;
use tracing::info;

use crate::Failure;
use crate::cli::Launch;
use crate::config;
use crate::config::Config;
use crate::logs::Logs;
use crate::metrics::Sources;
use crate::systemd;

use self::parts::Parts;
use self::parts::Site;
pub(crate) use self::parts::control_config;

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
    start(config::of_launch(&launch)?, Some(launch))?.wait()
}

/// Starts a gateway: gathers its parts, starts its threads, takes over from the process before, and says so. It listens
/// when this returns; workers come in the background. Settings are read again as `launch`
/// says, if they ever are.
pub(crate) fn start(config: Config, launch: Option<Launch>) -> Result<Running, Failure> {
    let began = Instant::now();
    // Only the first gateway of a process, as tests start several, finds none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Parts { site, data, control, succession } = Parts::gather(config, began)?;
    let results = control.results();
    let shards = data.spawn(&site)?;
    let control = control.spawn(&site, launch)?;
    let Site { config, driver, logs, shared, sources, listen, .. } = site;
    let after = match succession {
        Some(succession) => succession.serve(&shared.lifecycle, results)?,
        None => None,
    };
    systemd::notify("READY=1");
    info!(
        %listen,
        metrics = config.metrics.map(tracing::field::display),
        admin = config.security.admin.map(tracing::field::display),
        shards = shards.len(),
        cpus = ?config.cpus,
        %driver,
        policy = config.fleet.rules.default.name(),
        seed = config.shard.seed,
        after,
        start_us = began.elapsed().as_micros() as u64,
        "ringway {} listens", env!("CARGO_PKG_VERSION")
    );
    Ok(Running { shards, control, shared, sources, _logs: logs })
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
                && self.shared.lifecycle.phase() == Phase::Running
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
        self.shared.lifecycle.advance(Phase::Stopping);
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
