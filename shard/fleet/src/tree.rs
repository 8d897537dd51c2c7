//! The prefix tree: which workers hold which prompt prefixes, written by one thread and read by all.
//!
//! It is a persistent radix tree over block hashes. An edge is a run of hashes; a node knows its holders and when each
//! last used it. A write copies the path from the root to what it changes, unless no snapshot can see that path.
//!
//! Invariants
//! - A snapshot never changes, and is freed by the writer alone.
//! - Presence is prefix-closed: whoever holds a node holds all its ancestors, at least as recently.
//! - All blocks of one node have the same holders and ticks; every node but the root has a block and a holder.
//! - No path has more than [`BLOCKS_PER_PROMPT_MAX`] blocks, and nothing recurses along a path.
//! - After a write, [`PrefixTree::bytes`] is within the bound, or the tree is empty.
//!
//! The *tip* of a holder is a node where it holds no child. Tips are what the bounds remove, least recently used first,
//! one (tip, holder) pair at a time; a node goes when its last holder does.

use std::fmt;
use std::sync::Arc;

use crate::blocks::BLOCKS_PER_PROMPT_MAX;

mod addresses;
mod eviction;
mod graveyard;
mod kids;
mod node;
mod recency;
mod removal;
mod size;
mod snapshot;
mod transfer;

use self::addresses::Addresses;
use self::addresses::ROOT;
use self::graveyard::Graveyard;
use self::node::Node;
use self::node::common_prefix;
use self::recency::Recency;
pub use self::snapshot::Match;
pub use self::snapshot::Trail;
pub use self::snapshot::TreeSnapshot;
pub use self::transfer::Malformed;
pub use self::transfer::TreeImport;
pub use self::transfer::TreeNode;

/// Worker slots the tree can tell apart: its tables are indexed by slot.
pub const HOLDERS_MAX: u32 = 1 << 16;

/// A worker as the tree knows it: a dense slot index below [`HOLDERS_MAX`].
///
/// Whoever gives a slot to another worker calls [`PrefixTree::remove_holder`] first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HolderId(pub u32);

/// The bounds of a tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeConfig {
    /// Bytes that the current version and the writer's tables may take. Not counted are older versions, each of which
    /// costs what was rewritten since, and is kept as long as a reader has it.
    pub bytes_max: usize,
    /// Blocks that one holder may hold; `usize::MAX` for no bound.
    pub blocks_per_holder_max: usize,
}

/// The writer's side of the tree.
pub struct PrefixTree {
    config: TreeConfig,
    root: Arc<Node>,
    addresses: Addresses,
    recency: Recency,
    graveyard: Graveyard,
    /// The latest tick given; ticks never go back.
    tick_now: u32,
    /// Of the current version, as the allocator rounds.
    node_bytes: usize,
    /// In the edges of the current version.
    blocks: u64,
    evicted_blocks_total: u64,
    /// Keys from the root to the node being evicted; kept for its capacity.
    path: Vec<u64>,
}

// === impl PrefixTree ===

impl PrefixTree {
    /// An empty tree.
    pub fn new(config: TreeConfig) -> Self {
        let root = Arc::new(Node::root());
        PrefixTree {
            config,
            node_bytes: root.bytes(),
            root,
            addresses: Addresses::new(),
            recency: Recency::default(),
            graveyard: Graveyard::default(),
            tick_now: 0,
            blocks: 0,
            evicted_blocks_total: 0,
            path: Vec::new(),
        }
    }

    /// Records that `holder` has the prompt `blocks`, used at `tick`, then evicts down to the bounds.
    ///
    /// Ticks are coarse (a second, say) and never go back: repeating a prompt within a tick costs a search and no
    /// allocation. Blocks past [`BLOCKS_PER_PROMPT_MAX`] are ignored.
    pub fn insert(&mut self, blocks: &[u64], holder: HolderId, tick: u32) {
        assert!(holder.0 < HOLDERS_MAX, "a holder is a dense slot index");
        let blocks = &blocks[..blocks.len().min(BLOCKS_PER_PROMPT_MAX)];
        self.tick_now = self.tick_now.max(tick);
        if blocks.is_empty() || self.is_up_to_date(blocks, holder) {
            return;
        }
        self.place(blocks, holder);
        self.evict_to_bounds(holder);
    }

    /// Forgets everything. What snapshots do not share is freed by later calls of [`PrefixTree::collect_garbage`].
    pub fn clear(&mut self) {
        let root = std::mem::replace(&mut self.root, Arc::new(Node::root()));
        self.graveyard.bury(root);
        self.node_bytes = self.root.bytes();
        self.addresses = Addresses::new();
        self.recency = Recency::default();
        self.blocks = 0;
    }

    /// The current version, for readers. Costs two reference counts; the next write to each node copies it once.
    pub fn snapshot(&mut self) -> TreeSnapshot {
        self.graveyard.keep(&self.root);
        TreeSnapshot::new(Arc::clone(&self.root))
    }

    /// Frees older versions that no reader has, a bounded number of nodes per call; true if more could be freed now.
    pub fn collect_garbage(&mut self) -> bool {
        self.graveyard.collect()
    }

    /// Bytes of the current version and of the writer's tables, rounded as the allocator rounds.
    pub fn bytes(&self) -> usize {
        self.node_bytes + self.addresses.bytes() + self.recency.bytes()
    }

    /// Distinct blocks held by anyone.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Nodes, the root not counted.
    pub fn nodes(&self) -> usize {
        self.addresses.in_use()
    }

    /// Blocks that `holder` holds.
    pub fn holder_blocks(&self, holder: HolderId) -> u64 {
        self.recency.blocks(holder)
    }

    /// Blocks lost to a bound since the start, counted once per holder that lost them.
    pub fn evicted_blocks_total(&self) -> u64 {
        self.evicted_blocks_total
    }

    /// Older versions not yet freed, most of them because a reader still has them.
    pub fn versions_retained(&self) -> usize {
        self.graveyard.versions()
    }

    /// Whether `holder` has all of `blocks` at the present tick, so that nothing need be written.
    fn is_up_to_date(&self, blocks: &[u64], holder: HolderId) -> bool {
        let mut node = &self.root;
        let mut rest = blocks;
        while let Some(&key) = rest.first() {
            let Some(child) = node.kids.get(key) else { return false };
            if child.presence(holder).is_none_or(|presence| presence.tick != self.tick_now) {
                return false;
            }
            let shared = common_prefix(&child.edge, rest);
            rest = &rest[shared..];
            if shared < child.edge.len() {
                return rest.is_empty();
            }
            node = child;
        }
        true
    }

    /// Walks down `blocks`, making `holder` present and recent on the way, and adds what the tree lacks.
    fn place(&mut self, blocks: &[u64], holder: HolderId) {
        let tick = self.tick_now;
        let mut node = Arc::make_mut(&mut self.root);
        let mut rest = blocks;
        // Whether `holder` came to `node` just now; then it is a new tip, unless the walk goes on.
        let mut arrived = false;
        while let Some(&key) = rest.first() {
            let Some(child) = node.kids.get(key) else { break };
            let known = child.presence(holder).map(|presence| presence.tick);
            let shared = common_prefix(&child.edge, rest);
            arrived = known.is_none();
            if arrived && let Some(presence) = node.presence_mut(holder) {
                presence.children += 1;
            }
            node = Arc::make_mut(node.kids.get_mut(key).expect("the child was found above"));
            let before = node.bytes();
            rest = &rest[shared..];
            // Within a tick, a prompt that ends inside an edge of its holder leaves the edge whole.
            if shared < node.edge.len() && !(rest.is_empty() && known == Some(tick)) {
                self.node_bytes += split(node, shared, &mut self.addresses);
            }
            node.touch(holder, tick);
            self.node_bytes = self.node_bytes + node.bytes() - before;
            if arrived {
                self.recency.add_blocks(holder, node.edge.len());
            }
        }
        if !rest.is_empty() {
            self.blocks += rest.len() as u64;
            self.recency.add_blocks(holder, rest.len());
        }
        let before = node.bytes();
        if rest.is_empty() || node.is_leaf_of(holder) {
            // A holder that goes on from its own leaf makes the edge longer: a chat of a hundred turns stays one node.
            node.extend(rest);
            if arrived {
                self.recency.push(holder, tick, node.id);
            }
        } else {
            let id = self.addresses.add(node.id, rest[0]);
            let leaf = Node::leaf(id, rest, holder, tick);
            self.node_bytes += leaf.bytes();
            if let Some(presence) = node.presence_mut(holder) {
                presence.children += 1;
            }
            node.kids.insert(rest[0], Arc::new(leaf));
            self.recency.push(holder, tick, id);
        }
        self.node_bytes = self.node_bytes + node.bytes() - before;
    }
}

impl fmt::Debug for PrefixTree {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PrefixTree")
            .field("bytes", &self.bytes())
            .field("blocks", &self.blocks)
            .field("nodes", &self.nodes())
            .finish_non_exhaustive()
    }
}

/// Cuts `node` in two after `head` blocks: it keeps those, and a new only child takes the rest. Returns the bytes of
/// that child.
///
/// The child also takes the old id, so that the addresses of its own children and its holders' tips stay right.
fn split(node: &mut Node, head: usize, addresses: &mut Addresses) -> usize {
    let key = node.edge[head];
    let top = addresses.add_above(node.id, key);
    let bottom = node.split_off(head, top);
    let bytes = bottom.bytes();
    node.kids.insert(key, Arc::new(bottom));
    bytes
}

const _: () = assert!(ROOT == 0, "a new table of addresses begins with the root");

#[cfg(test)]
mod tests;
