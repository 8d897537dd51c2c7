//! The metrics page: sums up what shards and control count, in Prometheus' text format.
//!
//! Nothing is registered and nothing is locked: every scrape reads the cells as they stand. Names and labels follow
//! the SGLang gateway's (`smg_*`), so that dashboards keep working; what it does not have stands under the same
//! prefix.

mod admission;
mod family;
mod listener;
mod resilience;
mod tables;

use std::sync::Arc;

use arc_swap::ArcSwap;
use fleet::admission::Gate;
use fleet::cell::Counter;
use fleet::snapshot::Fleet;
use fleet::snapshot::Snapshot;
use fleet::stats::ShardStats;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;

use crate::control::ControlStats;
pub(crate) use crate::metrics::family::Family;
pub(crate) use crate::metrics::listener::serve;

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) shards: Vec<Arc<ShardStats>>,
    pub(crate) control: Arc<ControlStats>,
    /// The fleet that shards route by.
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// How often settings were read again.
    pub(crate) reloads: Arc<Reloads>,
    /// Where requests are admitted, if they are limited.
    pub(crate) gate: Option<Arc<Gate>>,
}

/// Attempts to read the settings again, by their result.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) done: Counter,
    pub(crate) refused: Counter,
}

impl Sources {
    /// The fleet of this moment. Of the snapshot no more is kept: a tree that somebody holds is not freed.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.snapshot.load().fleet)
    }

    /// The page.
    pub(crate) fn render(&self) -> String {
        let mut families: Vec<MetricFamily> = tables::http(self);
        families.extend(admission::families(self));
        families.extend(tables::router(self));
        families.extend(tables::workers(self));
        families.extend(resilience::retries(self));
        families.extend(resilience::breakers(self));
        families.extend(tables::engines(self));
        families.extend(tables::prefix(self));
        families.extend(tables::shards(self));
        families.push(tables::reloads(self));
        families.extend(ProcessCollector::for_self().collect());
        families.retain(|family| !family.get_metric().is_empty());
        // Only a writer that fails can make this fail, and a string does not.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}
