//! Removal of a holder: it leaves every node at once, and nodes that nobody else holds leave the tree.
//!
//! Each of its nodes is visited once, with its siblings, and the way down is a list of frames and not the call stack.

use std::sync::Arc;

use super::HolderId;
use super::PrefixTree;
use super::node::Node;

/// A node on the way down: a copy being changed, which replaces the original on the way up.
struct Frame {
    node: Arc<Node>,
    /// Its key in the parent.
    key: u64,
    /// Keys of its children from which the holder is still to be removed.
    todo: Vec<u64>,
}

impl PrefixTree {
    /// Makes `holder` absent everywhere. Versions published earlier keep showing it.
    pub fn remove_holder(&mut self, holder: HolderId) {
        if self.holder_blocks(holder) > 0 {
            self.root = self.without(holder);
        }
        self.recency.remove(holder);
    }

    /// The root of the tree without `holder`.
    fn without(&mut self, holder: HolderId) -> Arc<Node> {
        let mut top = self.frame(&Arc::clone(&self.root), 0, holder);
        let mut above = Vec::new();
        loop {
            if let Some(key) = top.todo.pop() {
                let child = Arc::clone(top.node.kids.get(key).expect("todo lists children of the node"));
                let frame = self.frame(&child, key, holder);
                above.push(std::mem::replace(&mut top, frame));
                continue;
            }
            let Some(parent) = above.pop() else { return top.node };
            let Frame { node, key, .. } = std::mem::replace(&mut top, parent);
            let kids = &mut Arc::make_mut(&mut top.node).kids;
            *kids.get_mut(key).expect("the child came from here") = node;
        }
    }

    /// Copies `node` without `holder` and without the children that only it has, and lists those it shares.
    fn frame(&mut self, node: &Arc<Node>, key: u64, holder: HolderId) -> Frame {
        let mut copy = Node::clone(node);
        let mut todo = Vec::new();
        let mut own = Vec::new();
        node.kids.for_each(&mut |key, child| {
            if child.presence(holder).is_some() {
                let keys = if child.holders.len() == 1 { &mut own } else { &mut todo };
                keys.push(key);
            }
        });
        for key in own {
            let child = copy.kids.remove(key).expect("listed above");
            self.discard(child);
        }
        copy.forget(holder);
        self.node_bytes = self.node_bytes + copy.bytes() - node.bytes();
        Frame { node: Arc::new(copy), key, todo }
    }

    /// Takes a whole subtree out of the books.
    fn discard(&mut self, node: Arc<Node>) {
        let mut nodes = vec![node];
        while let Some(node) = nodes.pop() {
            self.addresses.release(node.id);
            self.node_bytes -= node.bytes();
            self.blocks -= node.edge.len() as u64;
            node.kids.for_each(&mut |_, child| nodes.push(Arc::clone(child)));
        }
    }
}
