//! How checks move a worker from state to state.

use super::*;

const CHECKS: Checks = Checks {
    timeout: Duration::from_secs(5),
    interval: Duration::from_secs(60),
    success_threshold: 2,
    failure_threshold: 3,
    disabled: false,
};

#[track_caller]
fn check(from: Stage, outcomes: &[bool], stage: Stage, change: Change) {
    let step = |(stage, _): (Stage, Change), &is_alive: &bool| stage.after_check(is_alive, &CHECKS);
    assert_eq!(outcomes.iter().fold((from, Change::None), step), (stage, change));
}

#[test]
fn failures_must_come_in_a_row() {
    let ready = Stage::Ready { failures: 0 };
    check(ready, &[false, false], Stage::Ready { failures: 2 }, Change::None);
    check(ready, &[false, false, true, false, false], Stage::Ready { failures: 2 }, Change::None);
    check(ready, &[false, false, false], Stage::Unhealthy { successes: 0 }, Change::Lost);
}

#[test]
fn successes_must_come_in_a_row() {
    let unhealthy = Stage::Unhealthy { successes: 0 };
    check(unhealthy, &[true, false, true], Stage::Unhealthy { successes: 1 }, Change::None);
    check(unhealthy, &[true, true], Stage::Ready { failures: 0 }, Change::Recovered);
}

#[test]
fn a_late_check_says_nothing() {
    check(Stage::Draining, &[true, false], Stage::Draining, Change::None);
    check(Stage::Reached, &[false], Stage::Reached, Change::None);
}
