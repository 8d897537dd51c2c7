//! Decisions over small fleets, with loads, prefixes, keys and exclusions set by hand.

use fleet::rules::CacheAware;
use fleet::rules::Rules;
use fleet::snapshot::Claim;

use super::*;

mod affine;
mod bounded;
mod commit;
mod keyed;
mod property;
mod world;

use self::world::World;
use self::world::id;
use self::world::request;

fn policies() -> Vec<Policy> {
    Policy::NAMES.iter().filter_map(|name| Rules::default().policy(name)).collect()
}

/// SGLang's thresholds alone, without the bound on affinity.
fn unbounded() -> Policy {
    Policy::CacheAware(CacheAware { affinity_load_factor: 0.0, ..CacheAware::default() })
}

#[test]
fn every_name_is_a_policy_of_that_name() {
    assert_eq!(policies().len(), Policy::NAMES.len());
    for (number, (policy, name)) in policies().iter().zip(Policy::NAMES).enumerate() {
        assert_eq!((policy.name(), usize::from(policy.number())), (name, number));
    }
}

#[test]
fn an_excluded_worker_is_never_chosen_and_the_last_one_left_always() {
    for policy in policies() {
        let mut world = World::new(3, policy);
        world.hold(&[1, 2], 0);
        for n in 0..50 {
            let excluded = [id(0), id(2)];
            let key = n.to_string();
            let keys = Keys { session: Some(key.as_bytes()), ..Keys::default() };
            let request = Request { keys, ..request(&[1, 2], &excluded) };
            assert_eq!(world.choose_with(&request).expect("one is left").0, 1, "{}", policy.name());
        }
        let excluded = [id(0), id(1), id(2)];
        let request = request(&[1], &excluded);
        assert!(world.choose_with(&request).is_none(), "{}", policy.name());
        assert!(World::new(0, policy).choose_with(&request).is_none(), "{}", policy.name());
    }
}

#[test]
fn whoever_follows_an_excluded_worker_at_its_index_is_not_excluded() {
    for policy in policies() {
        let mut world = World::new(1, policy);
        world.replace(0);
        let excluded = [id(0)];
        assert!(world.choose_with(&request(&[1], &excluded)).is_some(), "{}", policy.name());
    }
}

#[test]
fn a_worker_that_is_off_the_board_is_never_chosen() {
    for policy in policies() {
        let mut world = World::new(3, policy);
        world.hold(&[1, 2], 1);
        world.set_present(1, false);
        for _ in 0..50 {
            assert_ne!(world.choose(&[1, 2]).0, 1, "{}", policy.name());
        }
    }
}

/// Control publishes while a shard is at work on a request: the newcomers are on the board, and not in the snapshot.
#[test]
fn who_has_joined_since_the_snapshot_is_not_chosen() {
    for newcomers in [1, 5, 40] {
        for policy in policies() {
            let mut world = World::new(3, policy);
            world.hold(&[1, 2], 60);
            (0..3).for_each(|worker| world.load(worker, 2));
            (60..60 + newcomers).for_each(|newcomer| world.set_present(newcomer, true));
            for n in 0..50_u32 {
                let key = n.to_string();
                let keys = Keys { session: Some(key.as_bytes()), ..Keys::default() };
                let (worker, ..) =
                    world.choose_with(&Request { keys, ..request(&[1, 2], &[]) }).expect("three");
                assert!(worker < 3, "{}", policy.name());
            }
        }
    }
}

#[test]
fn round_robin_takes_turns_exactly() {
    let mut world = World::new(3, Policy::RoundRobin);
    let picks: Vec<u32> = (0..7).map(|_| world.choose(&[]).0).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn random_reaches_every_worker() {
    let mut world = World::new(4, Policy::Random);
    let mut seen = [0; 4];
    (0..400).for_each(|_| seen[world.choose(&[]).0 as usize] += 1);
    assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
}

#[test]
fn weights_are_shares_of_requests() {
    for policy in [Policy::Random, Policy::RoundRobin, Policy::PowerOfTwo] {
        let mut world = World::weighted(&[1.0, 3.0], policy);
        let mut seen = [0_u32; 2];
        (0..800).for_each(|_| seen[world.choose(&[]).0 as usize] += 1);
        assert!((150..=250).contains(&seen[0]), "{}: {seen:?}", policy.name());
    }
    // By load: three requests on the heavy worker are as much as one on the other.
    let mut world = World::weighted(&[1.0, 3.0], unbounded());
    let mut seen = [0_u32; 2];
    for prompt in 0..80 {
        let worker = world.choose(&[1000 + prompt]).0;
        world.load(worker, 1);
        seen[worker as usize] += 1;
    }
    assert_eq!(seen, [20, 60]);
}

#[test]
fn power_of_two_picks_the_lighter_of_two_distinct_workers() {
    let mut world = World::new(2, Policy::PowerOfTwo);
    world.load(0, 1);
    for _ in 0..50 {
        assert_eq!(world.choose(&[]).0, 1);
    }
}

#[test]
fn least_load_counts_what_is_not_computed_yet() {
    let mut world = World::new(2, Policy::LeastLoad);
    let claim = Claim { prompt_bytes: 80_000, uncached_bytes: 80_000 };
    let worker = world.worker(0);
    worker.begin(&claim);
    assert!((0..8).all(|prompt| world.choose(&[100 + prompt]).0 == 1));
    // Computed, it is only an answer being generated: less than a whole prompt.
    worker.prompt_done(&claim);
    world.worker(1).begin(&claim);
    assert_eq!(world.choose(&[200]).0, 0);
    worker.end(&claim, true);
    world.worker(1).end(&claim, false);
    assert_eq!(world.board().total(), 0);
}

#[test]
fn least_load_takes_turns_among_the_idle_and_counts_by_weight() {
    let mut world = World::new(3, Policy::LeastLoad);
    let mut seen = [0; 3];
    (0..30).for_each(|prompt| seen[world.choose(&[1_000 + prompt]).0 as usize] += 1);
    assert_eq!(seen, [10, 10, 10]);
    // Four times the weight: the same prompt is computed in a quarter of the time.
    let mut world = World::weighted(&[1.0, 4.0], Policy::LeastLoad);
    world.worker(1).begin(&Claim { prompt_bytes: 80_000, uncached_bytes: 80_000 });
    let blocks: Vec<u64> = (0..1_000).collect();
    world.hold(&[0], 1);
    assert_eq!(world.choose(&blocks).0, 1, "2.5 s of work ahead and 4 s of its own, against 16 s");
}

#[test]
fn least_load_weighs_what_a_worker_holds() {
    let mut world = World::new(2, Policy::LeastLoad);
    let blocks: Vec<u64> = (0..400).collect();
    world.hold(&blocks, 1);
    world.worker(1).begin(&Claim { prompt_bytes: 8_000, uncached_bytes: 8_000 });
    // A second of work ahead against six of computing the prompt.
    assert_eq!(world.choose(&blocks).0, 1);
    (0..10).for_each(|_| world.worker(1).begin(&Claim { prompt_bytes: 8_000, uncached_bytes: 8_000 }));
    assert_eq!(world.choose(&blocks).0, 0);
}

#[test]
fn bucket_goes_by_length_until_load_is_out_of_balance() {
    let mut world = World::new(3, Rules::default().policy("bucket").expect("a policy"));
    world.set_bounds(&[1_000, 10_000]);
    let choose = |world: &mut World, prompt_bytes| {
        let request = Request { prompt_bytes, ..Request::default() };
        world.choose_with(&request).map(|(worker, reason, ..)| (worker, reason))
    };
    for (prompt_bytes, worker) in [(10, 0), (1_000, 0), (1_001, 1), (10_000, 1), (10_001, 2), (1 << 20, 2)] {
        assert_eq!(choose(&mut world, prompt_bytes), Some((worker, Reason::Place)));
    }
    world.worker(2).begin(&Claim { prompt_bytes: 50_000, uncached_bytes: 0 });
    assert!(matches!(choose(&mut world, 20_000), Some((0 | 1, Reason::Spread))));
    world.set_present(0, false);
    assert!(matches!(choose(&mut world, 10), Some((1, _))), "a range whose worker is gone has another");
}
