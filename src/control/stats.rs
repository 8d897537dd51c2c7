//! What control shows to the metrics page: counters it alone writes, and the models they belong to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fleet::cell::Counter;
use fleet::stats::ModelStats;

use crate::control::models::Models;

/// Cells that control writes and the metrics page reads.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Turns of control's loop: one that is stuck counts no more.
    pub turns_total: Counter,
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
    /// Models ever served, with their counters, ordered by name.
    pub models: ArcSwap<Vec<ShownModel>>,
}

/// A model as the metrics page shows it.
#[derive(Clone, Debug)]
pub struct ShownModel {
    /// As clients name it.
    pub name: Box<str>,
    /// The policy it is served by, or was when somebody served it last.
    pub policy: &'static str,
    /// Its counters.
    pub stats: Arc<ModelStats>,
}

impl ControlStats {
    /// Shows the models if there are others than before, or other policies; names are never forgotten.
    pub(crate) fn show_models(&self, models: &Models) {
        // Counters are shared by the roles of a model, whose names are neighbours.
        let mut first_of: Vec<_> = models.iter().collect();
        first_of.dedup_by(|(a, _), (b, _)| a.model == b.model);
        let shown = self.models.load();
        let is_shown = shown.len() == first_of.len()
            && shown.iter().zip(&first_of).all(|(shown, (_, model))| shown.policy == model.policy.name());
        if !is_shown {
            let shown = first_of.iter().map(|(name, model)| ShownModel {
                name: name.model.clone(),
                policy: model.policy.name(),
                stats: Arc::clone(&model.stats),
            });
            self.models.store(Arc::new(shown.collect()));
        }
    }
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
