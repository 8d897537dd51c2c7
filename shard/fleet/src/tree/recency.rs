//! The order in which holders lose their tips: least recently used first, per holder and over all.
//!
//! Invariants
//! - Every tip has an entry in its holder's queue, at a tick not after its real one.
//! - Every holder with entries stands in the queue of holders, at a tick not after its first entry's.
//!
//! Entries are lower bounds and are not moved when a tip is used: whoever takes the first entry compares it with the
//! tree, and puts it back under the real tick if that is later, so the order is exact. An entry whose node is no
//! longer a tip is stale and dropped then. Stale entries do not pile up: a node is used no earlier than its children,
//! so its old entry comes up before theirs do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::HolderId;
use super::size::slice_bytes;

/// What the writer knows of each holder. Holders are slots of a vector.
#[derive(Default)]
pub(super) struct Recency {
    holders: Vec<Holder>,
    /// The holders with entries, by a lower bound of their first.
    order: BinaryHeap<Reverse<(u32, HolderId)>>,
    /// Of all queues of tips.
    queue_bytes: usize,
}

/// A node that is, or was, a tip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) tick: u32,
    pub(super) node: u32,
}

#[derive(Default)]
struct Holder {
    tips: BinaryHeap<Reverse<Entry>>,
    blocks: u64,
    /// Whether it stands in the queue of holders.
    ordered: bool,
}

// === impl Recency ===

impl Recency {
    pub(super) fn blocks(&self, holder: HolderId) -> u64 {
        self.holders.get(holder.0 as usize).map_or(0, |holder| holder.blocks)
    }

    pub(super) fn add_blocks(&mut self, holder: HolderId, blocks: usize) {
        self.holder_mut(holder).blocks += blocks as u64;
    }

    pub(super) fn sub_blocks(&mut self, holder: HolderId, blocks: usize) {
        self.holder_mut(holder).blocks -= blocks as u64;
    }

    /// Adds `node`, last used at `tick`, to the tips of `holder`.
    pub(super) fn push(&mut self, holder: HolderId, tick: u32, node: u32) {
        let of = self.holder_mut(holder);
        let capacity = of.tips.capacity();
        if of.tips.len() == capacity {
            of.tips.reserve_exact((capacity / 4).max(16));
        }
        of.tips.push(Reverse(Entry { tick, node }));
        let capacity_now = of.tips.capacity();
        let ordered = std::mem::replace(&mut of.ordered, true);
        self.queue_bytes += slice_bytes::<Entry>(capacity_now) - slice_bytes::<Entry>(capacity);
        if !ordered {
            self.order.push(Reverse((tick, holder)));
        }
    }

    /// Takes the first entry of `holder`.
    pub(super) fn pop(&mut self, holder: HolderId) -> Option<Entry> {
        self.holders.get_mut(holder.0 as usize)?.tips.pop().map(|Reverse(entry)| entry)
    }

    /// The holder whose first entry comes before those of all others.
    pub(super) fn oldest(&mut self) -> Option<HolderId> {
        while let Some(mut first) = self.order.peek_mut() {
            let Reverse((tick, holder)) = *first;
            let of = &mut self.holders[holder.0 as usize];
            match of.tips.peek() {
                Some(Reverse(entry)) if entry.tick > tick => first.0.0 = entry.tick,
                Some(_) => return Some(holder),
                None => {
                    of.ordered = false;
                    std::collections::binary_heap::PeekMut::pop(first);
                }
            }
        }
        None
    }

    /// Forgets everything about `holder`.
    pub(super) fn remove(&mut self, holder: HolderId) {
        if let Some(of) = self.holders.get_mut(holder.0 as usize) {
            self.queue_bytes -= slice_bytes::<Entry>(of.tips.capacity());
            // It may still stand in the queue of holders, where an early place is a lower bound like any other.
            *of = Holder { ordered: of.ordered, ..Holder::default() };
        }
    }

    /// Above every holder that has ever held anything.
    pub(super) fn holders_end(&self) -> u32 {
        self.holders.len() as u32
    }

    pub(super) fn bytes(&self) -> usize {
        self.queue_bytes
            + slice_bytes::<Holder>(self.holders.capacity())
            + slice_bytes::<(u32, HolderId)>(self.order.capacity())
    }

    /// Whether `node` has an entry of `holder` at `tick` or before.
    #[cfg(test)]
    pub(super) fn has(&self, holder: HolderId, tick: u32, node: u32) -> bool {
        let tips = &self.holders[holder.0 as usize].tips;
        tips.iter().any(|Reverse(entry)| entry.node == node && entry.tick <= tick)
    }

    fn holder_mut(&mut self, holder: HolderId) -> &mut Holder {
        let index = holder.0 as usize;
        if index >= self.holders.len() {
            self.holders.resize_with(index + 1, Holder::default);
        }
        &mut self.holders[index]
    }
}
