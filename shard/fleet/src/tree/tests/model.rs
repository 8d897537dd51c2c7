//! Random operations on the tree and on a naive map of every prefix, compared after each.

use std::collections::BTreeMap;

use super::*;
use crate::blocks::chain;

const SEEDS: u64 = 40;
const OPS: usize = 1500;
const HOLDERS: u64 = 5;

/// What is held: (rolling hash of a prefix, holder) to the tick of its last use.
pub(super) type Held = BTreeMap<(u64, HolderId), u32>;

/// splitmix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Few first blocks, and many second ones of which some agree in all but the last bits: lists and deep fans.
    pub(super) fn prompt(&mut self) -> Vec<u64> {
        let len = 1 + self.below(12) as usize;
        (0..len)
            .map(|i| match i {
                0 => self.below(2),
                1 => self.below(4) | self.below(4) << 60,
                _ => 100 + self.below(2),
            })
            .collect()
    }
}

#[derive(Default)]
struct Model {
    held: Held,
    /// Every prefix ever seen, to the one which is a block shorter.
    parents: BTreeMap<u64, u64>,
}

impl Model {
    fn insert(&mut self, blocks: &[u64], holder: HolderId, tick: u32) {
        let mut prefix = 0;
        for &block in blocks {
            let longer = chain(prefix, block);
            self.parents.insert(longer, prefix);
            self.held.insert((longer, holder), tick);
            prefix = longer;
        }
    }

    fn find(&self, blocks: &[u64], admissible: impl Fn(HolderId) -> bool) -> (u32, Vec<(u32, u32)>) {
        let mut best = (0, Vec::new());
        let mut prefix = 0;
        for (&block, depth) in blocks.iter().zip(1..) {
            prefix = chain(prefix, block);
            let all = (prefix, HolderId(0))..=(prefix, HolderId(u32::MAX));
            let holders: Vec<_> =
                self.held.range(all).map(|(&(_, holder), &tick)| (holder.0, tick)).collect();
            if !holders.iter().any(|&(holder, _)| admissible(HolderId(holder))) {
                break;
            }
            best = (depth, holders);
        }
        best
    }

    /// The oldest tick among prefixes which their holder holds in no longer form.
    fn oldest_tip(&self) -> Option<u32> {
        let inner: std::collections::HashSet<_> =
            self.held.keys().map(|&(prefix, holder)| (self.parents[&prefix], holder)).collect();
        self.held.iter().filter(|(key, _)| !inner.contains(*key)).map(|(_, &tick)| tick).min()
    }
}

/// All that a version holds.
pub(super) fn dump(root: &Node) -> Held {
    let mut held = Held::new();
    let mut todo = vec![(0, root.clone())];
    while let Some((mut prefix, node)) = todo.pop() {
        for &block in node.edge.iter() {
            prefix = chain(prefix, block);
            held.extend(node.holders.iter().map(|presence| ((prefix, presence.holder), presence.tick)));
        }
        node.kids.for_each(&mut |_, child| todo.push((prefix, Node::clone(child))));
    }
    held
}

fn check_probes(tree: &mut PrefixTree, model: &Model, rng: &mut Rng) {
    let snapshot = tree.snapshot();
    for _ in 0..3 {
        let prompt = rng.prompt();
        assert_eq!(found(&snapshot, &prompt), model.find(&prompt, |_| true));
        let only = HolderId(rng.below(HOLDERS) as u32);
        let trail = snapshot.trail(&prompt);
        // The first steps of a long trail are not kept.
        if trail.deepest_first().count() < 16 {
            assert_eq!(trail.held_by(only).0 as u32, model.find(&prompt, |holder| holder == only).0);
        }
    }
}

/// Evicts one tip, and checks that it was one of the oldest and that nothing else went.
fn evict_one(tree: &mut PrefixTree, model: &mut Model) {
    let total = tree.evicted_blocks_total();
    while tree.evicted_blocks_total() == total {
        let Some(holder) = tree.recency.oldest() else { break };
        tree.take_entry(holder);
    }
    let left = dump(&tree.root);
    let lost: Vec<_> = model.held.iter().filter(|(key, _)| !left.contains_key(key)).collect();
    let oldest = model.oldest_tip();
    assert!(lost.iter().all(|&(&(_, holder), &tick)| holder == lost[0].0.1 && Some(tick) == oldest));
    assert_eq!(lost.len() as u64, tree.evicted_blocks_total() - total);
    assert_eq!(lost.is_empty(), model.held.is_empty());
    let lost: Vec<_> = lost.into_iter().map(|(&key, _)| key).collect();
    model.held.retain(|key, _| !lost.contains(key));
    assert_eq!(left, model.held);
}

#[test]
fn every_operation_does_what_the_map_does() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let mut tree = PrefixTree::new(UNBOUNDED);
        let mut model = Model::default();
        let mut versions: Vec<(TreeSnapshot, Held)> = Vec::new();
        for step in 0..OPS {
            let tick = step as u32 / 4;
            match rng.below(1000) {
                0..900 => {
                    let (prompt, holder) = (rng.prompt(), HolderId(rng.below(HOLDERS) as u32));
                    tree.insert(&prompt, holder, tick);
                    model.insert(&prompt, holder, tick);
                }
                900..985 => evict_one(&mut tree, &mut model),
                985..995 => {
                    let holder = HolderId(rng.below(HOLDERS) as u32);
                    tree.remove_holder(holder);
                    model.held.retain(|&(_, held_by), _| held_by != holder);
                }
                995..999 => versions.push((tree.snapshot(), model.held.clone())),
                _ => {
                    tree.clear();
                    model.held.clear();
                }
            }
            check_probes(&mut tree, &model, &mut rng);
            tree.collect_garbage();
            if step % 50 == 0 {
                audit(&tree);
                assert_eq!(dump(&tree.root), model.held, "seed {seed} step {step}");
            }
        }
        for (snapshot, held) in &versions {
            assert_eq!(&dump(snapshot.root().expect("not the default")), held, "seed {seed}");
        }
        drop(versions);
        while tree.collect_garbage() {}
        assert!(tree.versions_retained() <= 1, "the current version may be published");
    }
}

#[test]
fn bounds_take_whole_tips_and_nothing_else() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed ^ 0xb0);
        let config = TreeConfig { bytes_max: 12_000, blocks_per_holder_max: 60 };
        let mut tree = PrefixTree::new(config);
        let mut model = Model::default();
        for step in 0..OPS {
            let (prompt, holder) = (rng.prompt(), HolderId(rng.below(HOLDERS) as u32));
            tree.insert(&prompt, holder, step as u32 / 4);
            model.insert(&prompt, holder, step as u32 / 4);
            assert!(tree.bytes() <= config.bytes_max && tree.holder_blocks(holder) <= 60);
            let left = dump(&tree.root);
            assert!(left.iter().all(|(key, tick)| model.held.get(key) == Some(tick)));
            model.held = left;
            if step % 50 == 0 {
                audit(&tree);
            }
        }
        assert!(tree.evicted_blocks_total() > 0);
    }
}
