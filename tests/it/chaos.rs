//! A small version of `tools chaos`: the fleet changes under two thousand requests.

use std::path::PathBuf;

use testkit::chaos::Outcome;
use testkit::chaos::Plan;

use crate::setup::Setup;
use crate::setup::on_every_setup;

on_every_setup! {
    every_request_gets_its_own_answer_or_a_clear_error
}

fn run(setup: Setup, requests: usize, kills: bool) -> Outcome {
    let flags = [("--shards", setup.shards.to_string()), ("--io-driver", setup.driver.to_owned())];
    let plan = Plan {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ringway")),
        flags: flags.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        requests,
        engines_max: 5,
        threads: 16,
        disturbances: 20,
        kills,
        seed: 7,
    };
    let outcome = plan.run();
    assert_eq!(outcome.wrong, [""; 0], "{:?}", outcome.errors);
    assert_eq!(outcome.complete + outcome.errors.values().sum::<usize>(), requests);
    let counts = outcome.disturbances;
    assert!(counts.added > 0 && counts.removed > 0 && (counts.killed > 0) == kills, "{counts:?}");
    outcome
}

fn every_request_gets_its_own_answer_or_a_clear_error(setup: Setup) {
    let outcome = run(setup, 2000, true);
    // A killed engine takes what it was answering with it, and no more.
    let errors: usize = outcome.errors.values().sum();
    assert!(errors <= 16 * outcome.disturbances.killed, "{:?}", outcome.errors);
}

#[test]
fn adding_and_removing_workers_costs_no_request() {
    let outcome = run(Setup { shards: 2, driver: "auto" }, 2000, false);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
}
