//! Random worlds: every policy, any loads, prefixes, keys and exclusions.

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const SEEDS: u64 = 256;

/// A choice can be chosen, is one of its own candidates, and follows from its evidence alone.
#[test]
fn every_choice_follows_from_its_evidence() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policies = policies();
        let policy = policies[seed as usize % policies.len()];
        let workers = rng.random_range(1..12_u32);
        let mut world = World::new(workers as usize, policy);
        let mut flights: Vec<(Arc<Worker>, Claim)> = Vec::new();
        for step in 0..80 {
            let blocks: Vec<u64> = (0..rng.random_range(0..12)).map(|_| rng.random_range(0..3)).collect();
            let worker = rng.random_range(0..workers);
            match rng.random_range(0..6) {
                0 => world.hold(&blocks, worker),
                1 => world.set_present(worker, rng.random_range(0..3) > 0),
                2 => {
                    if let Some((worker, claim)) = flights.pop() {
                        worker.end(&claim, false);
                    }
                }
                3 => world.replace(worker),
                _ => {}
            }
            let excluded: Vec<WorkerId> =
                (0..rng.random_range(0..3)).map(|_| world.worker(rng.random_range(0..workers)).id).collect();
            let key = [rng.random_range(0..4_u8)];
            let keys = Keys { session: (rng.random_range(0..2) == 0).then_some(&key[..]), ..Keys::default() };
            let request = Request { keys, tick: step / 4, ..request(&blocks, &excluded) };
            let is_free = |index: u32| {
                world.board().cost(index).is_some() && !excluded.contains(&world.worker(index).id)
            };
            let has_somebody = (0..workers).any(is_free);
            let chosen = world.choose_with(&request);
            assert_eq!(chosen.is_some(), has_somebody, "{}, seed {seed}, step {step}", policy.name());
            let Some((worker, reason, matched, _)) = chosen else { continue };
            assert!(world.board().cost(worker).is_some() && !excluded.contains(&world.worker(worker).id));
            let evidence = world.replica.evidence().clone();
            let (at, again) = decide(&policy, &evidence).expect("a candidate");
            assert_eq!((evidence.candidates[at].worker, again), (worker, reason), "{}", policy.name());
            assert!(matched as usize <= blocks.len());
            let claim = Claim { prompt_bytes: request.prompt_bytes as u32, uncached_bytes: 0 };
            let worker = world.worker(worker);
            worker.begin(&claim);
            flights.push((worker, claim));
        }
        while let Some((worker, claim)) = flights.pop() {
            worker.end(&claim, false);
        }
        assert_eq!(world.board().total(), 0, "seed {seed}");
    }
}

/// Shards that share a board keep it level: the least loaded is the least loaded of all.
#[test]
fn shards_together_keep_the_load_level() {
    for seed in 0..SEEDS / 8 {
        let mut first = World::new(7, Policy::CacheAware(CacheAware::default()));
        let mut second = first.shard(seed);
        for prompt in 0..700_u64 {
            let world = if prompt % 3 == 0 { &mut first } else { &mut second };
            let (worker, ..) = world.choose(&[seed * 1_000 + prompt + 5]);
            world.load(worker, 1);
        }
        assert!((0..7).all(|worker| first.worker(worker).cells.load() == 100));
    }
}
