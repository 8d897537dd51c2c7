//! Sources that say, again and again, who the workers are.
//!
//! Each runs on the services thread and sends control whole lists ([`Event::Discovered`]), never changes: what was missed
//! in between is made up for by the next list, and the last one always arrives.

pub(crate) mod dns;
pub(crate) mod file;
pub(crate) mod kubernetes;
mod limits;

use crossbeam_channel::Sender;
use fleet::secret::Secret;

use crate::control::event::Discovered;
use crate::control::event::Event;
use crate::control::url::WorkerUrl;
use crate::control::worker::Checks;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;
pub(crate) use crate::discovery::limits::NAMES_MAX;
pub(crate) use crate::discovery::limits::WATCH_SECONDS_MAX;
use crate::services::deliver;

/// Where a source's lists go.
#[derive(Clone, Debug)]
pub(crate) struct Herald {
    pub(crate) source: Source,
    pub(crate) results: Sender<Event>,
    /// How workers are checked of which the source does not say it.
    pub(crate) checks: Checks,
    /// The gateway's own key, which they are given.
    pub(crate) api_key: Option<Secret>,
}

impl Herald {
    /// Tells control all workers that there are now.
    pub(crate) async fn tell(&self, workers: Vec<WorkerSpec>) {
        deliver(Event::Discovered(Box::new(Discovered { source: self.source, workers })), &self.results)
            .await;
    }

    /// A worker of which nothing but its URL is known.
    pub(crate) fn worker(&self, url: WorkerUrl) -> WorkerSpec {
        self.own(WorkerSpec::new(url, self.checks))
    }

    /// A worker that the source says more about.
    pub(crate) fn own(&self, spec: WorkerSpec) -> WorkerSpec {
        let api_key = spec.api_key.clone().or_else(|| self.api_key.clone());
        WorkerSpec { source: self.source, api_key, ..spec }
    }
}
