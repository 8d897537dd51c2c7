//! Finds a node from the root by its id, for the writer: nodes of a persistent tree cannot point to their parents.
//!
//! Invariant: every node of the current version has one id, and the id knows the parent's id and the first block of
//! the node's edge, which is its key there. Ids of freed nodes are given again.

use super::size::reserve_quarter;
use super::size::slice_bytes;

/// The id of the root, which is nobody's child.
pub(super) const ROOT: u32 = 0;

/// Stands for the parent of an id that is not in use. Also bounds the number of ids.
const UNUSED: u32 = u32::MAX;

/// The table of ids; parents and keys apart, because together they would take 16 bytes and not 12.
pub(super) struct Addresses {
    parents: Vec<u32>,
    keys: Vec<u64>,
    unused: Vec<u32>,
}

// === impl Addresses ===

impl Addresses {
    pub(super) fn new() -> Self {
        Addresses { parents: vec![ROOT], keys: vec![0], unused: Vec::new() }
    }

    /// An id for a new child of `parent` whose edge begins with `key`.
    pub(super) fn add(&mut self, parent: u32, key: u64) -> u32 {
        if let Some(id) = self.unused.pop() {
            self.parents[id as usize] = parent;
            self.keys[id as usize] = key;
            return id;
        }
        let id = u32::try_from(self.parents.len()).expect("the byte bound leaves no room for 2^32 nodes");
        assert!(id < UNUSED, "the byte bound leaves no room for 2^32 nodes");
        reserve_quarter(&mut self.parents);
        reserve_quarter(&mut self.keys);
        self.parents.push(parent);
        self.keys.push(key);
        id
    }

    /// An id for a new node between `id` and its parent; below it, the key of `id` becomes `key`.
    pub(super) fn add_above(&mut self, id: u32, key: u64) -> u32 {
        let above = self.add(self.parents[id as usize], self.keys[id as usize]);
        self.parents[id as usize] = above;
        self.keys[id as usize] = key;
        above
    }

    /// Takes back the id of a node that left the tree.
    pub(super) fn release(&mut self, id: u32) {
        debug_assert!(id != ROOT && self.parents[id as usize] != UNUSED);
        self.parents[id as usize] = UNUSED;
        reserve_quarter(&mut self.unused);
        self.unused.push(id);
    }

    /// Writes the keys from the root to `id` into `path`; false if no node has this id.
    pub(super) fn path(&self, id: u32, path: &mut Vec<u64>) -> bool {
        path.clear();
        let mut id = id;
        while id != ROOT {
            let parent = self.parents[id as usize];
            if parent == UNUSED {
                debug_assert!(path.is_empty(), "a node outlived its parent");
                return false;
            }
            path.push(self.keys[id as usize]);
            id = parent;
        }
        path.reverse();
        true
    }

    /// Ids given to nodes, the root's not counted.
    pub(super) fn in_use(&self) -> usize {
        self.parents.len() - 1 - self.unused.len()
    }

    pub(super) fn bytes(&self) -> usize {
        slice_bytes::<u32>(self.parents.capacity())
            + slice_bytes::<u64>(self.keys.capacity())
            + slice_bytes::<u32>(self.unused.capacity())
    }
}
