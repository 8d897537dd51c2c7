//! cache_aware and prefixaware: prefixes, sessions and the bounds on following them.

use fleet::rules::PrefixAware;

use super::*;

fn cache_aware() -> Policy {
    Policy::CacheAware(CacheAware::default())
}

#[test]
fn unknown_prompts_spread_evenly_over_idle_workers() {
    let mut world = World::new(3, cache_aware());
    let mut seen = [0; 3];
    for prompt in 0..30 {
        seen[world.choose(&[1000 + prompt]).0 as usize] += 1;
    }
    assert_eq!(seen, [10, 10, 10]);
}

#[test]
fn a_new_prompt_goes_where_there_is_room_among_the_light() {
    let mut world = World::new(3, cache_aware());
    world.worker(0).cells.set_held_blocks(10_000);
    world.worker(1).cells.set_held_blocks(2_000);
    world.worker(2).cells.set_held_blocks(1_900);
    world.load(1, 1);
    world.load(2, 2);
    assert_eq!(world.choose(&[50]).0, 1, "about as little in its cache as 2, which is not light");
    world.worker(1).cells.set_held_blocks(9_500);
    assert_eq!(world.choose(&[51]).0, 0, "full like 1, and lighter");
}

#[test]
fn the_holder_of_the_prefix_wins_above_the_threshold_only() {
    let mut world = World::new(3, cache_aware());
    world.hold(&[1, 2, 3, 4], 2);
    let (worker, reason, matched, is_news) = world.choose(&[1, 2, 3, 4]);
    assert_eq!((worker, reason, matched, is_news), (2, Reason::Prefix, 4, false));
    let (_, reason, ..) = world.choose(&[1, 20, 30, 40, 50]);
    assert_eq!(reason, Reason::LeastLoad);
}

#[test]
fn a_use_by_a_clock_that_is_ahead_is_no_news() {
    let mut world = World::new(2, cache_aware());
    world.hold_at(&[1, 2], 1, 26);
    let at = |world: &mut World, tick| {
        let (worker, _, _, is_news) =
            world.choose_with(&Request { tick, ..request(&[1, 2], &[]) }).expect("two");
        (worker, is_news)
    };
    assert_eq!(at(&mut world, 25), (1, false));
    assert_eq!(at(&mut world, 34), (1, true), "and a use long ago is");
}

#[test]
fn the_lightest_of_all_holders_wins() {
    let mut world = World::new(3, cache_aware());
    world.hold(&[1, 2], 0);
    world.hold(&[1, 2], 1);
    world.load(0, 3);
    assert_eq!(world.choose(&[1, 2]).0, 1);
}

#[test]
fn load_out_of_balance_beats_affinity() {
    let mut world = World::new(2, unbounded());
    world.hold(&[1, 2], 0);
    world.load(0, 64);
    assert_eq!(world.choose(&[1, 2]).1, Reason::Prefix, "64 is not more than 64");
    world.load(0, 1);
    let (worker, reason, ..) = world.choose(&[1, 2]);
    assert_eq!((worker, reason), (1, Reason::Spread));
}

#[test]
fn out_of_balance_still_prefers_a_light_holder() {
    let mut world = World::new(3, unbounded());
    world.hold(&[1, 2], 0);
    world.hold(&[1, 2], 2);
    world.load(0, 100);
    world.load(2, 5);
    let (worker, reason, matched, _) = world.choose(&[1, 2]);
    assert_eq!((worker, reason, matched), (2, Reason::Prefix, 2));
}

#[test]
fn a_holder_of_less_is_better_than_nobody() {
    let mut world = World::new(3, unbounded());
    world.hold(&[1, 2, 3, 4], 0);
    world.hold(&[1, 2, 3], 2);
    world.load(0, 100);
    world.load(2, 5);
    let (worker, reason, matched, is_news) = world.choose(&[1, 2, 3, 4]);
    assert_eq!((worker, reason, matched, is_news), (2, Reason::Spread, 3, true));
}

/// Whatever the order of requests, no worker ever has more in flight than the factor allows over the average.
#[test]
fn a_hot_prefix_spreads_as_far_as_its_load_needs() {
    for (workers, factor) in [(2, 1.25), (4, 1.5), (8, 2.0)] {
        let config = CacheAware { affinity_load_factor: factor, ..CacheAware::default() };
        let mut world = World::new(workers, Policy::CacheAware(config));
        for n in 1..=200_u32 {
            let blocks = if n % 4 == 0 { [1, 2, u64::from(n)] } else { [u64::from(n), 2, 3] };
            let (worker, ..) = world.choose(&blocks);
            world.hold(&blocks, worker);
            world.load(worker, 1);
            let most = (0..workers as u32).map(|index| world.worker(index).cells.load()).max().unwrap_or(0);
            let bound = (f64::from(factor) * f64::from(n) / workers as f64).ceil() as u32;
            assert!(
                most <= bound.max(2),
                "{most} of {n} in flight on one of {workers} workers, bound {bound}"
            );
        }
    }
}

#[test]
fn a_long_prefix_is_worth_a_short_wait() {
    let mut world = World::new(10, cache_aware());
    let blocks: Vec<u64> = (0..1024).collect();
    world.hold(&blocks, 3);
    world.load(3, 6);
    assert_eq!(world.choose(&blocks).0, 3, "128 KiB against six requests in front");
    world.hold(&[7, 8, 9], 3);
    assert_ne!(world.choose(&[7, 8, 9]).0, 3, "a short prompt is computed elsewhere");
    world.load(3, 3);
    assert_ne!(world.choose(&blocks).0, 3);
}

#[test]
fn a_prefix_in_use_by_many_goes_to_a_lighter_worker_now_and_then() {
    let blocks: Vec<u64> = (0..1024).collect();
    let spreads = |tick| {
        let mut world = World::new(4, cache_aware());
        world.hold(&blocks, 3);
        world.load(3, 3);
        let request = Request { tick, ..request(&blocks, &[]) };
        let workers: Vec<u32> =
            (0..16).filter_map(|_| world.choose_with(&request)).map(|chosen| chosen.0).collect();
        workers.iter().filter(|&&worker| worker != 3).count()
    };
    assert_eq!(spreads(0), 1, "used this second");
    assert_eq!(spreads(1), 0, "not used since the last second");
}

#[test]
fn a_use_is_told_again_after_a_while() {
    let mut world = World::new(2, cache_aware());
    world.hold(&[1, 2, 3], 0);
    let is_news = |world: &mut World, tick| {
        world.choose_with(&Request { tick, ..request(&[1, 2, 3], &[]) }).map(|chosen| chosen.3)
    };
    assert_eq!(is_news(&mut world, 7), Some(false));
    assert_eq!(is_news(&mut world, 8), Some(true));
}

/// A repeated prompt costs no report, whichever way its worker was found.
#[test]
fn a_session_that_repeats_its_prompt_is_no_news() {
    let mut world = World::new(2, cache_aware());
    let keys = Keys { session: Some(b"s"), ..Keys::default() };
    let first = world.choose_with(&Request { keys, ..request(&[1, 2, 3], &[]) }).expect("a worker");
    assert!(first.3);
    world.hold(&[1, 2, 3], first.0);
    let again = world.choose_with(&Request { keys, ..request(&[1, 2, 3], &[]) }).expect("a worker");
    assert_eq!((again.0, again.3), (first.0, false));
}

#[test]
fn a_loaded_fleet_is_balanced_by_ratio() {
    let mut world = World::new(2, unbounded());
    world.hold(&[1, 2], 0);
    world.load(1, 200);
    world.load(0, 300);
    assert_eq!(world.choose(&[1, 2]).0, 0, "300 is not more than 1.5 times 200");
    world.load(0, 1);
    assert_eq!(world.choose(&[1, 2]).0, 1);
}

#[test]
fn a_worker_that_lost_its_cache_is_not_chosen_for_what_was_placed_before() {
    let mut world = World::new(4, cache_aware());
    let (first, ..) = world.choose(&[1, 2, 3]);
    world.worker(first).cells.lose_blocks();
    assert_eq!(world.choose(&[1, 2, 3]).1, Reason::LeastLoad);
}

#[test]
fn the_second_request_sticks_before_the_tree_is_published() {
    let mut world = World::new(4, cache_aware());
    let (first, ..) = world.choose(&[1, 2, 3]);
    let (second, reason, matched, _) = world.choose(&[1, 2, 3, 4]);
    assert_eq!((second, reason, matched), (first, Reason::Prefix, 3));
}

#[test]
fn a_worker_that_failed_is_not_chosen_for_what_it_holds() {
    let mut world = World::new(2, cache_aware());
    world.hold(&[1, 2], 0);
    let excluded = [id(0)];
    let (worker, _, matched, is_news) = world.choose_with(&request(&[1, 2], &excluded)).expect("one");
    assert_eq!((worker, matched, is_news), (1, 0, true));
}

#[test]
fn the_threshold_is_a_share_of_bytes_not_of_blocks() {
    let mut world = World::new(2, cache_aware());
    // 128 of 640 bytes, in 3 of 7 blocks: a fifth, which is not above 0.3.
    world.hold(&[1, 2, 3], 1);
    let blocks = [1, 2, 3, 40, 50, 60, 70];
    let short = Request { prompt_bytes: 640, ..request(&blocks, &[]) };
    let (_, reason, ..) = world.choose_with(&short).expect("a worker");
    assert_eq!(reason, Reason::LeastLoad);
}

#[test]
fn a_session_keeps_its_worker_where_no_prefix_is_known() {
    let mut world = World::new(8, cache_aware());
    let keys = Keys { session: Some(b"s1"), ..Keys::default() };
    let ask = |world: &mut World, prompt: u64| {
        let blocks = [prompt];
        world.choose_with(&Request { keys, ..request(&blocks, &[]) }).expect("a worker")
    };
    let (first, reason, ..) = ask(&mut world, 1);
    assert_eq!(reason, Reason::LeastLoad);
    for prompt in 2..20 {
        let (worker, reason, ..) = ask(&mut world, prompt);
        assert_eq!((worker, reason), (first, Reason::Key));
    }
    // Another shard knows at once.
    let mut other = world.shard(9);
    assert_eq!(ask(&mut other, 99).0, first);
    // A loaded worker loses its session to another, which keeps it.
    world.load(first, 40);
    let (second, ..) = ask(&mut world, 30);
    assert_ne!(second, first);
    assert_eq!(ask(&mut world, 31).0, second);
}

#[test]
fn a_known_prefix_goes_before_a_session() {
    let mut world = World::new(4, cache_aware());
    let keys = Keys { session: Some(b"s1"), ..Keys::default() };
    let first = world.choose_with(&Request { keys, ..request(&[1], &[]) }).expect("a worker").0;
    let holder = (first + 1) % 4;
    world.hold(&[5, 6, 7], holder);
    let (worker, reason, ..) = world.choose_with(&Request { keys, ..request(&[5, 6, 7], &[]) }).expect("one");
    assert_eq!((worker, reason), (holder, Reason::Prefix));
}

#[test]
fn who_continues_an_answer_goes_where_it_is_whatever_the_load() {
    let mut world = World::new(4, cache_aware());
    let key = answer_key(b"resp_1", 0);
    world.snapshot.fleet.sticky.assign(key, None, id(2), 0);
    world.load(2, 500);
    let keys = Keys { previous_answer: Some(b"resp_1"), ..Keys::default() };
    let (worker, reason, ..) = world.choose_with(&Request { keys, ..request(&[1], &[]) }).expect("one");
    assert_eq!((worker, reason), (2, Reason::Pinned));
    world.replace(2);
    let (_, reason, ..) = world.choose_with(&Request { keys, ..request(&[1], &[]) }).expect("one");
    assert_eq!(reason, Reason::LeastLoad, "a new registration does not have the answer");
}

#[test]
fn prefixaware_draws_among_holders_and_falls_back_below_its_length() {
    let mut world = World::new(4, Policy::PrefixAware(PrefixAware { match_bytes_min: 256 }));
    world.hold(&[1, 2, 3, 4], 1);
    world.hold(&[1, 2, 3, 4], 2);
    let mut seen = [0; 4];
    for _ in 0..100 {
        let (worker, reason, ..) = world.choose(&[1, 2, 3, 4]);
        assert_eq!(reason, Reason::Prefix);
        seen[worker as usize] += 1;
    }
    assert!(seen[0] == 0 && seen[3] == 0 && seen[1] > 20 && seen[2] > 20, "{seen:?}");
    // 128 bytes match, 256 are asked for.
    assert_eq!(world.choose(&[1, 2, 3, 40]).1, Reason::LeastLoad);
}

/// A prompt that thousands hold costs no more to route than one that few do.
#[test]
fn many_holders_are_sampled_and_the_choice_is_still_light() {
    let mut world = World::new(1_000, cache_aware());
    (0..1_000).for_each(|worker| world.hold(&[1, 2, 3], worker));
    (0..1_000).filter(|worker| worker % 10 != 0).for_each(|worker| world.load(worker, 60));
    for _ in 0..50 {
        let (worker, ..) = world.choose(&[1, 2, 3]);
        assert!(world.worker(worker).cells.load() == 0, "{worker}");
    }
}
