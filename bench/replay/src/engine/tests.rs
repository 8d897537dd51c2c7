//! Small scenarios with exact times, and many random ones with exact sums.

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

/// A millisecond per prompt token, 100 tokens a step; a step takes 1 ms and 0.1 ms per running request.
const CONFIG: EngineConfig = EngineConfig {
    cache_tokens_max: 10_000,
    prefill_tokens_per_s: 1_000.0,
    chunk_tokens: 100,
    step_us: 1_000,
    step_per_request_us: 100,
    running_max: 8,
};

/// A prompt of `prompt_tokens` in blocks of 10, whose first `shared` blocks everybody has and whose rest is `name`'s.
fn request(name: u64, shared: u64, prompt_tokens: u32, output_tokens: u32) -> TraceRequest {
    let blocks = u64::from(prompt_tokens).div_ceil(10);
    let ids = (0..blocks).map(|at| if at < shared { at } else { name << 32 | at });
    TraceRequest::from_block_ids(0, prompt_tokens, output_tokens, 10, ids)
}

/// Submits each request at its time and returns what happened when.
fn drive<'t>(engine: &mut Engine<'t>, requests: &'t [(u64, TraceRequest)]) -> Vec<(u64, Progress)> {
    let mut happened = Vec::new();
    let mut progress = Vec::new();
    let mut next = 0;
    let mut ends_us = None;
    loop {
        let arrives_us = requests.get(next).map(|(at_us, _)| *at_us);
        let is_arrival = arrives_us.is_some_and(|at_us| ends_us.is_none_or(|ends_us| at_us < ends_us));
        match (is_arrival, arrives_us, ends_us) {
            (true, Some(now_us), _) => {
                ends_us = engine.submit(next, &requests[next].1, now_us).or(ends_us);
                next += 1;
            }
            (_, _, Some(now_us)) => {
                ends_us = engine.turn(now_us, &mut progress);
                happened.extend(progress.drain(..).map(|step| (now_us, step)));
            }
            _ => return happened,
        }
    }
}

fn first_token(request: RequestIndex, cached_tokens: u32) -> Progress {
    Progress::FirstToken { request, cached_tokens }
}

fn finished(request: RequestIndex) -> Progress {
    Progress::Finished { request }
}

#[test]
fn a_prompt_is_computed_in_chunks_and_an_answer_in_steps() {
    let requests = [(0, request(1, 0, 150, 3))];
    let mut engine = Engine::new(CONFIG);
    // 1 + 100 ms, 1 + 50 ms; then two steps of 1.1 ms.
    let expect = [(152_000, first_token(0, 0)), (154_200, finished(0))];
    assert_eq!(drive(&mut engine, &requests), expect);
    assert_eq!(engine.stats().busy_us, 154_200);
}

#[test]
fn what_is_resident_is_not_computed_again() {
    let requests =
        [(0, request(1, 10, 150, 1)), (200_000, request(2, 10, 150, 1)), (300_000, request(2, 10, 150, 1))];
    let mut engine = Engine::new(CONFIG);
    let expect = [
        (152_000, first_token(0, 0)),
        (152_000, finished(0)),
        // A hundred tokens are shared.
        (251_000, first_token(1, 100)),
        (251_000, finished(1)),
        // Of a prompt that is all resident, the last token is computed.
        (302_000, first_token(2, 149)),
        (302_000, finished(2)),
    ];
    assert_eq!(drive(&mut engine, &requests), expect);
    let stats = engine.stats();
    assert_eq!((stats.requests, stats.prompt_tokens, stats.cached_tokens), (3, 450, 249));
}

#[test]
fn prompts_are_computed_in_order_and_share_a_step() {
    let requests = [(0, request(1, 0, 60, 1)), (10, request(2, 0, 30, 1)), (20, request(3, 0, 100, 1))];
    let expect = [
        (61_000, first_token(0, 0)),
        (61_000, finished(0)),
        // 30 of the second and 70 of the third fill a step.
        (162_000, first_token(1, 0)),
        (162_000, finished(1)),
        (193_000, first_token(2, 0)),
        (193_000, finished(2)),
    ];
    assert_eq!(drive(&mut Engine::new(CONFIG), &requests), expect);
}

#[test]
fn a_prompt_delays_those_who_answer() {
    let requests = [(0, request(1, 0, 10, 4)), (11_500, request(2, 0, 50, 1))];
    let expect = [
        (11_000, first_token(0, 0)),
        // The step under way ends at 12.1 ms; the next takes 1 + 0.1 + 50 ms and gives the third token.
        (63_200, first_token(1, 0)),
        (63_200, finished(1)),
        (64_300, finished(0)),
    ];
    assert_eq!(drive(&mut Engine::new(CONFIG), &requests), expect);
}

#[test]
fn an_arrival_at_the_end_of_a_step_begins_with_the_next() {
    let mut engine = Engine::new(CONFIG);
    let (long, short) = (request(1, 0, 10, 1_000), request(2, 0, 10, 1));
    let mut progress = Vec::new();
    assert_eq!(engine.submit(0, &long, 0), Some(11_000));
    // 999 steps of 1.1 ms are one run.
    assert_eq!(engine.turn(11_000, &mut progress), Some(11_000 + 999 * 1_100));
    assert_eq!(engine.submit(1, &short, 11_000 + 2 * 1_100), Some(11_000 + 2 * 1_100));
    assert_eq!(engine.turn(11_000 + 2 * 1_100, &mut progress), Some(11_000 + 2 * 1_100 + 11_100));
    // The end of the run that was cut short means nothing any more.
    assert_eq!(engine.turn(11_000 + 999 * 1_100, &mut progress), None);
    assert_eq!(progress, [first_token(0, 0)]);
}

#[test]
fn more_than_may_run_wait() {
    let requests = [(0, request(1, 0, 10, 2)), (1, request(2, 0, 10, 1)), (2, request(3, 0, 10, 1))];
    let config = EngineConfig { running_max: 1, ..CONFIG };
    let expect = [
        (11_000, first_token(0, 0)),
        (12_100, finished(0)),
        (23_100, first_token(1, 0)),
        (23_100, finished(1)),
        (34_100, first_token(2, 0)),
        (34_100, finished(2)),
    ];
    assert_eq!(drive(&mut Engine::new(config), &requests), expect);
}

#[test]
fn who_does_not_fit_waits_and_what_is_not_used_goes() {
    let requests =
        [(0, request(1, 0, 100, 100)), (1, request(2, 0, 60, 1)), (400_000, request(1, 0, 100, 1))];
    let config = EngineConfig { cache_tokens_max: 250, ..CONFIG };
    let mut engine = Engine::new(config);
    let happened = drive(&mut engine, &requests);
    // 200 tokens are the first one's until it ends; then its answer's place is free.
    let finished_us = 101_000 + 99 * 1_100;
    assert_eq!(happened[..2], [(101_000, first_token(0, 0)), (finished_us, finished(0))]);
    assert_eq!(happened[2], (finished_us + 61_000, first_token(1, 0)));
    assert_eq!(happened[4].1, first_token(2, 99));
    engine.cache.check();
    assert_eq!(engine.cache.tokens(), (160, 0, 0));
}

#[test]
fn a_request_larger_than_the_cache_is_computed_alone() {
    let requests = [(0, request(1, 0, 150, 50)), (1, request(2, 0, 20, 1)), (900_000, request(1, 0, 150, 1))];
    let config = EngineConfig { cache_tokens_max: 100, ..CONFIG };
    let mut engine = Engine::new(config);
    let happened = drive(&mut engine, &requests);
    let finished: Vec<_> =
        happened.iter().filter(|(_, step)| matches!(step, Progress::Finished { .. })).collect();
    assert_eq!(finished.len(), 3);
    engine.cache.check();
    assert!(engine.cache.tokens().0 <= 100);
}

#[test]
fn the_least_recently_used_prefix_goes_first_and_from_its_end() {
    let prompts = [request(1, 0, 40, 1), request(2, 0, 40, 1), request(3, 0, 40, 1)];
    let at = |at_us, prompt: usize| (at_us, prompts[prompt].clone());
    let requests = [at(0, 0), at(100_000, 1), at(200_000, 0), at(300_000, 2)];
    let mut engine = Engine::new(EngineConfig { cache_tokens_max: 101, ..CONFIG });
    drive(&mut engine, &requests);
    // The second one lost its last blocks to the third, the first was used again and stays.
    assert_eq!(prompts.iter().map(|prompt| engine.known_tokens(prompt)).collect::<Vec<_>>(), [39, 20, 39]);
    engine.cache.check();
}

#[test]
fn what_is_promised_is_known() {
    let mut engine = Engine::new(CONFIG);
    let (first, second) = (request(1, 10, 150, 1), request(2, 10, 120, 1));
    engine.submit(0, &first, 0);
    assert_eq!((engine.known_tokens(&second), engine.backlog_tokens()), (100, 150));
    engine.submit(1, &second, 0);
    assert_eq!((engine.in_flight(), engine.backlog_tokens()), (2, 170));
}

#[test]
fn whatever_comes_everything_is_given_back() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let config = EngineConfig {
            cache_tokens_max: random.random_range(1..2_000),
            chunk_tokens: random.random_range(1..200),
            running_max: random.random_range(1..6),
            ..CONFIG
        };
        let mut at_us = 0;
        let requests: Vec<(u64, TraceRequest)> = (0..60)
            .map(|_| {
                at_us += random.random_range(0..200_000);
                let (name, shared) = (random.random_range(0..5), random.random_range(0..20));
                (at_us, request(name, shared, random.random_range(1..300), random.random_range(1..40)))
            })
            .collect();
        let mut engine = Engine::new(config);
        let happened = drive(&mut engine, &requests);
        for index in 0..requests.len() {
            let first = happened.iter().position(
                |(_, step)| matches!(step, Progress::FirstToken { request, .. } if *request == index),
            );
            let mut last = happened.iter().enumerate().filter(|(_, (_, step))| *step == finished(index));
            let (first, (last, _)) = (first.expect("a first token"), last.next().expect("an end"));
            assert!(first < last && happened.len() == 2 * requests.len(), "seed {seed}");
        }
        engine.cache.check();
        let (resident, pinned, reserved) = engine.cache.tokens();
        assert!(resident <= config.cache_tokens_max, "seed {seed}");
        assert_eq!((pinned, reserved, engine.in_flight()), (0, 0, 0), "seed {seed}");
        assert_eq!((engine.backlog_tokens(), engine.promised.len()), (0, 0), "seed {seed}");
    }
}
