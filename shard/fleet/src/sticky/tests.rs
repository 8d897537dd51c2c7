//! Keys keep their workers, also when several shards meet them at once.

use std::sync::Arc;
use std::sync::Barrier;

use super::*;

const A: WorkerId = WorkerId { index: 0, generation: 1 };
const B: WorkerId = WorkerId { index: 1, generation: 2 };

fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn the_first_assignment_stays() {
    let table = StickyTable::default();
    assert_eq!(table.get(7), None);
    assert!(table.assign(7, None, A, 0).is(A));
    assert!(table.assign(7, None, B, 0).is(A));
    let owner = table.get(7).expect("assigned");
    assert!(table.assign(7, Some(owner), B, 3).is(B));
    assert!(table.assign(7, Some(owner), A, 4).is(B), "what was expected is out of date");
}

#[test]
fn a_use_is_noted() {
    let table = StickyTable::default();
    let owner = table.assign(9, None, A, 10);
    assert_eq!(owner.idle_s(25), 15);
    table.touch(9, owner, 25);
    assert_eq!(table.get(9).map(|owner| owner.idle_s(25)), Some(0));
}

#[test]
fn a_clock_that_is_behind_sees_a_use_of_now() {
    let table = StickyTable::default();
    let owner = table.assign(9, None, A, 101);
    assert_eq!((owner.idle_s(100), owner.idle_s(101), owner.idle_s(102)), (0, 0, 1));
}

/// More keys than a set has slots, over several threads: whoever is told that it has a key has it, or lost it to a key
/// used later; nobody's worker ever stands under another's key.
#[test]
fn keys_that_push_each_other_out_never_mix() {
    let table = Arc::new(StickyTable::default());
    let sets = (CHUNK_SETS * CHUNKS) as u64;
    let key = move |n: u64| (n << 40) + 7 + n * sets;
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let table = Arc::clone(&table);
            std::thread::spawn(move || {
                for round in 0..40_000 {
                    let n = 1 + (round * 7 + writer * 5) % 24;
                    // The worker of a key is known from the key.
                    let worker = WorkerId { index: n as u32, generation: 1 };
                    let owner = table.assign(key(n), table.get(key(n)), worker, (round / 64) as u32);
                    assert_eq!(u64::from(owner.index), n);
                    assert!(table.get(key(n)).is_none_or(|owner| u64::from(owner.index) == n));
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
}

#[test]
fn a_use_by_a_clock_that_is_ahead_is_a_use_now() {
    let table = StickyTable::default();
    let owner = table.assign(9, None, A, 26);
    assert_eq!(owner.idle_s(25), 0);
    table.touch(9, owner, 25);
    assert_eq!(table.get(9), Some(owner), "time does not go back");
    // The counter of seconds goes round after half a year.
    let last = table.assign(8, None, A, (1 << TICK_BITS) - 1);
    assert_eq!((last.idle_s(1 << TICK_BITS), last.idle_s((1 << TICK_BITS) + 100)), (1, 101));
}

#[test]
fn a_new_registration_is_somebody_else() {
    let table = StickyTable::default();
    let owner = table.assign(7, None, A, 0);
    assert!(!owner.is(WorkerId { generation: 9, ..A }));
}

#[test]
fn a_full_set_gives_up_its_least_recently_used_key() {
    let table = StickyTable::default();
    let sets = (CHUNK_SETS * CHUNKS) as u64;
    let key = |n: u64| (n << 40) + 5 + n * sets;
    for n in 1..=SET as u64 {
        table.assign(key(n), None, A, n as u32);
    }
    table.assign(key(100), None, B, 50);
    assert_eq!(table.get(key(1)), None);
    assert!(table.get(key(2)).is_some() && table.get(key(100)).is_some_and(|owner| owner.is(B)));
}

#[test]
fn a_sweep_takes_what_it_is_told_to() {
    let table = StickyTable::default();
    (1..=100u64).for_each(|key| {
        table.assign(key, None, A, key as u32);
    });
    assert_eq!(table.sweep(|_, owner| owner.tick <= 40), 40);
    assert_eq!(table.len(), 60);
    assert_eq!(table.get(40), None);
    assert!(table.assign(40, None, B, 41).is(B));
}

#[test]
fn shards_that_race_agree() {
    let table = Arc::new(StickyTable::default());
    let barrier = Arc::new(Barrier::new(4));
    let racers: Vec<_> = (0..4)
        .map(|racer| {
            let (table, barrier) = (Arc::clone(&table), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                let own = WorkerId { index: racer, generation: racer + 1 };
                (1..=5_000u64).map(|key| table.assign(spread(key), None, own, 0).index).collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("a racer ends")).collect();
    for (at, key) in (1..=5_000u64).enumerate() {
        let owner = table.get(spread(key)).expect("assigned");
        // Everybody was told the same worker, and it is the one that stayed.
        assert!(answers.iter().all(|answers| answers[at] == owner.index));
    }
}
