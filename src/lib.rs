//! The process: command line, configuration, control, services, metrics, logs.
//!
//! The only crate that knows every other one; nothing but tests depends on it.

pub mod admin;
mod auth;
mod batches;
mod cli;
mod config;
pub mod control;
mod demo;
mod discovery;
mod documents;
mod handover;
mod logs;
mod metrics;
mod reload;
mod replay;
mod run;
pub mod services;
mod sockets;
mod stack;
mod systemd;
mod tls;
mod traces;
mod watched;

use std::process::ExitCode;

use crate::cli::Command;

/// Exit code for a command line or a start that cannot work.
const EXIT_USAGE: u8 = 2;
/// Exit code for a failure after the start.
const EXIT_FAILURE: u8 = 1;

/// Runs the command that `argv` names and returns its exit code.
pub fn main(argv: Vec<String>) -> ExitCode {
    let command = match cli::parse(argv) {
        Ok(command) => command,
        Err(exit) => return exit.report(),
    };
    let result = match command {
        Command::Launch(launch) => run::run(*launch),
        Command::Demo(flags) => demo::run(&flags),
        Command::EngineSim(flags) => demo::engine_sim(&flags),
        Command::Replay(flags) => replay::run(&flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway: {error}");
            ExitCode::from(if error.is_usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// Why the process ends without success: one line for the user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    /// Whether the command line or the environment is at fault, rather than something that happened later.
    is_usage: bool,
}

impl Failure {
    /// Something the user asked for cannot be done.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_usage: true }
    }

    /// Something went wrong while running.
    pub(crate) fn runtime(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_usage: false }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
