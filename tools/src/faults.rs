//! `tools faults`: requests over engines that are killed, stopped, restarted and told to fail, and what came of them.

use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use testkit::faults::Latencies;
use testkit::faults::PHASES;
use testkit::faults::Plan;
use testkit::faults::Report;

/// What memory may grow by between a fifth of the run and its end, beyond a tenth: caches fill, allocators round.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Descriptors that may be left open over what was open when the run began: kept connections to engines.
const DESCRIPTORS_MAX: usize = 512;
/// Within which a worker must see that its client has left, where nothing else goes on.
const LEAVING_MAX: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0 * 1024.0;

/// Send requests while engines are killed, stopped, restarted and told to fail, and clients leave or read slowly;
/// every request must get its own complete answer or a clear error, gauges must return to zero, memory and
/// descriptors must stay flat.
#[derive(FromArgs)]
#[argh(subcommand, name = "faults")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// how long it goes on
    #[argh(option, default = "60")]
    seconds: u64,
    /// engines
    #[argh(option, default = "6")]
    engines: usize,
    /// client threads: half of them usual ones, a quarter slow readers, a quarter that leave early
    #[argh(option, default = "32")]
    threads: usize,
    /// shards of the gateway
    #[argh(option, default = "2")]
    shards: usize,
    /// routing policy
    #[argh(option, default = "String::from(\"cache_aware\")")]
    policy: String,
    /// where the order of faults comes from
    #[argh(option, default = "1")]
    seed: u64,
}

/// Runs it; true when nothing went wrong.
pub(crate) fn run(args: &Args) -> bool {
    let cap = (args.threads * 3 / 4).max(1).to_string();
    let (shards, policy) = (args.shards.to_string(), args.policy.as_str());
    let flags = [
        ("--log-level", "error"),
        ("--shards", &shards),
        ("--policy", policy),
        ("--stream-resume", ""),
        ("--max-concurrent-requests", &cap),
        ("--queue-size", "64"),
        ("--queue-timeout-secs", "5"),
        ("--request-timeout-secs", "10"),
        ("--first-token-timeout-secs", "2"),
        ("--inter-token-timeout-secs", "2"),
        ("--cb-failure-threshold", "5"),
        ("--cb-timeout-duration-secs", "2"),
        ("--recovery-ramp-secs", "2"),
        ("--health-check-interval-secs", "1"),
        ("--retry-max-backoff-ms", "1000"),
    ];
    let plan = Plan {
        program: crate::binary(args.binary.as_ref()),
        flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        time: Duration::from_secs(args.seconds),
        engines: args.engines,
        threads: args.threads,
        seed: args.seed,
        quiet_rounds: 100,
    };
    let report = plan.run();
    print(&report);
    let at_a_fifth = report.samples.get(report.samples.len() / 5);
    let is_flat = at_a_fifth.is_none_or(|(_, from, _)| report.end.0 <= from + from / 10 + GROWTH_BYTES_MAX);
    let descriptors = report.samples.first().map_or(0, |(.., descriptors)| *descriptors);
    let [quiet, _] = &report.leaving;
    let is_let_go = quiet.iter().all(|times| times.last().is_none_or(|longest| *longest <= LEAVING_MAX));
    let checks = [
        ("every answer is its request's own and complete, or a clear error", report.answers.wrong.is_empty()),
        ("gauges return to zero, and engines have nothing to compute", true),
        ("memory stays flat", is_flat),
        ("descriptors are given back", report.end.1 <= descriptors + DESCRIPTORS_MAX),
        ("whoever leaves is let go of within 100 ms", is_let_go),
    ];
    for (what, holds) in checks {
        println!("{} {what}", if holds { "ok    " } else { "FAILED" });
    }
    checks.iter().all(|(_, holds)| *holds)
}

fn print(report: &Report) {
    let answers = &report.answers;
    let errors: usize = answers.errors.values().sum();
    let (complete, wrong) = (answers.complete, answers.wrong.len());
    println!(
        "{} requests in {:.1} s",
        complete + errors + wrong + report.left,
        answers.elapsed.as_secs_f64()
    );
    println!("{complete} complete, {errors} clear errors, {} left early, {wrong} wrong", report.left);
    for (code, count) in &answers.errors {
        println!("  {count:>7} {code}");
    }
    for what in answers.wrong.iter().take(20) {
        println!("  wrong: {what}");
    }
    let faults: Vec<String> = report.faults.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("engines: {}", faults.join(", "));
    for (name, value) in &report.counters {
        println!("  {value:>7} {name}");
    }
    let most = |of: fn(&(f64, u64, usize)) -> u64| report.samples.iter().map(of).max().unwrap_or(0);
    if let Some((_, memory, descriptors)) = report.samples.get(report.samples.len() / 5) {
        println!(
            "memory: {:.1} MiB after a fifth, {:.1} MiB at most, {:.1} MiB at the end",
            *memory as f64 / MIB,
            most(|(_, memory, _)| *memory) as f64 / MIB,
            report.end.0 as f64 / MIB
        );
        let highest = most(|(.., descriptors)| *descriptors as u64);
        println!("descriptors: {descriptors} after a fifth, {highest} at most, {} at the end", report.end.1);
    }
    for (when, latencies) in ["alone", "beside the load"].iter().zip(&report.leaving) {
        print_leaving(when, latencies);
    }
}

fn print_leaving(when: &str, latencies: &Latencies) {
    println!("from a client's leaving to its worker's connection being closed, {when}, in ms:");
    for (phase, times) in PHASES.iter().zip(latencies).filter(|(_, times)| !times.is_empty()) {
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        println!("  {phase:<22} p50 {p50:>6.2}  p99 {p99:>6.2}  max {max:>6.2}  of {}", times.len());
    }
}
