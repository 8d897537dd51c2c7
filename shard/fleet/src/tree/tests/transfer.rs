//! A tree that went from one process to another against the one it came from.

use super::model::Rng;
use super::model::dump;
use super::*;

const SEEDS: u64 = 60;
const HOLDERS: u64 = 7;

/// A tree with a history of its own: many prompts, some evicted, a holder gone.
fn tree(rng: &mut Rng, config: TreeConfig) -> PrefixTree {
    let mut tree = PrefixTree::new(config);
    for tick in 0..(20 + rng.below(400)) {
        tree.insert(&rng.prompt(), HolderId(rng.below(HOLDERS) as u32), 1000 + tick as u32 / 3);
    }
    if rng.below(2) == 0 {
        tree.remove_holder(HolderId(rng.below(HOLDERS) as u32));
    }
    tree
}

/// All nodes as they are written, in frames of about `frame_bytes`.
fn exported(tree: &mut PrefixTree, frame_bytes: usize) -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new()];
    for node in tree.snapshot().nodes() {
        let frame = frames.last_mut().expect("there is one");
        let before = frame.len();
        node.write(frame);
        assert_eq!(frame.len(), before + node.written_bytes());
        if frame.len() >= frame_bytes {
            frames.push(Vec::new());
        }
    }
    frames
}

fn imported(
    frames: &[Vec<u8>],
    config: TreeConfig,
    map: impl Fn(HolderId) -> Option<HolderId>,
) -> PrefixTree {
    let mut tree = PrefixTree::new(config);
    let mut import = TreeImport::new(&mut tree);
    for frame in frames {
        import.take(frame, &map).expect("a tree that was exported");
    }
    import.finish();
    audit(&tree);
    tree
}

#[test]
fn matches_are_the_same_on_the_other_side() {
    for seed in 0..SEEDS {
        let rng = &mut Rng(seed);
        let mut before = tree(rng, UNBOUNDED);
        let frames = exported(&mut before, 1 + rng.below(500) as usize);
        let mut after = imported(&frames, UNBOUNDED, Some);
        assert_eq!(dump(&after.root), dump(&before.root), "seed {seed}");
        assert_eq!((after.blocks(), after.nodes()), (before.blocks(), before.nodes()));
        let (before, after) = (before.snapshot(), after.snapshot());
        for _ in 0..50 {
            let prompt = rng.prompt();
            assert_eq!(found(&after, &prompt), found(&before, &prompt), "seed {seed}");
        }
    }
}

#[test]
fn holders_go_on_under_other_ids_or_not_at_all() {
    for seed in 0..SEEDS {
        let rng = &mut Rng(seed);
        let mut before = tree(rng, UNBOUNDED);
        let gone = HolderId(rng.below(HOLDERS) as u32);
        let map = |holder: HolderId| (holder != gone).then_some(HolderId(100 - holder.0));
        let after = imported(&exported(&mut before, 200), UNBOUNDED, map);
        let expect = dump(&before.root)
            .into_iter()
            .filter_map(|((prefix, holder), tick)| Some(((prefix, map(holder)?), tick)))
            .collect();
        assert_eq!(dump(&after.root), expect, "seed {seed}");
    }
}

#[test]
fn an_import_goes_on_like_any_tree_and_keeps_its_bounds() {
    for seed in 0..SEEDS {
        let rng = &mut Rng(seed);
        let mut before = tree(rng, UNBOUNDED);
        let config = TreeConfig {
            bytes_max: before.bytes() / 2 + 500,
            blocks_per_holder_max: 1 + rng.below(60) as usize,
        };
        let mut after = imported(&exported(&mut before, 300), config, Some);
        for step in 0..60 {
            assert!(after.bytes() <= config.bytes_max || after.nodes() == 0);
            assert!((0..HOLDERS).all(|holder| {
                after.holder_blocks(HolderId(holder as u32)) <= config.blocks_per_holder_max as u64
            }));
            after.insert(&rng.prompt(), HolderId(rng.below(HOLDERS) as u32), 2000 + step);
            audit(&after);
        }
    }
}

#[test]
fn what_is_no_tree_is_refused_or_left_out() {
    for seed in 0..400 {
        let rng = &mut Rng(seed);
        let mut frame = exported(&mut tree(rng, UNBOUNDED), usize::MAX).concat();
        for _ in 0..=rng.below(4) {
            let at = rng.below(frame.len() as u64) as usize;
            match rng.below(3) {
                0 => frame[at] ^= 1 << rng.below(8),
                1 => frame.truncate(at.max(1)),
                _ => drop(frame.drain(..at)),
            }
            if frame.is_empty() {
                break;
            }
        }
        let mut other = PrefixTree::new(UNBOUNDED);
        let mut import = TreeImport::new(&mut other);
        // Cut or changed anywhere, it is refused, or a tree comes of it that is sound.
        if import.take(&frame, Some).is_ok() {
            import.finish();
            audit(&other);
        }
    }
}
