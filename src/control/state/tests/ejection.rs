//! Slow workers: who is ejected, for how long, and how it comes back.

use std::sync::Arc;
use std::time::Duration;

use fleet::breaker::Outcome;
use fleet::cell::WorkerCells;
use fleet::report::Report;
use fleet::snapshot::Worker;

use super::A;
use super::B;
use super::SECOND;
use crate::control::pace::PaceRules;
use crate::control::rig::BREAKER;
use crate::control::rig::Rig;
use crate::control::rig::config;

const C: &str = "http://10.0.0.3:1";
const WINDOW: Duration = Duration::from_secs(5);
const EJECTION: Duration = Duration::from_secs(30);
const RAMP: Duration = Duration::from_secs(9);

fn rig(urls: &[&str]) -> Rig {
    let mut config = config(urls);
    config.pace = Some(PaceRules::by_factor(5.0));
    config.recovery_ramp = RAMP;
    let mut rig = Rig::new(config);
    rig.alive.extend(urls.iter().map(|&url| url.to_owned()));
    rig.settle();
    rig
}

fn cells(rig: &Rig, url: &str) -> Arc<WorkerCells> {
    Arc::clone(&rig.snapshot.fleet.worker(rig.id(url)).expect("registered").cells)
}

/// Lets windows pass in which the workers stream with these gaps, in milliseconds.
fn stream(rig: &mut Rig, windows: u32, gaps: &[(&str, u64)]) {
    for _ in 0..windows {
        for &(url, gap_ms) in gaps {
            cells(rig, url).pace().add_tokens(50, 50 * gap_ms * 1_000);
        }
        rig.pass(WINDOW);
    }
}

fn share(rig: &Rig, url: &str) -> Option<f64> {
    rig.members().iter().find(|worker| &*worker.url == url).map(|worker: &&Arc<Worker>| worker.weight.ratio())
}

#[test]
fn a_slow_worker_is_ejected_and_comes_back_step_by_step() {
    let mut rig = rig(&[A, B, C]);
    stream(&mut rig, 1, &[(A, 900), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [A, B, C], "one window is chance");
    stream(&mut rig, 1, &[(A, 900), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [B, C]);
    let shown = rig.call("GET", "/workers", "");
    let shown: serde_json::Value = serde_json::from_slice(&shown.body).expect("JSON");
    let ejected: Vec<&str> = shown["workers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|worker| worker["ejected"]["measure"] == "inter_token")
        .filter_map(|worker| worker["url"].as_str())
        .collect();
    assert_eq!(ejected, [A]);
    assert_eq!(rig.state.stats().workers_ejected.get(), 1);
    rig.pass(EJECTION - SECOND);
    assert_eq!(rig.routable(), [B, C]);
    rig.pass(SECOND);
    let mut shares = Vec::new();
    for _ in 0..4 {
        shares.push(share(&rig, A));
        rig.pass(RAMP / 3);
    }
    assert_eq!(shares, [Some(0.125), Some(0.25), Some(0.5), Some(1.0)]);
    assert_eq!(rig.state.stats().workers_ejected.get(), 0);
    stream(&mut rig, 4, &[(A, 50), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [A, B, C]);
}

#[test]
fn who_is_still_slow_is_ejected_for_longer() {
    let mut rig = rig(&[A, B, C]);
    stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
    rig.pass(EJECTION);
    assert!(share(&rig, A).is_some());
    stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [B, C]);
    rig.pass(2 * EJECTION - SECOND);
    assert_eq!(rig.routable(), [B, C]);
    rig.pass(SECOND);
    assert_eq!(rig.routable(), [A, B, C]);
}

#[test]
fn first_tokens_count_too_but_not_those_of_long_prompts() {
    let mut rig = rig(&[A, B, C]);
    let first = |rig: &Rig, url: &str, bytes: u32, ms: u64| {
        let cells = cells(rig, url);
        (0..10).for_each(|_| {
            cells.pace().add_prompt(bytes);
            cells.pace().add_first(bytes, ms * 1_000);
        });
    };
    for _ in 0..4 {
        [B, C].into_iter().for_each(|url| first(&rig, url, 1_000, 100));
        first(&rig, A, 200_000, 20_000);
        // What it decodes meanwhile waits for the prompts.
        stream(&mut rig, 1, &[(A, 900), (B, 50), (C, 50)]);
    }
    assert_eq!(rig.routable(), [A, B, C], "it was given long prompts");
    // Until those must have been computed, it is not judged.
    for _ in 0..30 {
        [B, C].into_iter().for_each(|url| first(&rig, url, 1_000, 100));
        first(&rig, A, 1_000, 2_000);
        stream(&mut rig, 1, &[(A, 50), (B, 50), (C, 50)]);
    }
    let ejections: Vec<bool> =
        rig.state.stats().ejections_total.iter().map(|total| total.get() > 0).collect();
    assert_eq!(ejections, [false, true], "short prompts take it long too");
}

#[test]
fn one_of_three_is_ejected_the_slowest_and_of_two_nobody() {
    let mut two = rig(&[A, B]);
    stream(&mut two, 4, &[(A, 900), (B, 50)]);
    assert_eq!(two.routable(), [A, B]);
    let urls: Vec<String> = (1..=5).map(|n| format!("http://10.0.0.{n}:1")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut five = rig(&urls);
    let gaps: Vec<(&str, u64)> = urls.iter().copied().zip([50, 900, 50, 950, 50]).collect();
    stream(&mut five, 4, &gaps);
    assert_eq!(five.routable(), [urls[0], urls[1], urls[2], urls[4]]);
}

#[test]
fn an_ejected_worker_makes_up_for_one_that_is_lost() {
    for how in ["removed", "breaker", "unhealthy"] {
        let mut rig = rig(&[A, B, C]);
        stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
        assert_eq!(rig.routable(), [B, C]);
        match how {
            "removed" => drop(rig.call("POST", "/remove_worker?url=http%3A%2F%2F10.0.0.3%3A1", "")),
            "breaker" => {
                let cells = cells(&rig, C);
                for _ in 0..BREAKER.failure_threshold {
                    let pass = cells.breaker().admit(&BREAKER).expect("closed");
                    cells.breaker().judge(pass, Outcome::Failure, rig.now.as_millis() as u64, &BREAKER);
                }
                let worker = rig.id(C);
                rig.report(Report::Circuit { worker });
            }
            _ => {
                rig.alive.remove(C);
                while rig.routable().contains(&C) {
                    stream(&mut rig, 1, &[(A, 900), (B, 50), (C, 50)]);
                }
            }
        }
        assert_eq!(rig.routable(), [A, B], "{how}");
        assert_eq!(rig.state.stats().workers_ejected.get(), 0, "{how}");
    }
}

#[test]
fn a_removed_worker_is_not_ejected_any_more() {
    let mut rig = rig(&[A, B, C]);
    stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
    drop(rig.call("POST", "/remove_worker?url=http%3A%2F%2F10.0.0.1%3A8000", ""));
    assert_eq!(rig.state.stats().workers_ejected.get(), 0);
}

#[test]
fn a_breaker_has_the_last_word_on_who_comes_back() {
    let mut rig = rig(&[A, B, C]);
    let breaker = cells(&rig, A);
    stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
    // What was in flight fails.
    rig.pass(EJECTION - SECOND);
    for _ in 0..BREAKER.failure_threshold {
        let pass = breaker.breaker().admit(&BREAKER).expect("closed");
        breaker.breaker().judge(pass, Outcome::Failure, rig.now.as_millis() as u64, &BREAKER);
    }
    let worker = rig.id(A);
    rig.report(Report::Circuit { worker });
    rig.pass(2 * SECOND);
    assert_eq!(rig.routable(), [B, C]);
    rig.pass(Duration::from_millis(BREAKER.open_ms));
    assert_eq!(share(&rig, A), Some(0.125));
}

#[test]
fn without_rules_nobody_is_ejected_and_a_reload_brings_everybody_back() {
    let mut rig = rig(&[A, B, C]);
    stream(&mut rig, 2, &[(A, 900), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [B, C]);
    let mut config = config(&[A, B, C]);
    config.pace = None;
    rig.turn([crate::control::event::Event::Reload(Box::new(config))]);
    assert_eq!(rig.routable(), [A, B, C]);
    stream(&mut rig, 4, &[(A, 900), (B, 50), (C, 50)]);
    assert_eq!(rig.routable(), [A, B, C]);
}
