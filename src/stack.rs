//! What the process does beside serving in the front end of vLLM's production-stack: statistics by engine, on the metrics
//! page and in the log, and a file of settings that is watched.

mod block;
mod host;
mod page;
pub(crate) mod watch;
mod window;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use fleet::snapshot::Worker;
use fleet::tally::Tallies;
use tracing::info;

use self::host::Host;
use self::window::RequestStats;
use self::window::Windows;
use crate::config::stack::StackConfig;
use crate::metrics::Sources;

/// Shortest pause between two looks at what was counted.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Looks in one window.
const SAMPLES_PER_WINDOW: u32 = 120;

/// Where statistics come from.
pub(crate) struct Statistics {
    sources: Sources,
    start: Instant,
    window: Duration,
    windows: Mutex<Windows>,
    host: Mutex<Host>,
}

/// One engine as statistics show it.
struct Shown {
    worker: Arc<Worker>,
    tallies: Arc<Tallies>,
    requests: Option<RequestStats>,
}

impl Statistics {
    pub(crate) fn new(sources: Sources, config: &StackConfig, start: Instant) -> Self {
        let windows = Mutex::new(Windows::new(config.window));
        Self { sources, start, window: config.window, windows, host: Mutex::default() }
    }

    /// Looks at what was counted, again and again.
    pub(crate) async fn sample(self: Arc<Self>) {
        let pause = (self.window / SAMPLES_PER_WINDOW).max(SAMPLE_INTERVAL_MIN);
        loop {
            self.take_sample();
            tokio::time::sleep(pause).await;
        }
    }

    /// Logs what engines are busy with, again and again.
    pub(crate) async fn log(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let block = block::written(&self.engines());
            info!(target: "stats", "{block}");
        }
    }

    /// The metrics page.
    pub(crate) fn page(&self) -> String {
        let mut page = page::written(self);
        page.push_str(&self.sources.render());
        page
    }

    fn take_sample(&self) {
        let fleet = self.sources.fleet();
        let engines = fleet.workers.iter().filter_map(|worker| worker.tallies.as_ref());
        let counts = engines.map(|tallies| (&*tallies.engine_id, tallies.counts()));
        // Whoever held it before did not leave it half changed.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.sample(self.start.elapsed(), counts);
    }

    /// Every engine that gets requests.
    fn engines(&self) -> Vec<Shown> {
        let fleet = self.sources.fleet();
        let mut members: Vec<u32> =
            fleet.pools.iter().flat_map(|pool| pool.members.iter().copied()).collect();
        members.sort_unstable();
        members.dedup();
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.start.elapsed();
        let shown = |index: u32| {
            let worker = Arc::clone(fleet.workers.get(index)?);
            let tallies = Arc::clone(worker.tallies.as_ref()?);
            let requests = windows.stats(&tallies.engine_id, now, &tallies.counts());
            Some(Shown { worker, tallies, requests })
        };
        members.into_iter().filter_map(shown).collect()
    }
}
