//! The prefix cache: blocks of tokens keyed by the chain of everything before them, evicted from the
//! least recently used leaf.
//!
//! Invariants
//! - A resident block's parent is resident.
//! - A pinned block is never evicted; a chain is pinned from its root.
//! - `leaves` holds exactly the blocks without children and without pins.

use std::collections::{BTreeSet, HashMap};

use crate::token::mix;

/// Parent of a chain's first block.
const ROOT: u64 = 0x5151_7a7a_1234_8765;

/// Blocks of computed tokens.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    block_tokens: usize,
    blocks_max: usize,
    blocks: HashMap<u64, Block>,
    /// What may be evicted, least recently used first.
    leaves: BTreeSet<(u64, u64)>,
    /// Counts uses; a larger number is more recent.
    use_now: u64,
}

#[derive(Debug)]
struct Block {
    parent: u64,
    children: u32,
    pins: u32,
    last_use: u64,
}

impl PrefixCache {
    pub(crate) fn new(block_tokens: usize, blocks_max: usize) -> PrefixCache {
        PrefixCache {
            block_tokens: block_tokens.max(1),
            blocks_max,
            blocks: HashMap::new(),
            leaves: BTreeSet::new(),
            use_now: 0,
        }
    }

    pub(crate) fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    pub(crate) fn blocks_now(&self) -> usize {
        self.blocks.len()
    }

    /// Keys of the whole blocks of `tokens`.
    pub(crate) fn keys(&self, tokens: &[u32]) -> Vec<u64> {
        let mut chain = ROOT;
        tokens
            .chunks_exact(self.block_tokens)
            .map(|block| {
                chain = block.iter().fold(chain, |state, token| mix(state, u64::from(*token)));
                chain
            })
            .collect()
    }

    /// Pins the resident blocks at the head of `keys` and returns how many they are.
    pub(crate) fn pin_resident(&mut self, keys: &[u64]) -> usize {
        let resident = keys.iter().take_while(|key| self.blocks.contains_key(key)).count();
        for key in &keys[..resident] {
            self.pin(*key);
        }
        resident
    }

    /// Makes `keys` resident behind the first `pinned` of them, as far as there is room, and pins them.
    /// Returns how many are pinned now.
    pub(crate) fn extend(&mut self, keys: &[u64], pinned: usize) -> usize {
        for (index, key) in keys.iter().enumerate().skip(pinned) {
            let parent = if index == 0 { ROOT } else { keys[index - 1] };
            if !self.blocks.contains_key(key) && !self.insert(*key, parent) {
                return index;
            }
            self.pin(*key);
        }
        keys.len().max(pinned)
    }

    /// Unpins the first `pinned` of `keys`: they are the most recently used now.
    pub(crate) fn unpin(&mut self, keys: &[u64], pinned: usize) {
        self.use_now += 1;
        for key in &keys[..pinned] {
            let Some(block) = self.blocks.get_mut(key) else { continue };
            debug_assert!(block.pins > 0, "a block is unpinned once for each pin");
            block.pins -= 1;
            block.last_use = self.use_now;
            if block.pins == 0 && block.children == 0 {
                self.leaves.insert((block.last_use, *key));
            }
        }
    }

    /// Forgets every block that is not pinned.
    pub(crate) fn flush(&mut self) {
        while self.evict() {}
    }

    fn pin(&mut self, key: u64) {
        let Some(block) = self.blocks.get_mut(&key) else { return };
        if block.pins == 0 {
            self.leaves.remove(&(block.last_use, key));
        }
        block.pins += 1;
    }

    /// Adds a block nobody has pinned yet; false when there is no room.
    fn insert(&mut self, key: u64, parent: u64) -> bool {
        if self.blocks.len() >= self.blocks_max && !self.evict() {
            return false;
        }
        if let Some(parent) = self.blocks.get_mut(&parent) {
            parent.children += 1;
        }
        let block = Block { parent, children: 0, pins: 0, last_use: self.use_now };
        self.leaves.insert((block.last_use, key));
        self.blocks.insert(key, block);
        true
    }

    fn evict(&mut self) -> bool {
        let Some((_, key)) = self.leaves.pop_first() else { return false };
        let Some(block) = self.blocks.remove(&key) else { return false };
        if let Some(parent) = self.blocks.get_mut(&block.parent) {
            parent.children -= 1;
            if parent.children == 0 && parent.pins == 0 {
                self.leaves.insert((parent.last_use, block.parent));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
