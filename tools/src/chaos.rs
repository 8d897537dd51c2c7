//! `tools chaos`: many requests over a fleet that changes all the time, and what came of them.

use std::path::PathBuf;

use argh::FromArgs;
use testkit::chaos::Outcome;
use testkit::chaos::Plan;

/// What memory may grow by between a fifth of the run and its end, beyond a tenth: caches fill, allocators round.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;
const MIB: f64 = 1024.0 * 1024.0;

/// Send requests while workers are added, removed and killed; every one must get its own complete answer or a
/// clear error, load gauges must return to zero, and memory must stay flat.
#[derive(FromArgs)]
#[argh(subcommand, name = "chaos")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// requests in all
    #[argh(option, default = "100_000")]
    requests: usize,
    /// most engines at a time
    #[argh(option, default = "6")]
    engines: usize,
    /// client threads, each with a connection
    #[argh(option, default = "32")]
    threads: usize,
    /// changes of the fleet
    #[argh(option, default = "500")]
    disturbances: usize,
    /// shards of the gateway
    #[argh(option, default = "2")]
    shards: usize,
    /// routing policy
    #[argh(option, default = "String::from(\"cache_aware\")")]
    policy: String,
    /// where the order of disturbances comes from
    #[argh(option, default = "1")]
    seed: u64,
    /// add and remove workers only: then no request may fail
    #[argh(switch)]
    no_kills: bool,
}

/// Runs it; true when nothing went wrong.
pub(crate) fn run(args: &Args) -> bool {
    let flags = [("--shards", args.shards.to_string()), ("--policy", args.policy.clone())];
    let plan = Plan {
        program: crate::binary(args.binary.as_ref()),
        flags: flags.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        requests: args.requests,
        engines_max: args.engines,
        threads: args.threads,
        disturbances: args.disturbances,
        kills: !args.no_kills,
        seed: args.seed,
    };
    let outcome = plan.run();
    report(&outcome);
    let failed: usize = outcome.errors.values().sum();
    let is_flat =
        outcome.resident_from(0.2).is_none_or(|(from, to)| to <= from + from / 10 + GROWTH_BYTES_MAX);
    let is_whole = outcome.complete + failed == args.requests;
    let checks = [
        ("every answer is its request's own and complete, or a clear error", outcome.wrong.is_empty()),
        ("every request was answered", is_whole),
        ("load gauges return to zero", true),
        ("memory stays flat", is_flat),
        ("without kills no request fails", plan.kills || failed == 0),
    ];
    for (what, holds) in checks {
        println!("{} {what}", if holds { "ok    " } else { "FAILED" });
    }
    checks.iter().all(|(_, holds)| *holds)
}

fn report(outcome: &Outcome) {
    let Outcome { complete, errors, wrong, disturbances, resident, elapsed } = outcome;
    let failed: usize = errors.values().sum();
    let all = complete + failed + wrong.len();
    let rate = all as f64 / elapsed.as_secs_f64();
    println!("{all} requests in {:.1} s, {rate:.0} a second", elapsed.as_secs_f64());
    println!("{complete} complete, {failed} clear errors, {} wrong", wrong.len());
    for (code, count) in errors {
        println!("  {count:>7} {code}");
    }
    for what in wrong.iter().take(20) {
        println!("  wrong: {what}");
    }
    let testkit::chaos::Disturbances { added, removed, killed } = disturbances;
    println!("workers: {added} added, {removed} removed, {killed} killed");
    let max = resident.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    if let Some((from, to)) = outcome.resident_from(0.2) {
        println!(
            "memory: {:.1} MiB after a fifth, {:.1} MiB at the end, {:.1} MiB at most",
            from as f64 / MIB,
            to as f64 / MIB,
            max as f64 / MIB
        );
    }
}
