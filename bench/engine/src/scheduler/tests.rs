//! Who is computed when, and what is found in the cache.

use super::*;

fn config() -> EngineConfig {
    EngineConfig {
        cache_blocks_max: 100,
        block_tokens: 4,
        prefill_tokens_per_s: 1_000.0,
        base_ttft: Duration::from_millis(5),
        decode_tokens_per_s: 100.0,
        concurrency_max: 2,
        queue_max: 2,
        context_tokens_max: 64,
        ..EngineConfig::default()
    }
}

fn ask(tokens: std::ops::Range<u32>) -> Submission {
    Submission { prompt: tokens.collect(), answer_tokens: 4, slow_factor: 1.0 }
}

fn start() -> Instant {
    crate::clock::now()
}

#[test]
fn the_first_token_waits_for_the_uncached_tokens() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let (id, admission) = scheduler.submit(ask(0..20), now).expect("room");
    let admission = admission.expect("a place");
    assert_eq!(admission.first_token_at, now + Duration::from_millis(25));
    assert_eq!(admission.token_interval, Duration::from_millis(10));
    scheduler.first_token(id);
    scheduler.finish(id, &[], now);

    let (_, admission) = scheduler.submit(ask(0..20), now).expect("room");
    let admission = admission.expect("a place");
    assert_eq!(admission.cached_tokens, 16, "the last token's block is computed again");
    assert_eq!(admission.first_token_at, now + Duration::from_millis(9));
}

#[test]
fn a_prompt_is_hit_only_once_it_is_computed() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let (first, _) = scheduler.submit(ask(0..20), now).expect("room");
    let (second, admission) = scheduler.submit(ask(0..20), now).expect("room");
    assert_eq!(admission.expect("a place").cached_tokens, 0);
    scheduler.first_token(first);
    scheduler.abort(second, now);
    let (_, admission) = scheduler.submit(ask(0..20), now).expect("room");
    assert_eq!(admission.expect("a place").cached_tokens, 16);
}

#[test]
fn the_next_turn_hits_the_answer_too() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let (id, _) = scheduler.submit(ask(0..8), now).expect("room");
    scheduler.first_token(id);
    scheduler.finish(id, &[8, 9, 10, 11], now);
    let (_, admission) = scheduler.submit(ask(0..14), now).expect("room");
    assert_eq!(admission.expect("a place").cached_tokens, 12);
    assert_eq!(scheduler.stats().cached_tokens, 12);
    assert_eq!(scheduler.stats().prompt_tokens, 22);
}

#[test]
fn waiting_requests_start_in_order_and_the_queue_is_bounded() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let ids: Vec<RequestId> =
        (0..4).map(|_| scheduler.submit(ask(0..8), now).expect("room or a queue").0).collect();
    assert_eq!(scheduler.submit(ask(0..8), now), Err(Refusal::QueueFull));
    assert_eq!((scheduler.stats().running, scheduler.stats().waiting), (2, 2));
    scheduler.first_token(ids[0]);
    let (next, admission) = scheduler.finish(ids[0], &[], now).expect("one waits");
    assert_eq!(next, ids[2]);
    assert_eq!(admission.cached_tokens, 4, "the cache is looked up when the request starts");
    assert_eq!(scheduler.abort(ids[3], now), None, "a waiting request frees no place");
    assert_eq!(scheduler.abort(ids[1], now), None);
    assert_eq!((scheduler.stats().running, scheduler.stats().waiting), (1, 0));
    assert_eq!(scheduler.stats().aborted, 2);
}

#[test]
fn an_aborted_prefill_leaves_nothing_behind() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let (id, _) = scheduler.submit(ask(0..20), now).expect("room");
    scheduler.abort(id, now);
    assert_eq!(scheduler.cache_usage(), 0.0);
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let (mut scheduler, now) = (Scheduler::new(config()), start());
    let refusal = scheduler.submit(ask(0..61), now);
    assert_eq!(refusal, Err(Refusal::PromptTooLong { tokens: 65, tokens_max: 64 }));
}

#[test]
fn rates_of_zero_cost_no_time() {
    let free = EngineConfig {
        prefill_tokens_per_s: 0.0,
        decode_tokens_per_s: f64::INFINITY,
        base_ttft: Duration::ZERO,
        ..config()
    };
    let (mut scheduler, now) = (Scheduler::new(free), start());
    let (_, admission) = scheduler.submit(ask(0..20), now).expect("room");
    let admission = admission.expect("a place");
    assert_eq!(admission.first_token_at, now);
    assert_eq!(admission.token_interval, Duration::ZERO);
}
