//! What a choice leaves behind: nothing until it is committed to; and choices among those who can continue an answer.

use fleet::rules::AssignmentMode;
use fleet::rules::Manual;

use super::*;
use crate::keys::session_key;

fn keyed<'a>(blocks: &'a [u64], excluded: &'a [WorkerId]) -> Request<'a> {
    let keys = Keys { session: Some(b"s"), routing: Some(b"r"), ..Keys::default() };
    Request { keys, ..request(blocks, excluded) }
}

#[test]
fn a_choice_that_is_not_committed_to_leaves_nothing_behind() {
    let mut all = policies();
    all.push(Policy::Manual(Manual { assignment: AssignmentMode::MinGroup, ..Manual::default() }));
    for policy in all {
        let mut world = World::new(3, policy);
        let pool = Arc::clone(&world.snapshot.fleet.pools[0]);
        for _ in 0..20 {
            let choice = world.replica.propose(&world.snapshot, &pool, &keyed(&[1, 2, 3], &[]));
            assert!(choice.is_some(), "{}", policy.name());
        }
        assert!(world.snapshot.fleet.sticky.is_empty(), "{}: a key is left", policy.name());
        for index in 0..3 {
            let cells = &world.worker(index).cells;
            assert_eq!((cells.held_blocks(), cells.keys()), (0, 0), "{}", policy.name());
        }
        let found = world.replica.overlay.find(&[1, 2, 3], 0, 0, |_, _| true);
        assert_eq!(found, None, "{}: the overlay knows it", policy.name());
        assert_eq!(world.replica.turn, 0, "{}", policy.name());
        let bounds: Vec<u32> = pool.lengths.bounds(3);
        assert_eq!(bounds, fleet::lengths::LengthHistogram::default().bounds(3), "{}", policy.name());
    }
}

#[test]
fn a_choice_that_is_committed_to_is_remembered() {
    let mut world = World::new(3, Policy::CacheAware(CacheAware::default()));
    let pool = Arc::clone(&world.snapshot.fleet.pools[0]);
    let asked = keyed(&[1, 2, 3], &[]);
    let choice = world.replica.propose(&world.snapshot, &pool, &asked).expect("three");
    let chosen = choice.worker.id;
    assert!(world.replica.commit(&world.snapshot, &pool, &asked, &choice));
    let cells = &world.worker(chosen.index).cells;
    assert_eq!((cells.held_blocks(), cells.keys()), (3, 1));
    assert_eq!(world.replica.overlay.find(&[1, 2, 3], 0, 0, |_, _| true), Some((3, chosen)));
    let owner = world.snapshot.fleet.sticky.get(session_key(b"r", 0));
    assert!(owner.is_some_and(|owner| owner.is(chosen)));
}

#[test]
fn a_key_that_somebody_else_assigned_first_is_kept_to() {
    let mut world = World::new(3, Policy::Manual(Manual::default()));
    let pool = Arc::clone(&world.snapshot.fleet.pools[0]);
    let asked = keyed(&[], &[]);
    let choice = world.replica.propose(&world.snapshot, &pool, &asked).expect("three");
    let other = id((choice.worker.id.index + 1) % 3);
    world.snapshot.fleet.sticky.assign(session_key(b"r", 0), None, other, 0);
    assert!(!world.replica.commit(&world.snapshot, &pool, &asked, &choice), "it came too late");
    assert_eq!(choice.worker.cells.keys(), 0);
    let again = world.choose_with(&keyed(&[], &[])).expect("three");
    assert_eq!((again.0, again.1), (other.index, Reason::Key));
}

#[test]
fn whoever_can_continue_is_found_however_many_cannot() {
    const MEMBERS: usize = 300;
    for policy in policies() {
        let mut world = World::new(MEMBERS, policy);
        world.set_continuing(&[7, 251]);
        world.hold(&[1, 2], 3);
        world.hold(&[1, 2], 251);
        world.load(251, 2);
        for n in 0..30_u32 {
            let key = n.to_string();
            let keys = Keys { session: Some(key.as_bytes()), ..Keys::default() };
            let asked = Request { keys, must_continue: true, ..request(&[1, 2], &[]) };
            let (chosen, ..) = world.choose_with(&asked).expect("two can");
            assert!(chosen == 7 || chosen == 251, "{}: {chosen}", policy.name());
            let excluded = [id(7)];
            let (chosen, ..) =
                world.choose_with(&Request { excluded: &excluded, ..asked }).expect("one is left");
            assert_eq!(chosen, 251, "{}", policy.name());
            let excluded = [id(7), id(251)];
            assert_eq!(
                world.choose_with(&Request { excluded: &excluded, ..asked }),
                None,
                "{}",
                policy.name()
            );
        }
    }
}

#[test]
fn who_is_full_is_passed_over_by_those_who_go_by_load() {
    for name in ["cache_aware", "least_load", "power_of_two", "prefix_hash", "bucket"] {
        let policy = Rules::default().policy(name).expect("a policy's name");
        let mut world = World::new(3, policy);
        world.hold(&[1, 2], 0);
        world.board().set_full(0, true);
        world.load(1, 5);
        world.load(2, 5);
        for n in 0..30 {
            assert_ne!(world.choose(&[1, 2, n]).0, 0, "{name}");
        }
    }
}
