//! Takes a tree out of one process and puts it into another: its nodes one by one, each behind its parent.
//!
//! A node goes as little-endian words: its level (32 bits), the lengths of its edge and of its list of holders (32 bits
//! each), the blocks of the edge (64 bits each), and of every holder its id and tick (32 bits each).
//!
//! Invariants
//! - Neither side recurses along a path, and neither holds more than one path besides the tree itself.
//! - Whatever bytes come, a tree that is imported keeps the invariants of the tree: what would break them is left out,
//!   and what is no node at all is refused.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::HOLDERS_MAX;
use super::HolderId;
use super::PrefixTree;
use super::TreeSnapshot;
use super::addresses::ROOT;
use super::node::Node;
use super::node::Presence;
use crate::blocks::BLOCKS_PER_PROMPT_MAX;

/// Level, length of the edge, number of holders.
const HEAD_BYTES: usize = 12;
const BLOCK_BYTES: usize = 8;
const HOLDER_BYTES: usize = 8;

/// A node of a published tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeNode<'a> {
    level: u32,
    edge: &'a [u64],
    holders: &'a [Presence],
}

/// The bytes are no nodes of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A tree that is being filled. Nothing of it may be used before [`TreeImport::finish`].
pub struct TreeImport<'a> {
    tree: &'a mut PrefixTree,
    /// The path to the latest node, whose children may still come.
    open: Vec<Open>,
    /// Nodes below this level are left out with the one at it.
    skipped: Option<u32>,
}

/// A node whose children may still come.
struct Open {
    node: Node,
    /// Blocks from the root to its end.
    depth: usize,
}

// === impl TreeSnapshot ===

impl TreeSnapshot {
    /// Every node, each behind its parent. What waits to be visited are the children of one path.
    pub fn nodes(&self) -> impl Iterator<Item = TreeNode<'_>> {
        let mut todo: Vec<(u32, &Node)> = Vec::new();
        if let Some(root) = self.root_node() {
            root.kids.for_each(&mut |_, child| todo.push((1, child)));
        }
        std::iter::from_fn(move || {
            let (level, node) = todo.pop()?;
            node.kids.for_each(&mut |_, child| todo.push((level + 1, child)));
            Some(TreeNode { level, edge: &node.edge, holders: &node.holders })
        })
    }
}

// === impl TreeNode ===

impl TreeNode<'_> {
    /// Bytes that [`TreeNode::write`] appends.
    pub fn written_bytes(&self) -> usize {
        HEAD_BYTES + self.edge.len() * BLOCK_BYTES + self.holders.len() * HOLDER_BYTES
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.level.to_le_bytes());
        out.extend((self.edge.len() as u32).to_le_bytes());
        out.extend((self.holders.len() as u32).to_le_bytes());
        self.edge.iter().for_each(|block| out.extend(block.to_le_bytes()));
        for presence in self.holders {
            out.extend(presence.holder.0.to_le_bytes());
            out.extend(presence.tick.to_le_bytes());
        }
    }
}

// === impl TreeImport ===

impl<'a> TreeImport<'a> {
    /// Begins to fill `tree`, which must be empty.
    pub fn new(tree: &'a mut PrefixTree) -> Self {
        debug_assert_eq!(tree.blocks(), 0, "a tree is imported whole");
        Self { tree, open: Vec::new(), skipped: None }
    }

    /// Takes in whole nodes as they were written. `holder` says under which id a holder goes on, or that it does not.
    ///
    /// # Errors
    /// When the bytes are no nodes, or a node comes before its parent. The tree is of no use then.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        holder: impl Fn(HolderId) -> Option<HolderId>,
    ) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let (level, rest) = word(bytes)?;
            let (blocks, rest) = word(rest)?;
            let (holders, rest) = word(rest)?;
            let (blocks, holders) = (blocks as usize, holders as usize);
            if blocks == 0 || blocks > BLOCKS_PER_PROMPT_MAX || holders > HOLDERS_MAX as usize {
                return Err(Malformed);
            }
            let (edge, rest) = rest.split_at_checked(blocks * BLOCK_BYTES).ok_or(Malformed)?;
            let (presences, rest) = rest.split_at_checked(holders * HOLDER_BYTES).ok_or(Malformed)?;
            let (edge, _) = edge.as_chunks::<BLOCK_BYTES>();
            let edge: Arc<[u64]> = edge.iter().map(|block| u64::from_le_bytes(*block)).collect();
            let (presences, _) = presences.as_chunks::<HOLDER_BYTES>();
            let presences = presences.iter().filter_map(|presence| {
                let word = u64::from_le_bytes(*presence);
                let holder = holder(HolderId(word as u32)).filter(|holder| holder.0 < HOLDERS_MAX)?;
                Some(Presence { holder, tick: (word >> 32) as u32, children: 0 })
            });
            self.take_node(level, edge, presences.collect())?;
            bytes = rest;
        }
        Ok(())
    }

    fn take_node(
        &mut self,
        level: u32,
        edge: Arc<[u64]>,
        mut holders: SmallVec<[Presence; 2]>,
    ) -> Result<(), Malformed> {
        if self.skipped.is_some_and(|skipped| level > skipped) {
            return Ok(());
        }
        self.skipped = None;
        if level == 0 || level as usize > self.open.len() + 1 {
            return Err(Malformed);
        }
        while self.open.len() >= level as usize {
            self.close();
        }
        holders.sort_unstable_by_key(|presence| presence.holder);
        holders.dedup_by_key(|presence| presence.holder);
        let parent = self.open.last();
        if let Some(Open { node, .. }) = parent {
            // Presence is prefix-closed.
            holders.retain(|presence| {
                let above = node.presence(presence.holder);
                presence.tick = presence.tick.min(above.map_or(0, |above| above.tick));
                above.is_some()
            });
        }
        holders.shrink_to_fit();
        let depth = parent.map_or(0, |parent| parent.depth) + edge.len();
        let kids = parent.map_or(&self.tree.root.kids, |parent| &parent.node.kids);
        // What is too much for the bound is left out; a little more may come in, and then the least recent goes.
        let is_full = self.tree.bytes() > self.tree.config.bytes_max.saturating_mul(2);
        if holders.is_empty() || is_full || depth > BLOCKS_PER_PROMPT_MAX || kids.get(edge[0]).is_some() {
            self.skipped = Some(level);
            return Ok(());
        }
        let id = self.tree.addresses.add(parent.map_or(ROOT, |parent| parent.node.id), edge[0]);
        let tick = holders.iter().map(|presence| presence.tick).max().unwrap_or(0);
        self.tree.tick_now = self.tree.tick_now.max(tick);
        self.open.push(Open { node: Node { id, edge, holders, kids: Default::default() }, depth });
        Ok(())
    }

    /// The latest node has all its children: puts it under its parent.
    fn close(&mut self) {
        let Some(Open { node, .. }) = self.open.pop() else { return };
        let tree = &mut *self.tree;
        tree.node_bytes += node.bytes();
        tree.blocks += node.edge.len() as u64;
        for presence in &node.holders {
            tree.recency.add_blocks(presence.holder, node.edge.len());
            if presence.children == 0 {
                tree.recency.push(presence.holder, presence.tick, node.id);
            }
        }
        let key = node.edge[0];
        if let Some(parent) = self.open.last_mut() {
            for presence in &node.holders {
                if let Some(above) = parent.node.presence_mut(presence.holder) {
                    above.children += 1;
                }
            }
            parent.node.kids.insert(key, Arc::new(node));
        } else {
            let root = Arc::make_mut(&mut tree.root);
            let before = root.bytes();
            root.kids.insert(key, Arc::new(node));
            tree.node_bytes = tree.node_bytes + root.bytes() - before;
        }
    }

    /// Ends the import, and evicts down to the bounds.
    pub fn finish(mut self) {
        while !self.open.is_empty() {
            self.close();
        }
        for holder in 0..self.tree.recency.holders_end() {
            self.tree.evict_to_bounds(HolderId(holder));
        }
    }
}

impl fmt::Debug for TreeImport<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TreeImport").field("tree", self.tree).finish_non_exhaustive()
    }
}

fn word(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (word, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    Ok((u32::from_le_bytes(*word), rest))
}
