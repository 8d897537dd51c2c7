//! The children of a node, found by the first block of their edges.
//!
//! Invariants
//! - Up to [`FEW_MAX`] children are a plain list; more are a hash trie, so that a write under a node with 100,000
//!   children copies a few small fans and not the list.
//! - No container has spare capacity, so that a copy costs the bytes of the original.
//!
//! Keys are hashes already, so the trie takes five bits of the key per level. Distinct keys part at the 13th level at
//! the latest, which bounds the recursion here.

use std::sync::Arc;

use super::node::Node;
use super::size::arc_bytes;
use super::size::slice_bytes;

/// Children in a plain list: two cache lines to search.
const FEW_MAX: usize = 8;

/// Bits of the key that choose a slot of a fan.
const FAN_BITS: u32 = 5;

/// The children of one node. Does not go back from a trie to a list, but to an empty list.
#[derive(Clone)]
pub(super) enum Kids {
    Few(Box<[Kid]>),
    Many(Arc<Fan>),
}

/// A child and its key.
#[derive(Clone)]
pub(super) struct Kid {
    key: u64,
    node: Arc<Node>,
}

/// One level of the trie: 32 slots, each empty, a child, or a further fan. Only the taken slots are stored.
#[derive(Clone)]
pub(super) struct Fan {
    kid_slots: u32,
    fan_slots: u32,
    /// Of this fan and all below.
    bytes: usize,
    kids: Box<[Kid]>,
    fans: Box<[Arc<Fan>]>,
}

// === impl Kids ===

impl Default for Kids {
    fn default() -> Self {
        Kids::Few(Box::default())
    }
}

impl Kids {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Kids::Few(kids) if kids.is_empty())
    }

    pub(super) fn get(&self, key: u64) -> Option<&Arc<Node>> {
        match self {
            Kids::Few(kids) => kids.iter().find(|kid| kid.key == key).map(|kid| &kid.node),
            Kids::Many(fan) => fan.get(key),
        }
    }

    /// The child to be changed; copies the fans on the way if a snapshot can see them.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Arc<Node>> {
        match self {
            Kids::Few(kids) => kids.iter_mut().find(|kid| kid.key == key).map(|kid| &mut kid.node),
            Kids::Many(fan) => Arc::make_mut(fan).get_mut(key),
        }
    }

    /// Adds a child whose key is not taken.
    pub(super) fn insert(&mut self, key: u64, node: Arc<Node>) {
        debug_assert!(self.get(key).is_none());
        let kid = Kid { key, node };
        match self {
            Kids::Few(kids) if kids.len() < FEW_MAX => insert_at(kids, kids.len(), kid),
            Kids::Few(kids) => {
                let mut fan = Fan::empty();
                for kid in std::mem::take(kids).into_iter().chain([kid]) {
                    fan.insert(kid, 0);
                }
                *self = Kids::Many(Arc::new(fan));
            }
            Kids::Many(fan) => Arc::make_mut(fan).insert(kid, 0),
        }
    }

    /// Takes out the child of `key`.
    pub(super) fn remove(&mut self, key: u64) -> Option<Arc<Node>> {
        match self {
            Kids::Few(kids) => {
                let index = kids.iter().position(|kid| kid.key == key)?;
                Some(remove_at(kids, index).node)
            }
            Kids::Many(fan) => {
                let fan = Arc::make_mut(fan);
                let node = fan.remove(key, 0);
                if fan.is_empty() {
                    *self = Kids::default();
                }
                node
            }
        }
    }

    /// Shows every child with its key, in no particular order.
    pub(super) fn for_each<'a>(&'a self, visit: &mut impl FnMut(u64, &'a Arc<Node>)) {
        match self {
            Kids::Few(kids) => kids.iter().for_each(|kid| visit(kid.key, &kid.node)),
            Kids::Many(fan) => fan.for_each(visit),
        }
    }

    /// Moves the children that only this node has into `dying`, and lets go of the others.
    pub(super) fn take_into(&mut self, dying: &mut Vec<Arc<Node>>) {
        match std::mem::take(self) {
            Kids::Few(kids) => dying.extend(kids.into_iter().map(|kid| kid.node)),
            Kids::Many(fan) => Fan::take_into(fan, dying),
        }
    }

    /// Bytes of the containers, the children not counted; constant in time.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Kids::Few(kids) => slice_bytes::<Kid>(kids.len()),
            Kids::Many(fan) => fan.bytes,
        }
    }
}

// === impl Fan ===

impl Fan {
    fn empty() -> Self {
        let (kids, fans) = Default::default();
        Fan { kid_slots: 0, fan_slots: 0, bytes: arc_bytes::<Fan>(), kids, fans }
    }

    fn is_empty(&self) -> bool {
        self.kid_slots | self.fan_slots == 0
    }

    fn get(&self, key: u64) -> Option<&Arc<Node>> {
        let mut fan = self;
        let mut level = 0;
        while fan.fan_slots & slot(key, level) != 0 {
            fan = &fan.fans[rank(fan.fan_slots, slot(key, level))];
            level += 1;
        }
        let slot = slot(key, level);
        let kid = (fan.kid_slots & slot != 0).then(|| &fan.kids[rank(fan.kid_slots, slot)])?;
        (kid.key == key).then_some(&kid.node)
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut Arc<Node>> {
        let mut fan = self;
        let mut level = 0;
        while fan.fan_slots & slot(key, level) != 0 {
            fan = Arc::make_mut(&mut fan.fans[rank(fan.fan_slots, slot(key, level))]);
            level += 1;
        }
        let slot = slot(key, level);
        let kid = (fan.kid_slots & slot != 0).then(|| &mut fan.kids[rank(fan.kid_slots, slot)])?;
        (kid.key == key).then_some(&mut kid.node)
    }

    fn insert(&mut self, kid: Kid, level: u32) {
        let slot = slot(kid.key, level);
        let own_before = self.own_bytes();
        if self.fan_slots & slot != 0 {
            let below = Arc::make_mut(&mut self.fans[rank(self.fan_slots, slot)]);
            let before = below.bytes;
            below.insert(kid, level + 1);
            self.bytes = self.bytes + below.bytes - before;
        } else if self.kid_slots & slot != 0 {
            let other = remove_at(&mut self.kids, rank(self.kid_slots, slot));
            self.kid_slots ^= slot;
            let mut below = Fan::empty();
            below.insert(other, level + 1);
            below.insert(kid, level + 1);
            self.bytes += below.bytes;
            insert_at(&mut self.fans, rank(self.fan_slots, slot), Arc::new(below));
            self.fan_slots ^= slot;
        } else {
            insert_at(&mut self.kids, rank(self.kid_slots, slot), kid);
            self.kid_slots ^= slot;
        }
        self.bytes = self.bytes + self.own_bytes() - own_before;
    }

    fn remove(&mut self, key: u64, level: u32) -> Option<Arc<Node>> {
        let slot = slot(key, level);
        let own_before = self.own_bytes();
        let removed = if self.fan_slots & slot != 0 {
            self.remove_below(key, level)
        } else {
            let index = rank(self.kid_slots, slot);
            let found = self.kid_slots & slot != 0 && self.kids[index].key == key;
            found.then(|| {
                self.kid_slots ^= slot;
                remove_at(&mut self.kids, index).node
            })
        };
        self.bytes = self.bytes + self.own_bytes() - own_before;
        removed
    }

    /// Removes from the fan in the slot of `key`, which goes if it is left with one child or none.
    fn remove_below(&mut self, key: u64, level: u32) -> Option<Arc<Node>> {
        let slot = slot(key, level);
        let index = rank(self.fan_slots, slot);
        let below = Arc::make_mut(&mut self.fans[index]);
        let before = below.bytes;
        let removed = below.remove(key, level + 1);
        self.bytes = self.bytes + below.bytes - before;
        if below.fan_slots == 0 && below.kids.len() <= 1 {
            self.bytes -= below.bytes;
            let last = std::mem::take(&mut below.kids).into_iter().next();
            drop(remove_at(&mut self.fans, index));
            self.fan_slots ^= slot;
            if let Some(kid) = last {
                insert_at(&mut self.kids, rank(self.kid_slots, slot), kid);
                self.kid_slots ^= slot;
            }
        }
        removed
    }

    fn for_each<'a>(&'a self, visit: &mut impl FnMut(u64, &'a Arc<Node>)) {
        self.kids.iter().for_each(|kid| visit(kid.key, &kid.node));
        self.fans.iter().for_each(|fan| fan.for_each(visit));
    }

    fn take_into(this: Arc<Fan>, dying: &mut Vec<Arc<Node>>) {
        if let Some(fan) = Arc::into_inner(this) {
            dying.extend(fan.kids.into_iter().map(|kid| kid.node));
            fan.fans.into_iter().for_each(|fan| Fan::take_into(fan, dying));
        }
    }

    /// Bytes of this fan without those below.
    fn own_bytes(&self) -> usize {
        arc_bytes::<Fan>() + slice_bytes::<Kid>(self.kids.len()) + slice_bytes::<Arc<Fan>>(self.fans.len())
    }
}

/// The slot of `key` at a level of the trie, as a bit.
fn slot(key: u64, level: u32) -> u32 {
    1 << ((key >> (level * FAN_BITS)) & 31)
}

/// Where the element of `slot` is stored, or would be.
fn rank(slots: u32, slot: u32) -> usize {
    (slots & (slot - 1)).count_ones() as usize
}

fn insert_at<T>(list: &mut Box<[T]>, index: usize, element: T) {
    let mut vec = std::mem::take(list).into_vec();
    vec.reserve_exact(1);
    vec.insert(index, element);
    *list = vec.into_boxed_slice();
}

fn remove_at<T>(list: &mut Box<[T]>, index: usize) -> T {
    let mut vec = std::mem::take(list).into_vec();
    let element = vec.remove(index);
    *list = vec.into_boxed_slice();
    element
}

#[cfg(test)]
mod tests;
