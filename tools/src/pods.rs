//! `tools pods`: pods that come, change and go in random order while the cluster's API breaks off, and how soon the
//! gateway's workers are the cluster's.

use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use testkit::pods::Churn;

/// Within which, after the last change, every worker must be registered and nobody else.
const SETTLED_MAX: Duration = Duration::from_secs(1);

/// Change the pods of a made-up cluster in random order, with disconnects and forgotten versions, over several seeds; the
/// gateway's workers must be the cluster's within a second of the last change.
#[derive(FromArgs)]
#[argh(subcommand, name = "pods")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// pods there are at first
    #[argh(option, default = "1000")]
    pods: usize,
    /// changes after that
    #[argh(option, default = "4000")]
    changes: usize,
    /// how many orders
    #[argh(option, default = "20")]
    seeds: u64,
}

/// Runs it; true when nothing went wrong.
pub(crate) fn run(args: &Args) -> bool {
    let mut is_good = true;
    for seed in 1..=args.seeds {
        let plan = Churn {
            program: super::binary(args.binary.as_ref()),
            pods: args.pods,
            changes: args.changes,
            is_paired: seed % 2 == 0,
        };
        match plan.run(seed) {
            Ok(settled) => {
                println!("seed {seed}: {settled:?}");
                is_good &= settled.registered <= SETTLED_MAX;
            }
            Err(difference) => {
                println!("seed {seed}: WRONG: {difference}");
                is_good = false;
            }
        }
    }
    println!("{}", if is_good { "good" } else { "NOT GOOD" });
    is_good
}
