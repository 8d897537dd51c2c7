//! The prefix cache: prompt blocks and room for what runs, in tokens, evicted from the least recently used leaf.
//!
//! Invariants
//! - A resident block's parent is resident.
//! - A pinned block is never evicted; a prompt is pinned from its front.
//! - `leaves` holds exactly the blocks without children and without pins.
//! - What is resident and what is reserved fit together, unless a reservation was forced.

use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::trace::PromptBlock;

/// Blocks of computed tokens.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    tokens_max: u64,
    resident_tokens: u64,
    /// Of those, what nothing can evict now.
    pinned_tokens: u64,
    reserved_tokens: u64,
    blocks: HashMap<u64, Block>,
    /// What may be evicted, least recently used first.
    leaves: BTreeSet<(u64, u64)>,
    /// Counts uses; a larger number is more recent.
    use_now: u64,
}

#[derive(Debug)]
struct Block {
    parent: Option<u64>,
    tokens: u32,
    children: u32,
    pins: u32,
    last_use: u64,
}

impl PrefixCache {
    pub(crate) fn new(tokens_max: u64) -> PrefixCache {
        PrefixCache {
            tokens_max,
            resident_tokens: 0,
            pinned_tokens: 0,
            reserved_tokens: 0,
            blocks: HashMap::new(),
            leaves: BTreeSet::new(),
            use_now: 0,
        }
    }

    pub(crate) fn has(&self, prefix: u64) -> bool {
        self.blocks.contains_key(&prefix)
    }

    /// Pins the resident blocks at the front of a prompt and returns how many they are and how many tokens they hold.
    pub(crate) fn pin_resident(&mut self, prompt: &[PromptBlock]) -> (usize, u64) {
        let mut tokens = 0;
        for (at, block) in prompt.iter().enumerate() {
            if !self.pin(block.prefix) {
                return (at, tokens);
            }
            tokens += u64::from(block.tokens);
        }
        (prompt.len(), tokens)
    }

    /// Unpins blocks: they are the most recently used now.
    pub(crate) fn unpin(&mut self, prompt: &[PromptBlock]) {
        self.use_now += 1;
        for PromptBlock { prefix, .. } in prompt {
            let Some(block) = self.blocks.get_mut(prefix) else { continue };
            debug_assert!(block.pins > 0, "a block is unpinned once for each pin");
            block.pins -= 1;
            block.last_use = self.use_now;
            if block.pins == 0 {
                self.pinned_tokens -= u64::from(block.tokens);
                if block.children == 0 {
                    self.leaves.insert((block.last_use, *prefix));
                }
            }
        }
    }

    /// Makes room for `tokens` that are about to be computed; false, and nothing changes, when there is none.
    pub(crate) fn reserve(&mut self, tokens: u64, is_forced: bool) -> bool {
        let fits = self.pinned_tokens + self.reserved_tokens + tokens <= self.tokens_max;
        if !fits && !is_forced {
            return false;
        }
        self.reserved_tokens += tokens;
        self.evict_to_bound();
        true
    }

    /// Gives reserved room back.
    pub(crate) fn release(&mut self, tokens: u64) {
        debug_assert!(tokens <= self.reserved_tokens, "room is given back once");
        self.reserved_tokens -= tokens;
    }

    /// Makes a block resident in `room` tokens that were reserved for it, and pins it; false, and nothing changes, when
    /// it does not fit.
    pub(crate) fn keep(&mut self, parent: Option<u64>, block: PromptBlock, room: u64) -> bool {
        if self.pin(block.prefix) {
            self.release(room);
            return true;
        }
        let others = self.pinned_tokens + self.reserved_tokens - room;
        if others + u64::from(block.tokens) > self.tokens_max {
            return false;
        }
        self.release(room);
        if let Some(parent) = parent.and_then(|parent| self.blocks.get_mut(&parent)) {
            parent.children += 1;
        }
        let tokens = block.tokens;
        let block_now = Block { parent, tokens, children: 0, pins: 1, last_use: self.use_now };
        self.blocks.insert(block.prefix, block_now);
        self.resident_tokens += u64::from(tokens);
        self.pinned_tokens += u64::from(tokens);
        self.evict_to_bound();
        true
    }

    fn pin(&mut self, prefix: u64) -> bool {
        let Some(block) = self.blocks.get_mut(&prefix) else { return false };
        if block.pins == 0 {
            self.leaves.remove(&(block.last_use, prefix));
            self.pinned_tokens += u64::from(block.tokens);
        }
        block.pins += 1;
        true
    }

    fn evict_to_bound(&mut self) {
        while self.resident_tokens + self.reserved_tokens > self.tokens_max
            && let Some((_, prefix)) = self.leaves.pop_first()
            && let Some(block) = self.blocks.remove(&prefix)
        {
            self.resident_tokens -= u64::from(block.tokens);
            if let Some(parent) = block.parent
                && let Some(above) = self.blocks.get_mut(&parent)
            {
                above.children -= 1;
                if above.children == 0 && above.pins == 0 {
                    self.leaves.insert((above.last_use, parent));
                }
            }
        }
    }

    /// Checks what is said at the top of this file.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let children = |prefix| self.blocks.values().filter(|block| block.parent == Some(prefix)).count();
        let mut resident = 0;
        let mut pinned = 0;
        for (prefix, block) in &self.blocks {
            assert!(block.parent.is_none_or(|parent| self.has(parent)));
            assert_eq!(block.children as usize, children(*prefix));
            let is_leaf = block.children == 0 && block.pins == 0;
            assert_eq!(self.leaves.contains(&(block.last_use, *prefix)), is_leaf);
            resident += u64::from(block.tokens);
            pinned += if block.pins > 0 { u64::from(block.tokens) } else { 0 };
        }
        assert!(self.leaves.len() <= self.blocks.len());
        assert_eq!((resident, pinned), (self.resident_tokens, self.pinned_tokens));
    }

    /// Tokens resident, pinned and reserved.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> (u64, u64, u64) {
        (self.resident_tokens, self.pinned_tokens, self.reserved_tokens)
    }
}
