//! What control shows to the metrics page: counters it alone writes, and a view of the fleet.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fleet::cell::Counter;
use fleet::cell::WorkerCells;
use fleet::stats::ModelStats;

/// Cells that control writes and the metrics page reads.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Snapshots published.
    pub publications_total: Counter,
    /// Reports taken.
    pub reports_total: Counter,
    /// Health checks that a worker passed.
    pub health_checks_passed_total: Counter,
    /// Health checks that a worker failed.
    pub health_checks_failed_total: Counter,
    /// Polls that told what an engine is busy with.
    pub polls_passed_total: Counter,
    /// Polls that did not.
    pub polls_failed_total: Counter,
    /// Workers found to be another process than before.
    pub worker_restarts_total: Counter,
    /// Workers that became healthy for the first time.
    pub workers_added_total: Counter,
    /// Workers removed for any reason.
    pub workers_removed_total: Counter,
    /// Of these, workers removed because requests to them failed in a row.
    pub workers_removed_failing_total: Counter,
    /// Bytes of the prefix tree.
    pub tree_bytes: Counter,
    /// Nodes of the prefix tree.
    pub tree_nodes: Counter,
    /// Distinct blocks in the prefix tree.
    pub tree_blocks: Counter,
    /// Older versions of the tree that a reader still has.
    pub tree_versions_retained: Counter,
    /// Blocks the tree lost to a bound.
    pub tree_evicted_blocks_total: Counter,
    /// The fleet as last published.
    pub view: ArcSwap<FleetView>,
}

/// The fleet in the words of the metrics page.
#[derive(Debug, Default)]
pub struct FleetView {
    /// Registered workers, draining ones included.
    pub workers: Vec<WorkerView>,
    /// Models ever served, with their counters, ordered by name.
    pub models: Vec<(Box<str>, Arc<ModelStats>)>,
}

/// One worker.
#[derive(Debug)]
pub struct WorkerView {
    /// Its URL.
    pub url: Box<str>,
    /// The main model it serves.
    pub model: Box<str>,
    /// Where it stands.
    pub health: Health,
    /// Its load and failures.
    pub cells: Arc<WorkerCells>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not yet reached.
    Pending,
    /// Gets requests.
    Ready,
    /// Failed its checks; gets none.
    Unhealthy,
    /// Removed; finishes what it has.
    Draining,
}
