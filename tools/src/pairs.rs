//! `tools pairs`: requests over prefill and decode workers, how soon their streams begin, and what comes of failures.

use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use testkit::pairs::Plan;
use testkit::pairs::Report;

/// Prefill times at which the beginning of streams is measured, in milliseconds.
const PREFILL_MS: [u64; 4] = [10, 100, 1_000, 5_000];
/// By how much later than it left the decode worker a first event may come.
const DELAY_MAX: Duration = Duration::from_millis(2);

/// Send requests through pairs of workers: measure how long the first event takes from the decode worker to the client,
/// for prompts that take from ten milliseconds to five seconds; then have prefill workers, decode workers and both fail
/// at random, and look at every answer and at who is charged.
#[derive(FromArgs)]
#[argh(subcommand, name = "pairs")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// requests while both roles fail; a fifth of them where one does
    #[argh(option, default = "10000")]
    requests: usize,
    /// of a thousand requests to a worker, how many fail
    #[argh(option, default = "100")]
    faults: u64,
    /// client threads
    #[argh(option, default = "32")]
    threads: usize,
    /// shards of the gateway
    #[argh(option, default = "2")]
    shards: usize,
    /// where the order of faults comes from
    #[argh(option, default = "1")]
    seed: u64,
}

/// Runs it; true when nothing went wrong.
pub(crate) fn run(args: &Args) -> bool {
    let plan = Plan {
        program: super::binary(args.binary.as_ref()),
        requests: args.requests,
        threads: args.threads,
        workers: 3,
        shards: args.shards,
        prefill_faults: 0,
        decode_faults: 0,
        prefill_time: Duration::from_millis(1),
        seed: args.seed,
    };
    let mut is_good = true;
    for prefill_ms in PREFILL_MS {
        let prefill_time = Duration::from_millis(prefill_ms);
        let plan = Plan { prefill_time, requests: 40, threads: 4, ..plan.clone() };
        let (without, report) = (plan.run_without(), plan.run());
        let (median, last) = (at(&report, 0.5), at(&report, 1.0));
        println!(
            "prefill {prefill_ms} ms: first event {median:?} behind the decode worker's, at most {last:?}; \
             without a gateway {:?}, at most {:?}",
            at(&without, 0.5),
            at(&without, 1.0)
        );
        is_good &= report.complete == 40 && median <= DELAY_MAX && look(&report);
    }
    for (name, prefill_faults, decode_faults, requests) in [
        ("prefill", args.faults, 0, args.requests / 5),
        ("decode", 0, args.faults, args.requests / 5),
        ("both", args.faults, args.faults, args.requests),
    ] {
        let report = Plan { prefill_faults, decode_faults, requests, ..plan.clone() }.run();
        println!(
            "{name} failing: {} whole of {requests}, errors {:?}, failures made and charged: prefill {:?}, decode {:?}",
            report.complete, report.errors, report.prefill, report.decode
        );
        is_good &= look(&report);
        // Where both fail, one failure may hide another.
        is_good &= if name == "both" {
            report.prefill.1 <= report.prefill.0 && report.decode.1 <= report.decode.0
        } else {
            report.prefill.1 == report.prefill.0 && report.decode.1 == report.decode.0
        };
    }
    println!("{}", if is_good { "good" } else { "NOT GOOD" });
    is_good
}

/// Prints what is wrong with answers; true if nothing is.
fn look(report: &Report) -> bool {
    report.wrong.iter().take(20).for_each(|wrong| println!("WRONG: {wrong}"));
    report.wrong.is_empty()
}

/// The delay that this share of requests did not exceed.
fn at(report: &Report, share: f64) -> Duration {
    let last = report.delays.len().saturating_sub(1);
    report.delays.get((last as f64 * share) as usize).copied().unwrap_or(Duration::MAX)
}
