//! The command line: what may be typed. What it means is `config`'s matter.
//!
//! Flags carry the names, arities and defaults of SGLang's router, in the spellings of both its Python and its Rust
//! front end. A flag whose feature is not built is refused by name, never ignored.

mod file;
mod flags;
mod replay;
pub(crate) mod stack;
mod unbuilt;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;
use clap::error::ErrorKind;

use crate::EXIT_FAILURE;
use crate::EXIT_USAGE;
pub(crate) use crate::cli::flags::AdmissionFlags;
pub(crate) use crate::cli::flags::BatchFlags;
pub(crate) use crate::cli::flags::BreakerFlags;
pub(crate) use crate::cli::flags::ClientFlags;
pub(crate) use crate::cli::flags::DemoFlags;
pub(crate) use crate::cli::flags::DiscoveryFlags;
pub(crate) use crate::cli::flags::EngineFlags;
pub(crate) use crate::cli::flags::LaunchFlags;
pub(crate) use crate::cli::flags::PairFlags;
pub(crate) use crate::cli::flags::RetryFlags;
pub(crate) use crate::cli::flags::TlsFlags;
pub(crate) use crate::cli::flags::TraceFlags;
pub(crate) use crate::cli::flags::security::SecurityFlags;
pub(crate) use crate::cli::replay::ReplayFlags;
pub(crate) use crate::cli::replay::ThresholdFlags;
use crate::cli::stack::StackFlags;

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Route.
    Launch(Box<Launch>),
    /// Route to simulated engines in this process.
    Demo(DemoFlags),
    /// Be one simulated engine.
    EngineSim(EngineFlags),
    /// Compare policies over a trace.
    Replay(Box<ReplayFlags>),
}

/// How to route.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) flags: LaunchFlags,
    /// The values of all flags, wherever they come from.
    pub(crate) given: Given,
    /// The command line, to be read again with what its file says by then.
    pub(crate) argv: Vec<String>,
    /// What was typed in the words of vLLM's production-stack, if it was; `flags` follow from it.
    pub(crate) stack: Option<Box<StackFlags>>,
}

/// The values of flags as they were given, by name.
#[derive(Default)]
pub(crate) struct Given(BTreeMap<String, Vec<OsString>>);

impl Given {
    fn of(command: &clap::Command, matches: &ArgMatches) -> Self {
        let value = |flag: &clap::Arg| {
            let values = matches.try_get_raw(flag.get_id().as_str()).ok()??;
            Some((format!("--{}", flag.get_long()?), values.map(ToOwned::to_owned).collect()))
        };
        Self(command.get_arguments().filter_map(value).collect())
    }

    /// Names of the flags whose values are others in `later`.
    pub(crate) fn changed(&self, later: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        names.into_iter().filter(|&name| self.0.get(name) != later.0.get(name)).cloned().collect()
    }
}

/// Keys are among them.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An early end: help, version, or a line that cannot be understood.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Printed to standard output, success.
    Shown(String),
    /// Printed to standard error, exit code 2.
    Refused(String),
    /// Printed to standard error, exit code 1.
    Failed(String),
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
            Self::Failed(text) => {
                eprintln!("{}", text.trim_end());
                ExitCode::from(EXIT_FAILURE)
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
    if stack::is_meant(&argv) {
        return stack::parse(argv);
    }
    if let Some(flag) = argv.iter().skip(1).find_map(|argument| unbuilt::find(argument)) {
        return Err(Exit::Refused(format!("ringway: {flag} is not supported yet")));
    }
    let mut command = Cli::command();
    // Names and aliases of global arguments are only known once it is built.
    command.build();
    let mut matches = read(&command, &argv)?;
    let typed = launch_matches(&matches);
    if let Some(path) = typed.and_then(|typed| typed.get_one::<PathBuf>("config")) {
        let typed = launch_matches(&matches).unwrap_or(&matches);
        let arguments = file::arguments(path, launch_command(&command, &matches), typed)
            .map_err(|error| Exit::Refused(format!("ringway: {error}")))?;
        // Behind the program's name, and the command's if there is one.
        let (front, typed) =
            argv.split_at(if matches.subcommand().is_some() { 2 } else { 1 }.min(argv.len()));
        matches = read(&command, &[front, &arguments, typed].concat())?;
    }
    let given = |matches: &ArgMatches| {
        launch_matches(matches).map(|typed| Given::of(launch_command(&command, matches), typed))
    };
    let given = given(&matches).unwrap_or_default();
    let cli = Cli::from_arg_matches(&matches).map_err(refused)?;
    let launch = |flags| Command::Launch(Box::new(Launch { flags, given, argv, stack: None }));
    Ok(match cli.command {
        None => launch(cli.launch),
        Some(Sub::Launch(flags)) => launch(*flags),
        Some(Sub::Demo(flags)) => Command::Demo(flags),
        Some(Sub::EngineSim(flags)) => Command::EngineSim(flags),
        Some(Sub::Replay(flags)) => Command::Replay(flags),
    })
}

/// The flags that another front end's mean, typed out as they would be here.
fn translated(argv: &[String]) -> Result<LaunchFlags, Exit> {
    let mut command = Cli::command();
    command.build();
    let matches = read(&command, argv)?;
    Ok(Cli::from_arg_matches(&matches).map_err(refused)?.launch)
}

fn read(command: &clap::Command, argv: &[String]) -> Result<ArgMatches, Exit> {
    command.clone().try_get_matches_from(argv).map_err(refused)
}

fn refused(error: clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Shown(error.render().to_string()),
        _ => Exit::Refused(format!("ringway: {}", one_line(&error.render().to_string()))),
    }
}

/// The flags of a command line that routes, which may do without the command's name.
fn launch_matches(matches: &ArgMatches) -> Option<&ArgMatches> {
    match matches.subcommand() {
        None => Some(matches),
        Some(("launch", typed)) => Some(typed),
        Some(_) => None,
    }
}

fn launch_command<'a>(command: &'a clap::Command, matches: &ArgMatches) -> &'a clap::Command {
    let named = matches.subcommand_name().and_then(|name| command.find_subcommand(name));
    named.unwrap_or(command)
}

/// The first paragraph of a parser's complaint, as one line.
fn one_line(complaint: &str) -> String {
    let paragraph: Vec<&str> = complaint.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    paragraph.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
