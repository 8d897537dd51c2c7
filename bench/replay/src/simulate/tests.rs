//! Whole replays: the same twice, nothing lost, and nobody better informed than the oracle.

use fleet::rules::Rules;
use policy::Policy;

use super::*;
use crate::gateway::Gateway;
use crate::generate::Load;
use crate::generate::Shape;
use crate::generate::generate;
use crate::oracle::Oracle;

const SHAPES: [Shape; 3] = [Shape::MultiTurn, Shape::SharedPrefix, Shape::HotPrefix];

fn policies() -> Vec<Policy> {
    Policy::NAMES.iter().filter_map(|name| Rules::default().policy(name)).collect()
}

fn plan(pace: Pace, workers: usize) -> Plan {
    Plan { pace, workers, engine: EngineConfig::default() }
}

const RECORDED: Pace = Pace::Recorded { speedup: 1.0 };

fn made(shape: Shape, requests: usize, seed: u64) -> Trace {
    // Few groups for few requests, so that prefixes come back.
    generate(&Load { shape, requests, seed, groups: 24, ..Load::default() })
}

fn check(trace: &Trace, outcome: &Outcome, workers: usize) {
    assert_eq!(outcome.requests as usize, trace.requests().len());
    assert_eq!(
        (outcome.ttft_us.len(), outcome.latency_us.len()),
        (trace.requests().len(), trace.requests().len())
    );
    assert_eq!(outcome.prompt_tokens, trace.prompt_tokens());
    assert!(outcome.cached_tokens <= trace.reusable_tokens());
    assert_eq!(outcome.engines.len(), workers);
    assert!(
        outcome.in_flight_imbalance >= 1.0 - 1e-9 && outcome.in_flight_imbalance <= workers as f64 + 1e-9
    );
}

#[test]
fn every_request_finishes_once_whatever_the_seed() {
    for seed in 0..24 {
        let trace = made(SHAPES[seed as usize % 3], 200, seed);
        let workers = 1 + seed as usize % 5;
        let paces =
            [RECORDED, Pace::Rate { requests_per_s: 60.0 }, Pace::Closed { concurrency: 1 + seed as usize }];
        for pace in paces {
            for policy in policies() {
                let outcome = run(&trace, &plan(pace, workers), &mut Gateway::new(policy, workers, 1, seed));
                check(&trace, &outcome, workers);
            }
            for mut oracle in [Oracle::Hits, Oracle::FirstToken] {
                check(&trace, &run(&trace, &plan(pace, workers), &mut oracle), workers);
            }
        }
    }
}

#[test]
fn the_same_replay_gives_the_same_result() {
    for policy in policies() {
        let once =
            || run(&made(Shape::HotPrefix, 300, 3), &plan(RECORDED, 4), &mut Gateway::new(policy, 4, 1, 9));
        assert_eq!(once(), once());
    }
}

#[test]
fn nobody_hits_more_than_the_oracle() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let trace = made(shape, 1_000, seed as u64);
        let ideal = run(&trace, &plan(RECORDED, 4), &mut Oracle::Hits).hit_rate();
        for policy in policies() {
            let outcome = run(&trace, &plan(RECORDED, 4), &mut Gateway::new(policy, 4, 1, 1));
            assert!(outcome.hit_rate() <= ideal + 0.01, "{policy:?} on {shape:?}: {}", outcome.hit_rate());
        }
    }
}

#[test]
fn one_engine_makes_all_routers_alike() {
    let trace = made(Shape::SharedPrefix, 300, 1);
    let ideal = run(&trace, &plan(RECORDED, 1), &mut Oracle::Hits);
    for policy in policies() {
        assert_eq!(run(&trace, &plan(RECORDED, 1), &mut Gateway::new(policy, 1, 1, 1)), ideal);
    }
}

#[test]
fn round_robin_gives_each_the_same() {
    let trace = made(Shape::MultiTurn, 400, 1);
    let outcome = run(&trace, &plan(RECORDED, 4), &mut Gateway::new(Policy::RoundRobin, 4, 1, 1));
    assert!(outcome.engines.iter().all(|engine| engine.requests == 100));
    assert!((outcome.request_imbalance() - 1.0).abs() < 1e-9);
}

#[test]
fn a_closed_loop_keeps_its_bound() {
    let trace = made(Shape::SharedPrefix, 300, 1);
    let outcome = run(&trace, &plan(Pace::Closed { concurrency: 6 }, 1), &mut Oracle::Hits);
    assert_eq!(outcome.in_flight_peak, 6);
}

#[test]
fn pace_changes_arrivals_and_nothing_else() {
    let trace = made(Shape::SharedPrefix, 300, 1);
    let recorded = trace.requests_per_s().expect("a rate");
    let twice = run(&trace, &plan(Pace::Recorded { speedup: 2.0 }, 4), &mut Oracle::Hits);
    let as_rate = Pace::Rate { requests_per_s: recorded * 2.0 };
    assert_eq!(run(&trace, &plan(as_rate, 4), &mut Oracle::Hits), twice);
    let once = run(&trace, &plan(RECORDED, 4), &mut Oracle::Hits);
    assert!(once.makespan_us > twice.makespan_us * 3 / 2);
}

#[test]
fn requests_that_arrive_at_once_have_no_rate() {
    let one = Trace::new(made(Shape::SharedPrefix, 1, 1).requests().to_vec());
    let outcome = run(&one, &plan(Pace::Rate { requests_per_s: 1.0 }, 2), &mut Oracle::Hits);
    assert_eq!(outcome.requests, 1);
}
