//! The board against a naive model, alone and with several writers at once.

use std::sync::Arc;

use super::*;

/// A small generator of its own, so that a seed means the same for ever (splitmix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn board_of(workers: u32) -> Board {
    let board = Board::new(Unit::Requests);
    (0..workers).for_each(|index| board.set_present(index, true));
    board
}

#[test]
fn equals_take_turns() {
    let board = board_of(3);
    let mut chosen = Vec::new();
    for _ in 0..7 {
        let least = board.least(&[]).expect("somebody is present");
        assert_eq!(board.least(&[]), Some(least), "a look is no turn");
        board.take_turn(least.index);
        chosen.push(least.index);
    }
    assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn equals_take_turns_also_beside_an_excluded_one() {
    let board = board_of(5);
    let mut chosen = Vec::new();
    for _ in 0..8 {
        let least = board.least(&[0]).expect("four are left");
        board.take_turn(least.index);
        chosen.push(least.index);
    }
    assert_eq!(chosen, [1, 2, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn nobody_present_is_nobody_chosen() {
    let board = Board::new(Unit::Requests);
    assert_eq!(board.least(&[]), None);
    board.set_present(70, true);
    assert_eq!(board.least(&[]), Some(Least { index: 70, cost: 0 }));
    assert_eq!(board.least(&[70]), None);
    board.set_present(70, false);
    assert_eq!(board.least(&[]), None);
    assert_eq!((board.cost(70), board.present()), (None, 0));
}

#[test]
fn what_is_added_while_absent_is_still_there_afterwards() {
    let board = board_of(2);
    board.add(0, 5);
    board.set_present(0, false);
    assert_eq!(board.least(&[]).map(|least| least.index), Some(1));
    board.set_present(0, true);
    assert_eq!(board.cost(0), Some(5));
    board.sub(0, 5);
    assert_eq!((board.cost(0), board.total()), (Some(0), 0));
}

#[test]
fn an_arrival_is_one_that_was_not_there() {
    let board = board_of(2);
    assert_eq!(board.arrivals(), 2);
    board.set_present(1, true);
    board.set_present(0, false);
    assert_eq!(board.arrivals(), 2);
    board.set_present(0, true);
    assert_eq!(board.arrivals(), 3);
}

#[test]
fn who_is_full_is_chosen_when_all_are() {
    let board = board_of(3);
    board.set_full(0, true);
    (1..3).for_each(|index| board.add(index, 1_000_000));
    let least = |excluded: &[u32]| board.least(excluded).map(|least| least.index);
    assert_eq!((least(&[]), least(&[1])), (Some(1), Some(2)));
    assert_eq!(least(&[1, 2]), Some(0));
    (1..3).for_each(|index| board.set_full(index, true));
    assert_eq!(least(&[]), Some(0));
    board.add(0, 5);
    assert_eq!((board.cost(0), board.total()), (Some(FULL + 5), 2_000_005), "a mark is no load");
    board.set_present(0, false);
    board.set_full(0, false);
    assert_eq!(board.cost(0), None, "it is not there");
    board.set_present(0, true);
    assert_eq!(board.cost(0), Some(5));
    (1..3).for_each(|index| board.set_full(index, true));
    (1..3).for_each(|index| board.set_full(index, false));
    assert_eq!(board.cost(2), Some(1_000_000), "marked twice, let off once");
}

/// What a board should say, kept the slow way.
fn naive_least(costs: &[Option<u32>], excluded: &[u32]) -> Option<u32> {
    let allowed = |&(index, _): &(usize, &Option<u32>)| !excluded.contains(&(index as u32));
    costs.iter().enumerate().filter(allowed).filter_map(|(_, cost)| *cost).min()
}

#[test]
fn agrees_with_a_plain_list() {
    for seed in 0..64 {
        let mut draws = Draws(seed);
        let spread = [1, 37, 257, 4_099][seed as usize % 4];
        let workers = 1 + draws.below(40) as usize;
        let index_of = |at: usize| (at as u32 * spread) % WORKERS_MAX;
        let board = Board::new(Unit::Requests);
        let mut costs = vec![None; workers];
        let mut held = vec![Vec::new(); workers];
        for _ in 0..600 {
            let at = draws.below(workers as u64) as usize;
            match draws.below(5) {
                0 => {
                    let is_present = draws.below(3) > 0;
                    board.set_present(index_of(at), is_present);
                    let sum: u32 = held[at].iter().sum();
                    costs[at] = is_present.then_some(sum);
                }
                1 | 2 if costs[at].is_some() => {
                    let added = draws.below(1_000) as u32;
                    board.add(index_of(at), added);
                    held[at].push(added);
                    costs[at] = costs[at].map(|cost| cost + added);
                }
                _ => {
                    if let Some(cost) = held[at].pop() {
                        board.sub(index_of(at), cost);
                        costs[at] = costs[at].map(|sum| sum - cost);
                    }
                }
            }
            let excluded: Vec<u32> =
                (0..draws.below(4)).map(|_| index_of(draws.below(workers as u64) as usize)).collect();
            let excluded_at: Vec<u32> =
                (0..workers).filter(|&at| excluded.contains(&index_of(at))).map(|at| at as u32).collect();
            let least = board.least(&excluded);
            assert_eq!(least.map(|least| least.cost), naive_least(&costs, &excluded_at), "seed {seed}");
            if let Some(least) = least {
                assert_eq!(board.cost(least.index), Some(least.cost), "seed {seed}");
                assert!(!excluded.contains(&least.index));
            }
            let present = costs.iter().flatten().count() as u32;
            assert_eq!(board.present(), present, "seed {seed}");
        }
    }
}

#[test]
fn minima_are_right_once_all_writers_rest() {
    for seed in 0..16 {
        let board = Arc::new(board_of(600));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let board = Arc::clone(&board);
                std::thread::spawn(move || {
                    let mut draws = Draws(seed * 100 + writer);
                    let mut held = Vec::new();
                    for _ in 0..4_000 {
                        if draws.below(2) == 0 {
                            let (index, cost) = (draws.below(600) as u32, 1 + draws.below(9) as u32);
                            board.add(index, cost);
                            held.push((index, cost));
                        } else if let Some((index, cost)) = held.pop() {
                            board.sub(index, cost);
                        }
                        assert!(board.least(&[]).is_some());
                    }
                    held
                })
            })
            .collect();
        let mut sums = vec![0; 600];
        for writer in writers {
            for (index, cost) in writer.join().expect("a writer ends") {
                sums[index as usize] += cost;
            }
        }
        let least = board.least(&[]).expect("all are present");
        assert_eq!(Some(&least.cost), sums.iter().min(), "seed {seed}");
        assert_eq!(board.total(), sums.iter().map(|&sum| u64::from(sum)).sum::<u64>());
        assert!((0..600).all(|index| board.cost(index) == Some(sums[index as usize])));
    }
}
