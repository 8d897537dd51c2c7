//! Placements are found again, alone and against a plain list of all of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const A: WorkerId = WorkerId { index: 0, generation: 1 };
const B: WorkerId = WorkerId { index: 1, generation: 2 };

#[test]
fn finds_the_longest_recent_prefix() {
    let mut overlay = Overlay::new();
    overlay.place(&[1, 2], 0, (A, 0), 0);
    overlay.place(&[1, 2, 3, 4], 2, (B, 0), 0);
    assert_eq!(overlay.find(&[1, 2, 3, 4, 5], 0, 0, |_, _| true), Some((4, B)));
    assert_eq!(overlay.find(&[1, 2, 9], 0, 0, |_, _| true), Some((2, A)));
    assert_eq!(overlay.find(&[7], 0, 0, |_, _| true), None);
}

#[test]
fn skips_workers_that_may_not_be_chosen() {
    let mut overlay = Overlay::new();
    overlay.place(&[1], 0, (A, 0), 0);
    overlay.place(&[1, 2], 1, (B, 0), 0);
    assert_eq!(overlay.find(&[1, 2], 0, 0, |worker, _| worker == A), Some((1, A)));
}

#[test]
fn a_worker_of_a_later_epoch_holds_nothing_of_before() {
    let mut overlay = Overlay::new();
    overlay.place(&[1, 2], 0, (A, 3), 0);
    assert_eq!(overlay.find(&[1, 2], 0, 0, |_, epoch| epoch == 3), Some((2, A)));
    assert_eq!(overlay.find(&[1, 2], 0, 0, |_, epoch| epoch == 4), None);
}

#[test]
fn forgets_after_its_lifetime() {
    let mut overlay = Overlay::new();
    overlay.place(&[1], 0, (A, 0), 10);
    assert!(overlay.find(&[1], 0, 10 + LIFETIME_TICKS, |_, _| true).is_some());
    assert!(overlay.find(&[1], 0, 11 + LIFETIME_TICKS, |_, _| true).is_none());
}

#[test]
fn a_long_placement_is_found_at_its_end() {
    let mut overlay = Overlay::new();
    let blocks: Vec<u64> = (1..=4096).collect();
    overlay.place(&blocks, 0, (A, 0), 0);
    let longer: Vec<u64> = (1..=4100).collect();
    assert_eq!(overlay.find(&longer, 0, 0, |_, _| true), Some((4096, A)));
}

const SEEDS: u64 = 256;

/// One placement, as it was made.
struct Placement {
    blocks: Vec<u64>,
    worker: WorkerId,
    tick: u32,
}

fn prefix(blocks: &[u64]) -> u64 {
    blocks.iter().fold(0, |prefix, &block| chain(prefix, block))
}

/// A prompt from a small world: many share their beginnings.
fn prompt(rng: &mut SmallRng, letters: u64, most: usize) -> Vec<u64> {
    (0..rng.random_range(0..=most)).map(|_| rng.random_range(0..letters)).collect()
}

/// Whatever was placed, and however much of it was forgotten: what is found was placed there lately, and the last
/// placement is found to its end.
#[test]
fn what_is_found_was_placed_there_lately() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut overlay = Overlay::new();
        let mut placements: Vec<Placement> = Vec::new();
        let mut tick = 0;
        for step in 0..120 {
            tick += u32::from(rng.random_range(0..4) == 0);
            let most = if rng.random_range(0..8) == 0 { 700 } else { 12 };
            let blocks = prompt(&mut rng, 2, most);
            let known = rng.random_range(0..=blocks.len());
            let index = rng.random_range(0..4);
            let worker = WorkerId { index, generation: rng.random_range(1..3) };
            overlay.place(&blocks, known, (worker, 0), tick);
            let mut longer = blocks.clone();
            longer.extend(prompt(&mut rng, 2, 3));
            if known < blocks.len() {
                let (len, holder) = overlay.find(&longer, known, tick, |_, _| true).expect("placed just now");
                assert!(
                    len > blocks.len() || (len, holder) == (blocks.len(), worker),
                    "seed {seed}, step {step}: {len} of {}",
                    blocks.len()
                );
            }
            placements.push(Placement { blocks, worker, tick });
            let refused = rng.random_range(0..5);
            for asked in [longer, prompt(&mut rng, 2, 12)] {
                let known = rng.random_range(0..=asked.len());
                let found = overlay.find(&asked, known, tick, |worker, _| worker.index != refused);
                let Some((len, holder)) = found else { continue };
                let is_it = |placement: &Placement| {
                    placement.worker == holder
                        && tick - placement.tick <= LIFETIME_TICKS
                        && placement.blocks.starts_with(&asked[..len])
                };
                assert!(len > known && holder.index != refused, "seed {seed}, step {step}");
                assert!(placements.iter().any(is_it), "seed {seed}, step {step}: {len} blocks on {holder:?}");
            }
        }
    }
}

/// As long as no two prefixes share a slot, a plain map says the same.
#[test]
fn a_plain_map_says_the_same() {
    let mut compared = 0;
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut overlay = Overlay::new();
        let mut map: BTreeMap<u64, (WorkerId, u32)> = BTreeMap::new();
        let mut tick = 0;
        for step in 0..60 {
            tick += u32::from(rng.random_range(0..4) == 0);
            let blocks = prompt(&mut rng, 2, 6);
            let known = rng.random_range(0..=blocks.len());
            let worker = WorkerId { index: rng.random_range(0..4), generation: 1 };
            overlay.place(&blocks, known, (worker, 0), tick);
            map.extend((known + 1..=blocks.len()).map(|len| (prefix(&blocks[..len]), (worker, tick))));
            let slots: BTreeSet<usize> = map.keys().map(|&prefix| slot(prefix)).collect();
            if slots.len() < map.len() {
                break;
            }
            let (asked, refused) = (prompt(&mut rng, 2, 8), rng.random_range(0..5));
            let known = rng.random_range(0..=asked.len());
            let expect = (known + 1..=asked.len()).rev().find_map(|len| {
                let &(worker, placed) = map.get(&prefix(&asked[..len]))?;
                (tick - placed <= LIFETIME_TICKS && worker.index != refused).then_some((len, worker))
            });
            let found = overlay.find(&asked, known, tick, |worker, _| worker.index != refused);
            assert_eq!(found, expect, "seed {seed}, step {step}");
            compared += 1;
        }
    }
    assert!(compared > 60 * SEEDS / 4, "{compared}");
}
