//! Records come out as they went in, also while they are being written.

use std::sync::Arc;

use super::*;

fn decision(number: u32) -> Decision {
    let candidates = (0..number % 9)
        .take(CANDIDATES_MAX)
        .map(|at| Candidate {
            worker: number + at,
            cost: at * 256,
            matched: at as u16,
            role: Role::ALL[at as usize % Role::ALL.len()],
            last_chosen: number,
            held_blocks: 7 * at,
            weight: 16 + at as u16,
        })
        .collect();
    Decision {
        at_us: u64::from(number),
        evidence: Evidence {
            candidates,
            blocks: number as u16,
            known: 3,
            prompt_bytes: number * 128,
            cost_max: 9,
            total: 10,
            members: 11,
        },
        worker: number,
        generation: number + 1,
        reason: Reason::ALL[number as usize % Reason::ALL.len()],
        model_hash: 5,
        policy: 2,
        attempt: 1,
        key: u64::from(number) << 33,
        hash_ns: 12,
        choose_ns: 13,
        samples: (0..number % (SAMPLES_MAX as u32 + 1)).collect(),
    }
}

#[test]
fn the_latest_come_first() {
    let ring = DecisionRing::default();
    assert!(ring.latest(10).is_empty());
    let written = DECISIONS_PER_SHARD as u32 + 50;
    (0..written).for_each(|number| ring.push(&decision(number)));
    let latest = ring.latest(usize::MAX);
    assert_eq!(latest.len(), DECISIONS_PER_SHARD);
    for (back, read) in (0..).zip(&latest) {
        assert_eq!(*read, decision(written - 1 - back));
    }
    assert_eq!(ring.latest(3).len(), 3);
}

#[test]
fn the_first_since_a_time_come_oldest_first() {
    let ring = DecisionRing::default();
    assert!(ring.since(0, 10).is_empty());
    let written = DECISIONS_PER_SHARD as u32 + 50;
    (0..written).for_each(|number| ring.push(&decision(number)));
    let times = |at_us, max| ring.since(at_us, max).iter().map(|read| read.at_us).collect::<Vec<_>>();
    assert_eq!(times(0, 3), [50, 51, 52], "the oldest there are");
    assert_eq!(times(1_000, 3), [1_000, 1_001, 1_002]);
    assert_eq!(times(u64::from(written) - 2, 3), [u64::from(written) - 2, u64::from(written) - 1]);
    assert!(times(u64::from(written), 3).is_empty());
    assert_eq!(times(0, usize::MAX).len(), DECISIONS_PER_SHARD);
}

#[test]
fn a_reader_never_sees_half_a_record() {
    let ring = Arc::new(DecisionRing::default());
    let writer = {
        let ring = Arc::clone(&ring);
        std::thread::spawn(move || (1..30_000).for_each(|number| ring.push(&decision(number))))
    };
    while !writer.is_finished() {
        for read in ring.latest(DECISIONS_PER_SHARD) {
            assert_eq!(read, decision(read.worker));
        }
    }
    writer.join().expect("the writer ends");
}

#[test]
fn samples_are_at_fixed_depths() {
    let blocks: Vec<u64> = (1..=4096).collect();
    assert_eq!(samples(&blocks).len(), SAMPLES_MAX);
    assert_eq!(samples(&blocks[..9]).to_vec(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(SAMPLE_DEPTHS.is_sorted());
}
