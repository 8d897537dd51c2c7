//! Tools of the repository: `tidy` checks its rules; `chaos`, `faults`, `pairs`, `pods`, `startup` and `upgrade` try the release binary; `collector` takes its spans.

mod chaos;
mod collector;
mod faults;
mod pairs;
mod pods;
mod startup;
mod tidy;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;

/// Tools of the repository.
#[derive(FromArgs)]
struct Args {
    #[argh(subcommand)]
    tool: Tool,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Tool {
    Tidy(tidy::Args),
    Chaos(chaos::Args),
    Collector(collector::Args),
    Faults(faults::Args),
    Pairs(pairs::Args),
    Pods(pods::Args),
    Startup(startup::Args),
    Upgrade(upgrade::Args),
}

fn main() -> ExitCode {
    let is_good = match argh::from_env::<Args>().tool {
        Tool::Tidy(_) => tidy::run(),
        Tool::Chaos(args) => chaos::run(&args),
        Tool::Collector(args) => collector::run(&args),
        Tool::Faults(args) => faults::run(&args),
        Tool::Pairs(args) => pairs::run(&args),
        Tool::Pods(args) => pods::run(&args),
        Tool::Startup(args) => startup::run(&args),
        Tool::Upgrade(args) => upgrade::run(&args),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The binary to try: the one named, else the release build beside this tool's own.
fn binary(named: Option<&PathBuf>) -> PathBuf {
    named.cloned().unwrap_or_else(|| {
        let own = std::env::current_exe().unwrap_or_default();
        // target/PROFILE/tools => target/release/ringway
        let target = own.parent().and_then(std::path::Path::parent).map(std::path::Path::to_owned);
        target.unwrap_or_default().join("release").join("ringway")
    })
}
