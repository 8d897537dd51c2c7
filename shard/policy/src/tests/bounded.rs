//! Bounded loads: the bound itself, and the walk round the ring that keeps to it, against the slow way.

use fleet::blocks::bytes_covered;
use fleet::blocks::chain;
use fleet::board::REQUEST_COST;
use fleet::rules::PrefixHash;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::place::load_bound;

const SEEDS: u64 = 256;

/// Requests a worker may have before one more, counted up one by one.
fn requests_max(requests: u32, members: u32, factor: f64) -> Option<u32> {
    let is_within =
        |had: &u32| f64::from(*had) < (factor * f64::from(requests + 1) / f64::from(members)).ceil();
    (0..=requests).take_while(is_within).last()
}

#[test]
fn the_bound_is_a_share_in_whole_requests_and_has_room_for_one_more() {
    for factor in [1.0_f32, 1.25, 1.5, 2.0, 3.0, 7.5] {
        for members in 1..12 {
            for requests in 0..80 {
                let total = requests * REQUEST_COST;
                let bound = load_bound(&Evidence { total, members, ..Evidence::default() }, factor);
                let most = requests_max(requests, members, f64::from(factor)).expect("one fits");
                // Beyond all that there are, more makes no difference.
                assert_eq!((bound / REQUEST_COST).min(requests), most, "{requests} on {members}, {factor}");
                // However they are spread, the lightest has at most the average.
                assert!(requests / members * REQUEST_COST <= bound, "{requests} on {members}, {factor}");
            }
        }
    }
    let nobody = load_bound(&Evidence { total: u32::MAX, members: 0, ..Evidence::default() }, 1e30);
    assert_eq!(nobody, u32::MAX, "no number is too large");
}

/// The ring's workers in order from the beginning of the prompt, the first that has room; the lightest if none has.
#[test]
fn prefix_hash_takes_the_first_on_the_ring_that_has_room() {
    let (mut at_home, mut elsewhere) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let load_factor = [1.0, 1.25, 2.0][rng.random_range(0..3)];
        let config = PrefixHash { prefix_bytes: [1, 64, 256][rng.random_range(0..3)], load_factor };
        let workers = rng.random_range(1..10_u32);
        let mut world = World::new(workers as usize, Policy::PrefixHash(config));
        let mut loads = vec![0_u32; workers as usize];
        let mut present = vec![true; workers as usize];
        for step in 0..60 {
            let worker = rng.random_range(0..workers);
            if rng.random_range(0..6) == 0 {
                present[worker as usize] ^= true;
                world.set_present(worker, present[worker as usize]);
            }
            let blocks: Vec<u64> = (0..rng.random_range(1..8)).map(|_| rng.random_range(0..3)).collect();
            let excluded: Vec<WorkerId> =
                (0..rng.random_range(0..3)).map(|_| world.worker(rng.random_range(0..workers)).id).collect();
            let request = request(&blocks, &excluded);
            let may = |&index: &u32| {
                present[index as usize] && excluded.iter().all(|excluded| excluded.index != index)
            };

            let begins = |len: &usize| {
                bytes_covered(*len as u32, request.prompt_bytes) >= config.prefix_bytes as usize
            };
            let len = (1..=blocks.len()).find(begins).unwrap_or(blocks.len());
            let key = blocks[..len].iter().fold(0, |key, &block| chain(key, block));
            let members = present.iter().filter(|is_present| **is_present).count() as u32;
            let requests = loads.iter().sum();
            let most = requests_max(requests, members.max(1), f64::from(load_factor)).expect("one fits");
            let ring = world.snapshot.fleet.pools[0].ring.clone().expect("a ring");
            let on_ring = ring
                .clockwise(key)
                .take(ring.points())
                .find(|index| may(index) && loads[*index as usize] <= most);
            let lightest = (0..workers).filter(may).map(|index| loads[index as usize]).min();

            let chosen = world.choose_with(&request).map(|(worker, reason, ..)| (worker, reason));
            match (chosen, on_ring) {
                (Some(chosen), Some(expect)) => {
                    assert_eq!(chosen, (expect, Reason::Place), "seed {seed}, step {step}")
                }
                (Some((worker, reason)), None) => {
                    assert_eq!(
                        (Some(loads[worker as usize]), reason),
                        (lightest, Reason::LeastLoad),
                        "seed {seed}"
                    );
                    assert!(may(&worker), "seed {seed}, step {step}");
                }
                (None, _) => assert_eq!(lightest, None, "seed {seed}, step {step}"),
            }
            let first = ring.clockwise(key).next();
            if let Some((worker, _)) = chosen {
                *(if first == Some(worker) { &mut at_home } else { &mut elsewhere }) += 1;
                world.load(worker, 1);
                loads[worker as usize] += 1;
            }
        }
    }
    assert!(at_home > 1_000 && elsewhere > 1_000, "{at_home} {elsewhere}");
}
