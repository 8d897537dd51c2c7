//! The reader's side of the tree: one published version, and the search in it.
//!
//! Invariants
//! - A search borrows; it touches no reference count and allocates nothing.
//! - It asks for one block after another and stops at the miss, so that blocks may be hashed while it goes.

use std::fmt;
use std::sync::Arc;

use super::HolderId;
use super::node::Node;
use super::node::Presence;
use crate::blocks::BLOCKS_PER_PROMPT_MAX;
use crate::blocks::Blocks;

/// One version of the tree, which never changes. The default is an empty one.
#[derive(Clone, Default)]
pub struct TreeSnapshot {
    root: Option<Arc<Node>>,
}

/// The result of a search: how far the prompt matched, and who has it that far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Match<'a> {
    /// Leading blocks that matched; 0 if nobody has the first.
    pub blocks: u32,
    holders: &'a [Presence],
}

// === impl TreeSnapshot ===

impl TreeSnapshot {
    pub(super) fn new(root: Arc<Node>) -> Self {
        TreeSnapshot { root: Some(root) }
    }

    /// The longest prefix of `blocks` that anybody holds.
    pub fn find(&self, blocks: impl Blocks) -> Match<'_> {
        self.find_deepest(blocks, |_| true)
    }

    /// The longest prefix of `blocks` that an admissible holder has.
    ///
    /// The match lists all holders of that prefix, so the caller asks again when it picks one of them. `admissible` is
    /// called on each node of the path until it first says yes, so it should be cheap and must be consistent.
    pub fn find_deepest(
        &self,
        mut blocks: impl Blocks,
        mut admissible: impl FnMut(HolderId) -> bool,
    ) -> Match<'_> {
        let mut found = Match::default();
        let Some(mut node) = self.root.as_ref() else { return found };
        let mut depth = 0;
        while let Some(key) = blocks.get(depth)
            && let Some(child) = node.kids.get(key)
        {
            // Presence is prefix-closed: where no admissible holder is, none is deeper either.
            if !child.holders.iter().any(|presence| admissible(presence.holder)) {
                break;
            }
            let shared = 1
                + (1..child.edge.len())
                    .take_while(|&index| blocks.get(depth + index) == Some(child.edge[index]))
                    .count();
            depth += shared;
            found = Match { blocks: depth as u32, holders: &child.holders };
            if shared < child.edge.len() {
                break;
            }
            node = child;
        }
        debug_assert!(depth <= BLOCKS_PER_PROMPT_MAX);
        found
    }

    #[cfg(test)]
    pub(super) fn root(&self) -> Option<&Arc<Node>> {
        self.root.as_ref()
    }
}

impl fmt::Debug for TreeSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TreeSnapshot").finish_non_exhaustive()
    }
}

// === impl Match ===

impl<'a> Match<'a> {
    /// Everybody who holds the matched blocks, by id, each with the tick of its last use.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = (HolderId, u32)> + 'a {
        self.holders.iter().map(|presence| (presence.holder, presence.tick))
    }
}
