//! Policies by a key: rings, sessions, and keys that are assigned once.

use std::collections::HashMap;

use fleet::rules::AssignmentMode;
use fleet::rules::Manual;
use fleet::rules::PrefixHash;

use super::*;
use crate::keys::session_key;

fn manual(assignment: AssignmentMode) -> Policy {
    Policy::Manual(Manual { assignment, max_idle_s: 100 })
}

fn routed(key: &[u8]) -> Request<'_> {
    Request { keys: Keys { routing: Some(key), ..Keys::default() }, ..Request::default() }
}

#[test]
fn a_key_is_assigned_once_over_all_shards() {
    for assignment in [AssignmentMode::Random, AssignmentMode::MinLoad, AssignmentMode::MinGroup] {
        let mut world = World::new(5, manual(assignment));
        let mut other = world.shard(99);
        for n in 0..200_u32 {
            let key = n.to_be_bytes();
            let (first, reason, ..) = world.choose_with(&routed(&key)).expect("a worker");
            assert_eq!(reason, Reason::Assigned);
            world.load(first, 7);
            let (second, reason, ..) = other.choose_with(&routed(&key)).expect("a worker");
            assert_eq!((second, reason), (first, Reason::Key));
        }
    }
}

#[test]
fn min_group_gives_every_worker_as_many_keys() {
    let mut world = World::new(5, manual(AssignmentMode::MinGroup));
    (0..100_u32).for_each(|n| assert!(world.choose_with(&routed(&n.to_be_bytes())).is_some()));
    assert!((0..5).all(|worker| world.worker(worker).cells.keys() == 20));
}

#[test]
fn min_load_gives_a_key_to_the_lightest() {
    let mut world = World::new(3, manual(AssignmentMode::MinLoad));
    world.load(0, 2);
    world.load(2, 1);
    assert_eq!(world.choose_with(&routed(b"a")).expect("a worker").0, 1);
}

#[test]
fn a_key_that_was_idle_too_long_is_assigned_anew() {
    let mut world = World::new(2, manual(AssignmentMode::MinLoad));
    let first = world.choose_with(&routed(b"a")).expect("a worker").0;
    world.load(first, 5);
    let at = |tick| Request { tick, ..routed(b"a") };
    assert_eq!(world.choose_with(&at(100)).expect("a worker").0, first);
    assert_eq!(world.choose_with(&at(200)).expect("a worker").0, first, "its use counted");
    let (second, reason, ..) = world.choose_with(&at(301)).expect("a worker");
    assert_eq!((second, reason), (1 - first, Reason::Assigned));
}

#[test]
fn a_shard_whose_clock_is_behind_does_not_take_a_key_for_idle() {
    let mut world = World::new(4, manual(AssignmentMode::Random));
    let mut behind = world.shard(3);
    for n in 0..100_u32 {
        let key = n.to_be_bytes();
        let at = |tick| Request { tick, ..routed(&key) };
        let (first, ..) = world.choose_with(&at(100)).expect("a worker");
        assert_eq!(world.choose_with(&at(101)).expect("a worker").0, first);
        assert_eq!(behind.choose_with(&at(100)).expect("a worker").0, first);
    }
}

/// Each shard assigns as fast as it can; whoever was told a worker for a key is told the same ever after.
#[test]
fn shards_that_meet_new_keys_at_once_agree() {
    let mut world = World::new(8, manual(AssignmentMode::Random));
    let shards = [world.shard(1), world.shard(2)];
    let told: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let running: Vec<_> = shards
            .into_iter()
            .map(|mut shard| {
                scope.spawn(move || {
                    let ask = |n: u32| shard.choose_with(&routed(&n.to_be_bytes())).map(|chosen| chosen.0);
                    (0..50_000).filter_map(ask).collect()
                })
            })
            .collect();
        running.into_iter().map(|shard| shard.join().expect("a shard ends")).collect()
    });
    let split = told[0].iter().zip(&told[1]).filter(|(a, b)| a != b).count();
    assert_eq!(split, 0, "keys with two workers");
}

#[test]
fn a_key_moves_when_its_worker_cannot_be_chosen() {
    let mut world = World::new(3, manual(AssignmentMode::Random));
    let first = world.choose_with(&routed(b"a")).expect("a worker").0;
    world.set_present(first, false);
    let second = world.choose_with(&routed(b"a")).expect("a worker").0;
    assert_ne!(second, first);
    world.set_present(first, true);
    assert_eq!(world.choose_with(&routed(b"a")).expect("a worker").0, second, "and stays where it went");
    world.replace(second);
    assert!(matches!(world.choose_with(&routed(b"a")), Some((_, Reason::Assigned, ..))));
}

#[test]
fn a_shard_takes_no_key_from_a_worker_it_does_not_know_yet() {
    let mut world = World::new(3, manual(AssignmentMode::MinLoad));
    let newcomer = WorkerId { index: 3, generation: 77 };
    // Another shard has a later snapshot.
    let key = session_key(b"a", 0);
    world.snapshot.fleet.sticky.assign(key, None, newcomer, 0);
    world.set_present(3, true);
    let (worker, reason, ..) = world.choose_with(&routed(b"a")).expect("a worker");
    assert!(worker < 3 && reason == Reason::LeastLoad);
    assert!(world.snapshot.fleet.sticky.get(key).is_some_and(|owner| owner.is(newcomer)));
}

#[test]
fn without_a_key_manual_assigns_and_keeps_nothing() {
    let mut world = World::new(3, manual(AssignmentMode::MinLoad));
    let workers: Vec<u32> = (0..6).map(|_| world.choose(&[]).0).collect();
    assert_eq!(workers, [0, 1, 2, 0, 1, 2]);
    assert!(world.snapshot.fleet.sticky.is_empty());
}

#[test]
fn consistent_hashing_follows_its_order_of_keys() {
    let mut world = World::new(6, Policy::ConsistentHashing);
    let by = |world: &mut World, keys: Keys<'_>| {
        world
            .choose_with(&Request { keys, ..Request::default() })
            .map(|(worker, reason, ..)| (worker, reason))
    };
    let none = Keys::default();
    let target = |target| Keys { target: Some(target), routing: Some(b"r"), ..none };
    assert_eq!(by(&mut world, target(b"4")), Some((4, Reason::Pinned)));
    for bad in [&b"6"[..], b"-1", b"x", b""] {
        assert_eq!(by(&mut world, target(bad)), None, "a target that is none gets no other worker");
    }
    let routing = by(&mut world, Keys { routing: Some(b"r"), ..none });
    assert_eq!(routing, by(&mut world, Keys { routing: Some(b"r"), session: Some(b"s"), ..none }));
    let session = by(&mut world, Keys { session: Some(b"s"), ..none });
    assert_eq!(session, by(&mut world, Keys { session: Some(b"s"), identity: Some(b"i"), ..none }));
    assert!(matches!(by(&mut world, Keys { identity: Some(b"i"), ..none }), Some((_, Reason::Place))));
    assert!(matches!(by(&mut world, none), Some((_, Reason::Chance))));
    world.set_present(4, false);
    assert_eq!(by(&mut world, target(b"4")), None);
}

#[test]
fn a_ring_moves_only_the_keys_of_who_left() {
    let mut world = World::new(6, Policy::ConsistentHashing);
    let place = |world: &mut World| -> HashMap<u32, u32> {
        (0..300_u32).filter_map(|n| Some((n, world.choose_with(&routed(&n.to_be_bytes()))?.0))).collect()
    };
    let before = place(&mut world);
    world.set_present(2, false);
    let after = place(&mut world);
    assert!(before.iter().all(|(key, worker)| *worker == 2 || after[key] == *worker));
    assert!(after.values().all(|&worker| worker != 2));
}

#[test]
fn prefix_hash_goes_by_the_beginning_within_its_bound() {
    let mut world = World::new(4, Policy::PrefixHash(PrefixHash { prefix_bytes: 128, load_factor: 1.25 }));
    let (first, reason, ..) = world.choose(&[1, 2, 3, 4, 5]);
    assert_eq!(reason, Reason::Place);
    assert_eq!(world.choose(&[1, 2, 3, 40, 50]).0, first, "what comes after the beginning does not count");
    for n in 1..=100_u64 {
        let (worker, ..) = world.choose(&[1, 2, 3, n]);
        world.load(worker, 1);
        let most = (0..4).map(|worker| world.worker(worker).cells.load()).max().unwrap_or(0);
        assert!(f64::from(most) <= (1.25 * n as f64 / 4.0).ceil(), "{most} of {n}");
    }
}

#[test]
fn sessions_without_a_key_go_to_the_lightest() {
    let mut world = World::new(2, Policy::Session);
    world.load(0, 1);
    assert!(matches!(world.choose(&[]), (1, Reason::LeastLoad, ..)));
    let keys = Keys { session: Some(b""), ..Keys::default() };
    let empty = world.choose_with(&Request { keys, ..Request::default() }).expect("a worker");
    assert_eq!(empty.1, Reason::Place, "an empty key is a key");
}
