//! Eviction: takes presence away, least recently used tip first, until the tree is within its bounds.
//!
//! Invariant: one step removes one holder from one node, and the node with it if that was its last holder. Between
//! tips of the same tick the order is not defined.

use std::sync::Arc;

use super::HolderId;
use super::PrefixTree;
use super::node::Node;
use super::node::Presence;

impl PrefixTree {
    /// Evicts until `holder`, which has just gained blocks, and the whole tree are within their bounds.
    pub(super) fn evict_to_bounds(&mut self, holder: HolderId) {
        let blocks_max = self.config.blocks_per_holder_max as u64;
        while self.recency.blocks(holder) > blocks_max && self.take_entry(holder) {}
        while self.bytes() > self.config.bytes_max {
            // The tables alone are over the bound if nobody has a tip left; there is nothing more to give.
            let Some(holder) = self.recency.oldest() else { break };
            self.take_entry(holder);
        }
    }

    /// Evicts the tip in the first entry of `holder`, or corrects the entry; false if there is none.
    pub(super) fn take_entry(&mut self, holder: HolderId) -> bool {
        let Some(entry) = self.recency.pop(holder) else { return false };
        let mut path = std::mem::take(&mut self.path);
        if self.addresses.path(entry.node, &mut path)
            && let Some(presence) = self.presence_at(&path, holder)
            && presence.children == 0
        {
            if presence.tick > entry.tick {
                self.recency.push(holder, presence.tick, entry.node);
            } else {
                self.evict(&path, holder);
            }
        }
        self.path = path;
        true
    }

    fn presence_at(&self, path: &[u64], holder: HolderId) -> Option<Presence> {
        let mut node: &Node = &self.root;
        for &key in path {
            node = node.kids.get(key)?;
        }
        node.presence(holder).copied()
    }

    /// Takes the node at `path` away from `holder`, whose tip it is.
    fn evict(&mut self, path: &[u64], holder: HolderId) {
        let (&key, above) = path.split_last().expect("the root is nobody's tip");
        let mut parent = Arc::make_mut(&mut self.root);
        for &key in above {
            parent = Arc::make_mut(parent.kids.get_mut(key).expect("addresses match the tree"));
        }
        let before = parent.bytes();
        let child = parent.kids.get_mut(key).expect("addresses match the tree");
        let child_before = child.bytes();
        let blocks = child.edge.len();
        if child.holders.len() > 1 {
            let child = Arc::make_mut(child);
            child.forget(holder);
            self.node_bytes += child.bytes();
        } else {
            self.addresses.release(child.id);
            self.blocks -= blocks as u64;
            parent.kids.remove(key);
        }
        self.recency.sub_blocks(holder, blocks);
        self.evicted_blocks_total += blocks as u64;
        if let Some(presence) = parent.presence_mut(holder) {
            presence.children -= 1;
            if presence.children == 0 {
                self.recency.push(holder, presence.tick, parent.id);
            }
        }
        self.node_bytes = self.node_bytes + parent.bytes() - before - child_before;
    }
}
