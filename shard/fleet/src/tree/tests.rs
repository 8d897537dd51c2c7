//! Facts about single operations; random sequences are compared with a naive map in `model`.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use super::*;
use crate::blocks::PromptBlocks;
use crate::blocks::hash_blocks;

mod model;
mod transfer;

const UNBOUNDED: TreeConfig = TreeConfig { bytes_max: usize::MAX, blocks_per_holder_max: usize::MAX };
const A: HolderId = HolderId(0);
const B: HolderId = HolderId(1);
const C: HolderId = HolderId(2);

/// A path of `len` distinct blocks; paths of one family agree on their first `shared`.
fn path(family: u64, member: u64, shared: usize, len: usize) -> Vec<u64> {
    let block = |i: usize| {
        let own = if i < shared { 0 } else { member + 1 };
        (family << 40 ^ own << 20 ^ i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    (0..len).map(block).collect()
}

fn found(snapshot: &TreeSnapshot, blocks: &[u64]) -> (u32, Vec<(u32, u32)>) {
    let found = snapshot.find(blocks);
    (found.blocks, found.holders().map(|(holder, tick)| (holder.0, tick)).collect())
}

/// Recounts everything the tree keeps an account of, and checks the invariants of the module.
fn audit(tree: &PrefixTree) {
    let (mut bytes, mut blocks, mut nodes) = (tree.root.bytes(), 0, 0);
    let mut held: HashMap<HolderId, u64> = HashMap::new();
    let mut todo = vec![(Arc::clone(&tree.root), Vec::<u64>::new())];
    while let Some((node, keys)) = todo.pop() {
        let mut children: HashMap<HolderId, u32> = HashMap::new();
        node.kids.for_each(&mut |key, child| {
            assert_eq!(child.edge.first(), Some(&key));
            assert!(!child.holders.is_empty());
            assert!(child.holders.is_sorted_by_key(|presence| presence.holder));
            for presence in &child.holders {
                *children.entry(presence.holder).or_default() += 1;
                if node.id != ROOT {
                    let above = node.presence(presence.holder).expect("presence is prefix-closed");
                    assert!(above.tick >= presence.tick);
                }
            }
            let mut keys = keys.clone();
            keys.push(key);
            let mut address = Vec::new();
            assert!(tree.addresses.path(child.id, &mut address));
            assert_eq!(address, keys);
            bytes += child.bytes();
            blocks += child.edge.len() as u64;
            nodes += 1;
            todo.push((Arc::clone(child), keys));
        });
        for presence in &node.holders {
            *held.entry(presence.holder).or_default() += node.edge.len() as u64;
            assert_eq!(presence.children, children.get(&presence.holder).copied().unwrap_or(0));
            let queued = || tree.recency.has(presence.holder, presence.tick, node.id);
            assert!(presence.children > 0 || queued(), "a tip is not in its holder's queue");
        }
    }
    assert_eq!((bytes, blocks, nodes), (tree.node_bytes, tree.blocks(), tree.nodes()));
    for (holder, count) in held {
        assert_eq!(tree.holder_blocks(holder), count);
    }
}

#[test]
fn a_match_names_all_holders_of_its_deepest_node() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    tree.insert(&path(1, 0, 4, 8), A, 1);
    tree.insert(&path(1, 1, 4, 9), B, 2);
    let snapshot = tree.snapshot();
    assert_eq!(found(&snapshot, &path(1, 2, 4, 8)), (4, vec![(0, 1), (1, 2)]));
    assert_eq!(found(&snapshot, &path(1, 1, 4, 7)), (7, vec![(1, 2)]));
    assert_eq!(found(&snapshot, &path(2, 0, 4, 8)), (0, vec![]));
    assert_eq!(found(&TreeSnapshot::default(), &path(1, 0, 4, 8)), (0, vec![]));
    audit(&tree);
}

#[test]
fn a_trail_says_how_much_each_holder_has() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    tree.insert(&path(1, 0, 4, 8), A, 1);
    tree.insert(&path(1, 1, 4, 8), B, 1);
    let snapshot = tree.snapshot();
    let prompt = path(1, 0, 4, 8);
    let trail = snapshot.trail(&prompt);
    assert_eq!([A, B, C].map(|holder| trail.held_by(holder)), [(8, 1), (4, 1), (0, 0)]);
    let depths: Vec<u32> = trail.deepest_first().map(|step| step.blocks).collect();
    assert_eq!((depths, trail.known()), (vec![8, 4], 8));
}

#[test]
fn a_search_hashes_no_further_than_the_miss() {
    let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut blocks = Vec::new();
    hash_blocks([&text[..1024]].into_iter(), 1, &mut blocks);
    let mut tree = PrefixTree::new(UNBOUNDED);
    tree.insert(&blocks, A, 1);
    let mut hashed = Vec::new();
    let mut prompt = PromptBlocks::new([&text[..]].into_iter(), 1, &mut hashed);
    assert_eq!(tree.snapshot().find(&mut prompt).blocks as usize, blocks.len());
    drop(prompt);
    assert_eq!(hashed.len(), blocks.len() + 1);
}

#[test]
fn a_chat_of_one_holder_stays_one_node() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    for turn in 1..=100 {
        tree.insert(&path(1, 0, 0, turn * 8), A, turn as u32);
        tree.snapshot();
    }
    assert_eq!((tree.nodes(), tree.blocks(), tree.holder_blocks(A)), (1, 800, 800));
    audit(&tree);
}

#[test]
fn repeating_a_prompt_within_a_tick_writes_nothing() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    tree.insert(&path(1, 0, 4, 8), A, 5);
    let before = tree.snapshot();
    tree.insert(&path(1, 0, 4, 8), A, 5);
    tree.insert(&path(1, 0, 4, 6), A, 3);
    tree.insert(&[], B, 5);
    assert!(Arc::ptr_eq(&tree.root, before.root().expect("not the default")));
    tree.insert(&path(1, 0, 4, 8), A, 6);
    assert_eq!(found(&before, &path(1, 0, 4, 8)), (8, vec![(0, 5)]));
    assert_eq!(found(&tree.snapshot(), &path(1, 0, 4, 8)), (8, vec![(0, 6)]));
}

#[test]
fn the_least_recently_used_tip_goes_first() {
    let mut tree = PrefixTree::new(TreeConfig { blocks_per_holder_max: 24, ..UNBOUNDED });
    for member in 0..3 {
        tree.insert(&path(member, 0, 0, 8), A, 1 + member as u32);
    }
    tree.insert(&path(0, 0, 0, 8), A, 4);
    tree.insert(&path(3, 0, 0, 8), A, 5);
    let depths = |tree: &mut PrefixTree| {
        let snapshot = tree.snapshot();
        [0, 1, 2, 3].map(|member| snapshot.find(&path(member, 0, 0, 8)).blocks)
    };
    assert_eq!(depths(&mut tree), [8, 0, 8, 8]);
    tree.insert(&path(1, 0, 0, 8), A, 6);
    assert_eq!(depths(&mut tree), [8, 8, 0, 8]);
    assert_eq!(tree.evicted_blocks_total(), 16);
    audit(&tree);
}

#[test]
fn the_oldest_holder_of_a_shared_node_loses_it_first() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    tree.insert(&path(1, 0, 8, 8), A, 1);
    tree.insert(&path(1, 0, 8, 8), B, 2);
    tree.insert(&path(2, 0, 8, 8), B, 3);
    tree.insert(&path(3, 0, 8, 8), C, 4);
    tree.config.bytes_max = tree.bytes() - 1;
    tree.insert(&path(3, 0, 8, 8), C, 5);
    let snapshot = tree.snapshot();
    assert_eq!(found(&snapshot, &path(1, 0, 8, 8)), (0, vec![]));
    assert_eq!(found(&snapshot, &path(2, 0, 8, 8)), (8, vec![(1, 3)]));
    assert_eq!(tree.evicted_blocks_total(), 16, "both holders of the first path lost it");
    audit(&tree);
}

#[test]
fn the_tree_never_exceeds_its_bytes() {
    for bytes_max in [40_000, 150_000, 1_000_000] {
        let mut tree = PrefixTree::new(TreeConfig { bytes_max, ..UNBOUNDED });
        for i in 0..6000_u64 {
            tree.insert(
                &path(i % 50, i, 6, 8 + (i % 17) as usize),
                HolderId((i % 5) as u32),
                (i / 10) as u32,
            );
            assert!(tree.bytes() <= bytes_max);
        }
        assert!(tree.evicted_blocks_total() > 0 && tree.bytes() > bytes_max * 9 / 10);
        audit(&tree);
    }
}

#[test]
fn a_removed_holder_is_gone_and_so_is_what_only_it_held() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    for i in 0..400 {
        tree.insert(&path(i % 7, i, 5, 12), HolderId((i % 3) as u32), 1);
    }
    let before = tree.snapshot();
    tree.remove_holder(B);
    let after = tree.snapshot();
    for i in 0..400 {
        let holders = found(&after, &path(i % 7, i, 5, 12)).1;
        assert!(holders.iter().all(|&(holder, _)| holder != B.0));
        assert_eq!(found(&before, &path(i % 7, i, 5, 12)).0, 12);
    }
    assert_eq!(tree.holder_blocks(B), 0);
    audit(&tree);
    tree.remove_holder(A);
    tree.remove_holder(C);
    tree.remove_holder(HolderId(99));
    assert_eq!((tree.nodes(), tree.blocks()), (0, 0));
    tree.insert(&path(1, 0, 4, 8), B, 1);
    assert_eq!(found(&tree.snapshot(), &path(1, 0, 4, 8)), (8, vec![(1, 1)]));
    audit(&tree);
}

#[test]
fn clearing_frees_everything_bit_by_bit() {
    let mut tree = PrefixTree::new(UNBOUNDED);
    let empty = tree.bytes();
    for i in 0..10_000 {
        tree.insert(&path(i, i, 0, 3), A, 1);
    }
    let parked = tree.snapshot();
    tree.clear();
    assert_eq!((tree.bytes(), tree.nodes(), tree.blocks()), (empty, 0, 0));
    while tree.collect_garbage() {}
    assert_eq!((found(&parked, &path(7, 7, 0, 3)).0, tree.versions_retained()), (3, 1));
    drop(parked);
    assert!(tree.collect_garbage(), "one call frees a bounded number of nodes");
    while tree.collect_garbage() {}
    assert_eq!(tree.versions_retained(), 0);
}

#[test]
fn long_chains_need_no_stack() {
    let chain = || {
        // Two holders in turn defeat the extension of leaves: 4,096 nodes of one block.
        let mut tree = PrefixTree::new(UNBOUNDED);
        let blocks = path(1, 0, 0, BLOCKS_PER_PROMPT_MAX + 5);
        for len in 1..=blocks.len() {
            tree.insert(&blocks[..len], HolderId(len as u32 % 2), 1);
        }
        assert_eq!(tree.nodes(), BLOCKS_PER_PROMPT_MAX);
        tree.insert(&blocks, C, 2);
        let snapshot = tree.snapshot();
        tree.remove_holder(C);
        tree.remove_holder(A);
        assert_eq!(snapshot.find(&blocks).blocks as usize, BLOCKS_PER_PROMPT_MAX);
        tree.config.blocks_per_holder_max = 0;
        tree.insert(&blocks[..1], B, 3);
        assert_eq!(tree.nodes(), 0);
        drop(tree);
        drop(snapshot);
    };
    let nodes = || {
        let mut node = Node::leaf(1, &[1], A, 1);
        for _ in 0..20_000 {
            let mut parent = Node::leaf(1, &[1], A, 1);
            parent.kids.insert(1, Arc::new(node));
            node = parent;
        }
    };
    for test in [chain as fn(), nodes] {
        let small = thread::Builder::new().stack_size(128 * 1024);
        small.spawn(test).expect("threads can be started").join().expect("the stack was enough");
    }
}

#[test]
fn held_snapshots_never_change_while_the_writer_runs() {
    let probes: Vec<_> = (0..40).map(|i| path(i % 8, i, 6, 14)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (send, receive) = crossbeam_channel::bounded::<(TreeSnapshot, Vec<_>)>(4);
        for _ in 0..2 {
            let (receive, done, probes) = (receive.clone(), &done, &probes);
            scope.spawn(move || {
                let mut held = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    held.extend(receive.try_recv());
                    for (snapshot, expected) in &held {
                        assert!(
                            probes.iter().map(|probe| found(snapshot, probe)).eq(expected.iter().cloned())
                        );
                    }
                    if held.len() > 5 {
                        held.drain(..3);
                    }
                }
            });
        }
        let mut tree = PrefixTree::new(TreeConfig { bytes_max: 60_000, ..UNBOUNDED });
        for i in 0..20_000 {
            tree.insert(&path(i % 8, i % 64, 6, 14), HolderId((i % 6) as u32), (i / 16) as u32);
            if i % 1000 == 999 {
                tree.remove_holder(HolderId((i / 1000 % 6) as u32));
            }
            if i % 8 == 0 {
                let snapshot = tree.snapshot();
                let expected = probes.iter().map(|probe| found(&snapshot, probe)).collect();
                drop(send.try_send((snapshot, expected)));
                tree.collect_garbage();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
