//! A node of the tree: a run of blocks, who holds it, and what follows it.
//!
//! Invariants
//! - Holders are sorted by id, and their list has no spare capacity, so that a copy costs the bytes of the original.
//! - Dropping a node never recurses along a path: a chain of 20,000 would overflow a 2 MiB stack.

use std::sync::Arc;

use smallvec::SmallVec;

use super::HolderId;
use super::addresses::ROOT;
use super::kids::Kids;
use super::size::arc_bytes;
use super::size::arc_slice_bytes;
use super::size::slice_bytes;

/// Holders kept inside the node. Most nodes are leaves of one or two; with these a counted node takes 96 bytes.
const HOLDERS_INLINE: usize = 2;

const _: () = assert!(arc_bytes::<Node>() == 96);

/// One node, immutable as soon as a snapshot can see it.
#[derive(Clone)]
pub(super) struct Node {
    /// Stable over copies, for the writer's tables.
    pub(super) id: u32,
    /// Shared by all copies of the node. Empty in the root only.
    pub(super) edge: Arc<[u64]>,
    pub(super) holders: SmallVec<[Presence; HOLDERS_INLINE]>,
    pub(super) kids: Kids,
}

/// That a holder has a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Presence {
    pub(super) holder: HolderId,
    /// When the holder last used the node.
    pub(super) tick: u32,
    /// How many children of the node it holds too; the node is its tip when there are none.
    pub(super) children: u32,
}

/// How many leading blocks the two have in common.
pub(super) fn common_prefix(edge: &[u64], blocks: &[u64]) -> usize {
    edge.iter().zip(blocks).take_while(|(a, b)| a == b).count()
}

// === impl Node ===

impl Node {
    pub(super) fn root() -> Self {
        Node { id: ROOT, edge: Arc::default(), holders: SmallVec::new(), kids: Kids::default() }
    }

    pub(super) fn leaf(id: u32, edge: &[u64], holder: HolderId, tick: u32) -> Self {
        let mut holders = SmallVec::new();
        holders.push(Presence { holder, tick, children: 0 });
        Node { id, edge: Arc::from(edge), holders, kids: Kids::default() }
    }

    pub(super) fn presence(&self, holder: HolderId) -> Option<&Presence> {
        self.position(holder).ok().map(|index| &self.holders[index])
    }

    /// The presence of `holder`, which the root never has.
    pub(super) fn presence_mut(&mut self, holder: HolderId) -> Option<&mut Presence> {
        self.position(holder).ok().map(|index| &mut self.holders[index])
    }

    /// Whether the node is a leaf that nobody else holds.
    pub(super) fn is_leaf_of(&self, holder: HolderId) -> bool {
        self.kids.is_empty() && matches!(self.holders[..], [Presence { holder: only, .. }] if only == holder)
    }

    /// Makes `holder` present, as of `tick`.
    pub(super) fn touch(&mut self, holder: HolderId, tick: u32) {
        match self.position(holder) {
            Ok(index) => self.holders[index].tick = tick,
            Err(index) => {
                self.holders.reserve_exact(1);
                self.holders.insert(index, Presence { holder, tick, children: 0 });
            }
        }
    }

    /// Makes `holder` absent.
    pub(super) fn forget(&mut self, holder: HolderId) {
        if let Ok(index) = self.position(holder) {
            self.holders.remove(index);
            self.holders.shrink_to_fit();
        }
    }

    /// Makes the edge longer by `blocks`.
    pub(super) fn extend(&mut self, blocks: &[u64]) {
        if !blocks.is_empty() {
            self.edge = self.edge.iter().chain(blocks).copied().collect();
        }
    }

    /// Shortens the edge to its first `head` blocks. The node takes the id `top`, and everything past those blocks,
    /// children included, is returned under the old id, to be put back as the only child.
    pub(super) fn split_off(&mut self, head: usize, top: u32) -> Node {
        debug_assert!(0 < head && head < self.edge.len());
        let bottom = Node {
            id: self.id,
            edge: Arc::from(&self.edge[head..]),
            holders: self.holders.clone(),
            kids: std::mem::take(&mut self.kids),
        };
        self.id = top;
        self.edge = Arc::from(&self.edge[..head]);
        for presence in &mut self.holders {
            presence.children = 1;
        }
        bottom
    }

    /// Bytes of the node without its children; constant in time.
    pub(super) fn bytes(&self) -> usize {
        let holders = if self.holders.spilled() { slice_bytes::<Presence>(self.holders.len()) } else { 0 };
        arc_bytes::<Node>() + arc_slice_bytes::<u64>(self.edge.len()) + holders + self.kids.bytes()
    }

    fn position(&self, holder: HolderId) -> Result<usize, usize> {
        self.holders.binary_search_by_key(&holder, |presence| presence.holder)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.kids.is_empty() {
            return;
        }
        let mut dying = Vec::new();
        self.kids.take_into(&mut dying);
        while let Some(node) = dying.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                node.kids.take_into(&mut dying);
            }
        }
    }
}
