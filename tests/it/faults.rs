//! A small version of `tools faults`: engines that fail in every way for some seconds.

use std::path::PathBuf;
use std::time::Duration;

use testkit::faults::Plan;

#[test]
fn every_request_gets_its_own_answer_or_a_clear_error_whatever_engines_do() {
    let flags = [
        ("--log-level", "error"),
        ("--shards", "2"),
        ("--stream-resume", ""),
        ("--max-concurrent-requests", "6"),
        ("--request-timeout-secs", "4"),
        ("--first-token-timeout-secs", "1"),
        ("--inter-token-timeout-secs", "1"),
        ("--cb-failure-threshold", "5"),
        ("--cb-timeout-duration-secs", "1"),
        ("--health-check-interval-secs", "1"),
    ];
    let plan = Plan {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ringway")),
        flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        time: Duration::from_secs(4),
        engines: 4,
        threads: 8,
        seed: 3,
        quiet_rounds: 2,
    };
    let report = plan.run();
    assert_eq!(report.answers.wrong, [""; 0], "{:?}", report.answers.errors);
    assert!(report.answers.complete > 0 && report.left > 0 && !report.faults.is_empty(), "{report:?}");
}
