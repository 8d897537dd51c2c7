//! The command line: what may be typed. What it means is `config`'s matter.
//!
//! Flags carry the names, arities and defaults of SGLang's router, in the spellings of both its Python and its Rust
//! front end. A flag whose feature is not built is refused by name, never ignored.

mod flags;
mod replay;
mod unbuilt;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;
use clap::error::ErrorKind;

use crate::EXIT_USAGE;
pub(crate) use crate::cli::flags::AdmissionFlags;
pub(crate) use crate::cli::flags::BreakerFlags;
pub(crate) use crate::cli::flags::ClientFlags;
pub(crate) use crate::cli::flags::DemoFlags;
pub(crate) use crate::cli::flags::EngineFlags;
pub(crate) use crate::cli::flags::LaunchFlags;
pub(crate) use crate::cli::flags::RetryFlags;
pub(crate) use crate::cli::flags::TlsFlags;
pub(crate) use crate::cli::flags::TraceFlags;
pub(crate) use crate::cli::flags::security::SecurityFlags;
pub(crate) use crate::cli::replay::ReplayFlags;
pub(crate) use crate::cli::replay::ThresholdFlags;

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Route.
    Launch(Box<LaunchFlags>),
    /// Route to simulated engines in this process.
    Demo(DemoFlags),
    /// Be one simulated engine.
    EngineSim(EngineFlags),
    /// Compare policies over a trace.
    Replay(Box<ReplayFlags>),
}

/// An early end: help, version, or a line that cannot be understood.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Printed to standard output, success.
    Shown(String),
    /// Printed to standard error, exit code 2.
    Refused(String),
}

impl Exit {
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Shown(text) => {
                print_out(&text);
                ExitCode::SUCCESS
            }
            Self::Refused(text) => {
                eprintln!("{}", text.trim_end());
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// Help goes to standard output, and a reader that closes the pipe early is no failure.
fn print_out(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[derive(Debug, Parser)]
#[command(name = "ringway", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    launch: LaunchFlags,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Route requests to workers (the default when no command is named)
    #[command(alias = "start")]
    Launch(Box<LaunchFlags>),
    /// Start simulated engines and route to them: something to try at once
    Demo(DemoFlags),
    /// Be one simulated engine
    EngineSim(EngineFlags),
    /// Re-run a trace under one policy after another, over simulated engines in virtual time
    Replay(Box<ReplayFlags>),
}

/// Reads a command line, program name first.
pub(crate) fn parse(argv: Vec<String>) -> Result<Command, Exit> {
    if let Some(flag) = argv.iter().skip(1).find_map(|argument| unbuilt::find(argument)) {
        return Err(Exit::Refused(format!("ringway: {flag} is not supported yet")));
    }
    let cli = Cli::try_parse_from(argv).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Shown(error.render().to_string()),
        _ => Exit::Refused(one_line(&error.render().to_string())),
    })?;
    Ok(match cli.command {
        None => Command::Launch(Box::new(cli.launch)),
        Some(Sub::Launch(flags)) => Command::Launch(flags),
        Some(Sub::Demo(flags)) => Command::Demo(flags),
        Some(Sub::EngineSim(flags)) => Command::EngineSim(flags),
        Some(Sub::Replay(flags)) => Command::Replay(flags),
    })
}

/// The first paragraph of a parser's complaint, as one line.
fn one_line(complaint: &str) -> String {
    let paragraph: Vec<&str> = complaint.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    format!("ringway: {}", paragraph.join(" ").trim_start_matches("error: "))
}

#[cfg(test)]
mod tests;
