//! Whole runs against a simulated engine.

use std::time::Duration;

use engine_sim::{EngineConfig, EngineHandle, FaultPlan};

use crate::compare::compare;
use crate::record::{Failure, Record};
use crate::report::{html, json};
use crate::run::run;
use crate::{Api, Load, Shape, Target, cores};

fn engine() -> EngineHandle {
    engine_sim::spawn(EngineConfig {
        prefill_tokens_per_s: 0.0,
        decode_tokens_per_s: 0.0,
        base_ttft: Duration::ZERO,
        ..EngineConfig::default()
    })
    .expect("the engine starts")
}

fn target(engine: &EngineHandle) -> Target {
    engine.url().parse().expect("a target")
}

pub(crate) fn load(shape: &str, requests: u64) -> Load {
    Load {
        salt: 0,
        shape: shape.parse().expect("a shape"),
        api: Api::Chat,
        streams: false,
        connections: 3,
        rate_per_s: None,
        duration: None,
        requests_max: Some(requests),
        cores: vec![cores::last()],
        answer_tokens_max: 8,
        model: "m".to_owned(),
        seed: 1,
        timeout: Duration::from_secs(20),
        ring_memory_kib: 64,
        api_key: None,
    }
}

fn measure(load: &Load, engine: &EngineHandle) -> Record {
    run(load, &target(engine), "test").expect("a run")
}

#[test]
fn every_shape_is_answered() {
    let engine = engine();
    for shape in ["short-chat", "shared-prefix", "multi-turn", "agent-64k", "agent-512k", "stream"] {
        let record = measure(&load(shape, 12), &engine);
        assert_eq!((record.requests, record.failures_count()), (12, 0), "{shape}: {:?}", record.failures);
        assert_eq!(record.answer_tokens, 12 * 8, "{shape}");
        assert_eq!(record.total_us.len(), 12, "{shape}");
    }
    assert_eq!(engine.stats().requests, 6 * 12);
}

#[test]
fn streams_are_timed_by_event() {
    let engine = engine();
    for api in [Api::Chat, Api::Generate] {
        let record = measure(&Load { api, ..load("stream", 10) }, &engine);
        assert_eq!((record.ttft_us.len(), record.gap_us.len()), (10, 10 * 7));
    }
}

#[test]
fn the_engines_own_count_of_cached_tokens_is_reported() {
    let engine = engine();
    let record = measure(&load("multi-turn", 24), &engine);
    assert!(record.cache_hit_rate() > 0.4, "{}", record.cache_hit_rate());
    assert_eq!(record.cached_tokens, engine.stats().cached_tokens);
    assert_eq!(record.prompt_tokens, engine.stats().prompt_tokens);
}

#[test]
fn failures_are_told_apart() {
    let engine = engine();
    for (faults, failure) in [
        (FaultPlan { error_rate: 1.0, ..FaultPlan::default() }, Failure::Status(503)),
        (FaultPlan { close_mid_rate: 1.0, ..FaultPlan::default() }, Failure::Truncated),
        (FaultPlan { close_before_rate: 1.0, ..FaultPlan::default() }, Failure::Truncated),
        (FaultPlan { stall_rate: 1.0, ..FaultPlan::default() }, Failure::Timeout),
    ] {
        engine.set_faults(faults);
        let load = Load { timeout: Duration::from_millis(100), ..load("stream", 3) };
        let record = measure(&load, &engine);
        assert_eq!(record.failures.get(&failure), Some(&3), "{:?}", record.failures);
    }
    let gone = target(&engine);
    engine.stop();
    let record = run(&load("stream", 3), &gone, "test").expect("a run");
    assert_eq!(record.failures.get(&Failure::Connect), Some(&3));
}

#[test]
fn an_open_loop_counts_the_wait_for_a_connection() {
    let base_ttft = Duration::from_millis(20);
    let engine = engine_sim::spawn(EngineConfig { base_ttft, ..EngineConfig::default() }).expect("an engine");
    // Arrivals come ten times as fast as one connection is served.
    let load = Load { connections: 1, rate_per_s: Some(500.0), ..load("short-chat", 30) };
    let record = measure(&load, &engine);
    assert_eq!(record.requests, 30);
    assert!(record.total_us.max() > 10 * 20_000, "the last request waited for all before it");
}

#[test]
fn a_comparison_does_not_hit_its_own_leavings() {
    let engine = engine();
    let target = target(&engine);
    let rounds = compare(&load("agent-64k", 12), [&target, &target], 2).expect("two rounds");
    let rates: Vec<f64> = rounds.left.iter().chain(&rounds.right).map(Record::cache_hit_rate).collect();
    let (least, most) =
        rates.iter().fold((1.0f64, 0.0f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
    assert!(most - least < 0.1, "{rates:?}");
}

#[test]
fn reports_are_well_formed() {
    let engine = engine();
    let load = load("stream", 10);
    let record = measure(&load, &engine);
    let report = json::value(&load, &target(&engine), &record);
    assert_eq!(report["latencies"]["ttft_us"]["count"], 10);
    let page = html::page(&load, &target(&engine), &record);
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn shapes_have_names() {
    assert_eq!("agent-64k".parse::<Shape>().expect("a shape").to_string(), "agent-64k");
}
