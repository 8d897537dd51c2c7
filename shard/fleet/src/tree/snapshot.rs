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

/// Steps of a trail that are kept: its last ones. A conversation is one node, so few trails are longer.
const STEPS_KEPT_MAX: usize = 16;

/// The way of a prompt down the tree: every node on it with its depth.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trail<'a> {
    /// The last steps, the latest at `steps - 1` modulo the length.
    kept: [Match<'a>; STEPS_KEPT_MAX],
    steps: usize,
}

// === impl TreeSnapshot ===

impl TreeSnapshot {
    pub(super) fn new(root: Arc<Node>) -> Self {
        TreeSnapshot { root: Some(root) }
    }

    /// The longest prefix of `blocks` that anybody holds.
    pub fn find(&self, blocks: impl Blocks) -> Match<'_> {
        self.trail(blocks).deepest_first().next().unwrap_or_default()
    }

    /// The prefixes of `blocks` that anybody holds, each with who holds it.
    ///
    /// Presence is prefix-closed, so who holds a longer one holds the shorter ones too.
    pub fn trail(&self, mut blocks: impl Blocks) -> Trail<'_> {
        let mut trail = Trail::default();
        let Some(mut node) = self.root.as_ref() else { return trail };
        let mut depth = 0;
        while let Some(key) = blocks.get(depth)
            && let Some(child) = node.kids.get(key)
        {
            let shared = 1
                + (1..child.edge.len())
                    .take_while(|&index| blocks.get(depth + index) == Some(child.edge[index]))
                    .count();
            depth += shared;
            trail.push(Match { blocks: depth as u32, holders: &child.holders });
            if shared < child.edge.len() {
                break;
            }
            node = child;
        }
        debug_assert!(depth <= BLOCKS_PER_PROMPT_MAX);
        trail
    }

    pub(super) fn root_node(&self) -> Option<&Node> {
        self.root.as_deref()
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

    /// How many hold the matched blocks.
    pub fn holder_count(&self) -> usize {
        self.holders.len()
    }

    /// The holder at a position in the order of ids, with the tick of its last use.
    pub fn holder(&self, at: usize) -> (HolderId, u32) {
        (self.holders[at].holder, self.holders[at].tick)
    }
}

// === impl Trail ===

impl<'a> Trail<'a> {
    fn push(&mut self, step: Match<'a>) {
        self.kept[self.steps % STEPS_KEPT_MAX] = step;
        self.steps += 1;
    }

    /// The prefixes, longest first, as far back as they are kept.
    pub fn deepest_first(&self) -> impl Iterator<Item = Match<'a>> + '_ {
        (0..self.steps.min(STEPS_KEPT_MAX)).map(|back| self.kept[(self.steps - 1 - back) % STEPS_KEPT_MAX])
    }

    /// Leading blocks that anybody holds.
    pub fn known(&self) -> usize {
        self.deepest_first().next().map_or(0, |step| step.blocks as usize)
    }

    /// Leading blocks that `holder` has, as far as the kept steps say, and the tick of its last use.
    pub fn held_by(&self, holder: HolderId) -> (usize, u32) {
        let found = self.deepest_first().find_map(|step| {
            let at = step.holders.binary_search_by_key(&holder, |presence| presence.holder).ok()?;
            Some((step.blocks as usize, step.holders[at].tick))
        });
        found.unwrap_or_default()
    }
}
