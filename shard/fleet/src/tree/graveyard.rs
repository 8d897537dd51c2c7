//! The graveyard: keeps published versions until no reader has them, and frees them a little at a time.
//!
//! Invariant: the root of every version a reader may hold is kept here too, so that letting go of a snapshot never
//! frees a node. Freeing stays on the writer's thread, and off the request path.

use std::sync::Arc;

use super::node::Node;

/// Nodes freed per call: at most a millisecond, and several times what a batch of 64 insertions leaves behind.
const NODES_PER_COLLECT_MAX: usize = 2048;

#[derive(Default)]
pub(super) struct Graveyard {
    /// Roots that readers may hold, oldest first. No more than readers, plus publications since the last collection.
    versions: Vec<Arc<Node>>,
    /// Nodes taken from versions that no reader has.
    dying: Vec<Arc<Node>>,
}

// === impl Graveyard ===

impl Graveyard {
    /// Keeps a root that is about to be published.
    pub(super) fn keep(&mut self, root: &Arc<Node>) {
        if self.versions.last().is_none_or(|last| !Arc::ptr_eq(last, root)) {
            self.versions.push(Arc::clone(root));
        }
    }

    /// Takes a root that the tree has abandoned.
    pub(super) fn bury(&mut self, root: Arc<Node>) {
        self.dying.push(root);
    }

    /// Frees up to a bounded number of nodes; true if there are more.
    pub(super) fn collect(&mut self) -> bool {
        // A root with one owner left is ours alone: only a holder of it could make another.
        self.dying.extend(self.versions.extract_if(.., |root| Arc::strong_count(root) == 1));
        for _ in 0..NODES_PER_COLLECT_MAX {
            let Some(node) = self.dying.pop() else { break };
            if let Some(mut node) = Arc::into_inner(node) {
                node.kids.take_into(&mut self.dying);
            }
        }
        !self.dying.is_empty()
    }

    pub(super) fn versions(&self) -> usize {
        self.versions.len()
    }
}
