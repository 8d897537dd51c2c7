//! Workers whose circuit breaker opens, and their way back.

use std::sync::Arc;
use std::time::Duration;

use fleet::breaker::Circuit;
use fleet::breaker::Outcome;
use fleet::report::Report;

use super::A;
use super::B;
use super::SECOND;
use crate::control::rig::BREAKER;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::worker::Recovery;

const OPEN: Duration = Duration::from_millis(BREAKER.open_ms);

/// Requests to `url` end so, as a shard would notice; it tells control.
fn judge(rig: &mut Rig, url: &str, outcome: Outcome, times: u32) {
    let worker = rig.id(url);
    let cells = Arc::clone(&rig.snapshot.fleet.worker(worker).expect("registered").cells);
    for _ in 0..times {
        let pass = cells.breaker().admit(&BREAKER).expect("lets it through");
        cells.breaker().judge(pass, outcome, rig.now.as_millis() as u64, &BREAKER);
    }
    rig.report(Report::Circuit { worker });
}

fn share(rig: &Rig, url: &str) -> f64 {
    let members = rig.members();
    members.iter().find(|worker| &*worker.url == url).expect("a member").weight.ratio()
}

#[test]
fn an_open_breaker_takes_a_worker_out_and_half_open_brings_it_back() {
    let mut rig = Rig::ready(&[A, B]);
    judge(&mut rig, A, Outcome::Failure, BREAKER.failure_threshold - 1);
    assert_eq!(rig.routable(), [A, B]);
    judge(&mut rig, A, Outcome::Failure, 1);
    assert_eq!(rig.routable(), [B]);
    assert_eq!(rig.snapshot.fleet.readiness.status, 200);
    rig.pass(OPEN - SECOND);
    assert_eq!(rig.routable(), [B]);
    rig.pass(SECOND);
    assert_eq!(rig.routable(), [A, B]);
    judge(&mut rig, A, Outcome::Success, BREAKER.success_threshold);
    assert_eq!(share(&rig, A), 1.0);
}

#[test]
fn readiness_knows_of_open_breakers() {
    let mut rig = Rig::ready(&[A]);
    judge(&mut rig, A, Outcome::Failure, BREAKER.failure_threshold);
    assert_eq!(rig.snapshot.fleet.readiness.status, 503);
    rig.pass(OPEN);
    assert_eq!(rig.snapshot.fleet.readiness.status, 200);
}

#[test]
fn a_failed_probe_keeps_the_worker_out_for_another_pause() {
    let mut rig = Rig::ready(&[A, B]);
    judge(&mut rig, A, Outcome::Failure, BREAKER.failure_threshold);
    rig.pass(OPEN);
    judge(&mut rig, A, Outcome::Failure, 1);
    assert_eq!(rig.routable(), [B]);
    rig.pass(OPEN);
    assert_eq!(rig.routable(), [A, B]);
}

#[test]
fn a_lost_report_is_made_up_for() {
    let mut rig = Rig::ready(&[A, B]);
    let worker = rig.id(A);
    let cells = Arc::clone(&rig.snapshot.fleet.worker(worker).expect("registered").cells);
    for _ in 0..BREAKER.failure_threshold {
        let pass = cells.breaker().admit(&BREAKER).expect("closed");
        cells.breaker().judge(pass, Outcome::Failure, rig.now.as_millis() as u64, &BREAKER);
    }
    rig.pass(2 * SECOND);
    rig.turn([]);
    assert_eq!(rig.routable(), [B]);
    rig.pass(OPEN);
    assert_eq!(cells.breaker().circuit(), Circuit::HalfOpen);
    assert_eq!(rig.routable(), [A, B]);
}

#[test]
fn a_worker_gets_its_share_back_step_by_step() {
    let mut config = config(&[A, B]);
    config.recovery_ramp = 9 * SECOND;
    let mut rig = Rig::new(config);
    rig.alive.extend([A.to_owned(), B.to_owned()]);
    rig.settle();
    judge(&mut rig, A, Outcome::Failure, BREAKER.failure_threshold);
    rig.pass(OPEN);
    assert_eq!(share(&rig, A), 0.125);
    judge(&mut rig, A, Outcome::Success, BREAKER.success_threshold);
    let mut shares = Vec::new();
    for _ in 0..4 {
        shares.push(share(&rig, A));
        rig.pass(3 * SECOND);
    }
    assert_eq!(shares, [0.125, 0.25, 0.5, 1.0]);
    assert_eq!(share(&rig, B), 1.0);
    let entry = rig.state.registry.get(rig.id(A)).expect("registered");
    assert_eq!((entry.recovery, entry.circuit_due), (Recovery::Over, None), "and nothing is left to do");
}

#[test]
fn a_worker_removed_for_failing_joins_again_when_it_is_up() {
    let mut rig = Rig::ready(&[A, B]);
    let before = rig.id(A);
    rig.alive.remove(A);
    let cells = Arc::clone(&rig.snapshot.fleet.worker(before).expect("registered").cells);
    for _ in 0..3 {
        cells.fail();
    }
    rig.report(Report::Failing { worker: before });
    assert_eq!(rig.routable(), [B]);
    assert_eq!(super::text(&rig.call("GET", "/list_workers", "")), format!(r#"{{"urls":["{B}"]}}"#));
    rig.pass(60 * SECOND);
    assert_eq!(rig.routable(), [B]);
    rig.alive.insert(A.to_owned());
    rig.pass(10 * SECOND);
    let mut routable = rig.routable();
    routable.sort_unstable();
    assert_eq!(routable, [A, B]);
    assert_ne!(rig.id(A), before);
}
