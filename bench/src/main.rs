//! The command line of the load generator.

use std::process::ExitCode;

fn main() -> ExitCode {
    match bench::cli::run(argh::from_env()) {
        Ok(bench::cli::Outcome::Clean) => ExitCode::SUCCESS,
        Ok(bench::cli::Outcome::RequestsFailed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringway-bench: {error}");
            ExitCode::from(2)
        }
    }
}
