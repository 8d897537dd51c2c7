//! The commands and what they mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argh::FromArgs;

use crate::compare::compare;
use crate::cores;
use crate::load::Load;
use crate::report::{html, json, table};
use crate::run::{RunError, run as run_load};
use crate::shape::{Api, Shape};
use crate::target::Target;

/// Seconds a run lasts when neither its time nor its requests are given.
const SECONDS_DEFAULT: f64 = 10.0;

/// Makes load for an LLM gateway or engine and measures the answers.
#[derive(Debug, FromArgs)]
pub struct Command {
    #[argh(subcommand)]
    action: Action,
}

#[derive(Debug, FromArgs)]
#[argh(subcommand)]
enum Action {
    Run(Run),
    Compare(Compare),
}

/// Measure one target.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {
    /// http://HOST:PORT
    #[argh(positional)]
    url: String,
    /// short-chat, shared-prefix, multi-turn, agent-64k, agent-512k or stream (default short-chat)
    #[argh(option, default = "\"short-chat\".to_owned()")]
    shape: String,
    /// groups of the shared-prefix shape
    #[argh(option)]
    groups: Option<usize>,
    /// bytes of each group's prefix
    #[argh(option)]
    prefix_bytes: Option<usize>,
    /// turns of each conversation of the shared-prefix shape
    #[argh(option)]
    turns: Option<usize>,
    /// chat or generate (default chat)
    #[argh(option, default = "\"chat\".to_owned()")]
    api: String,
    /// stream the answers, whatever the shape
    #[argh(switch)]
    stream: bool,
    /// connections, over all cores (default 16)
    #[argh(option, default = "16")]
    connections: usize,
    /// arrivals a second, Poisson; without it each connection asks as soon as it is answered
    #[argh(option)]
    rate: Option<f64>,
    /// seconds during which requests are started (default 10, or no end with --requests)
    #[argh(option)]
    seconds: Option<f64>,
    /// requests to start
    #[argh(option)]
    requests: Option<u64>,
    /// the CPUs to pin a generator thread to, each, like 1 or 0,2-3 (default the last one)
    #[argh(option)]
    cores: Option<String>,
    /// most tokens in an answer (default 16)
    #[argh(option, default = "16")]
    max_tokens: u32,
    /// model to ask for (default "default")
    #[argh(option, default = "\"default\".to_owned()")]
    model: String,
    /// bearer key
    #[argh(option)]
    api_key: Option<String>,
    /// seed of texts and arrivals (default 1); the same seed asks the same texts, which a target may have cached
    #[argh(option, default = "1")]
    seed: u64,
    /// seconds to wait for a whole answer (default 60)
    #[argh(option, default = "60.0")]
    timeout_seconds: f64,
    /// write the measurements to this file as JSON
    #[argh(option)]
    json: Option<PathBuf>,
    /// write a report with plots to this file
    #[argh(option)]
    html: Option<PathBuf>,
    /// memory registered with each thread's rings, in KiB (default 64)
    #[argh(option, default = "64")]
    memory_kib: usize,
    /// exit with 0 even if requests failed
    #[argh(switch)]
    allow_errors: bool,
}

/// Measure two targets in turns and compare them.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "compare")]
struct Compare {
    /// the target A
    #[argh(positional)]
    url_a: String,
    /// the target B
    #[argh(positional)]
    url_b: String,
    /// rounds against each target (default 5)
    #[argh(option, default = "5")]
    rounds: usize,
    /// short-chat, shared-prefix, multi-turn, agent-64k, agent-512k or stream (default short-chat)
    #[argh(option, default = "\"short-chat\".to_owned()")]
    shape: String,
    /// chat or generate (default chat)
    #[argh(option, default = "\"chat\".to_owned()")]
    api: String,
    /// stream the answers, whatever the shape
    #[argh(switch)]
    stream: bool,
    /// connections, over all cores (default 16)
    #[argh(option, default = "16")]
    connections: usize,
    /// arrivals a second, Poisson; without it each connection asks as soon as it is answered
    #[argh(option)]
    rate: Option<f64>,
    /// seconds of each round (default 5, or no end with --requests)
    #[argh(option)]
    seconds: Option<f64>,
    /// requests of each round
    #[argh(option)]
    requests: Option<u64>,
    /// the CPUs to pin a generator thread to, each (default the last one)
    #[argh(option)]
    cores: Option<String>,
    /// most tokens in an answer (default 16)
    #[argh(option, default = "16")]
    max_tokens: u32,
    /// model to ask for (default "default")
    #[argh(option, default = "\"default\".to_owned()")]
    model: String,
    /// bearer key
    #[argh(option)]
    api_key: Option<String>,
    /// seed of the first round (default 1)
    #[argh(option, default = "1")]
    seed: u64,
    /// seconds to wait for a whole answer (default 60)
    #[argh(option, default = "60.0")]
    timeout_seconds: f64,
    /// memory registered with each thread's rings, in KiB (default 64)
    #[argh(option, default = "64")]
    memory_kib: usize,
    /// exit with 0 even if requests failed
    #[argh(switch)]
    allow_errors: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request was answered, or failures were allowed.
    Clean,
    /// Requests failed.
    RequestsFailed,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub enum CommandError {
    /// An argument means nothing; the text says which and what to give.
    Argument(String),
    /// There was no run.
    Run(RunError),
    /// A report could not be written.
    Report {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Carries out a command.
pub fn run(command: Command) -> Result<Outcome, CommandError> {
    match command.action {
        Action::Run(run) => run_one(run),
        Action::Compare(compare) => run_two(compare),
    }
}

fn run_one(arguments: Run) -> Result<Outcome, CommandError> {
    let target = target(&arguments.url)?;
    let load = arguments.load()?;
    let record = run_load(&load, &target, &load.shape.to_string()).map_err(CommandError::Run)?;
    print!("{}", table::text(&record));
    if let Some(path) = &arguments.json {
        write(path, &format!("{:#}\n", json::value(&load, &target, &record)))?;
    }
    if let Some(path) = &arguments.html {
        write(path, &html::page(&load, &target, &record))?;
    }
    Ok(outcome(record.failures_count(), arguments.allow_errors))
}

fn run_two(arguments: Compare) -> Result<Outcome, CommandError> {
    let (left, right) = (target(&arguments.url_a)?, target(&arguments.url_b)?);
    let (rounds, allow_errors) = (arguments.rounds, arguments.allow_errors);
    if rounds == 0 {
        return Err(CommandError::Argument("--rounds must be at least 1".to_owned()));
    }
    let load = arguments.into_run().load()?;
    let rounds = compare(&load, [&left, &right], rounds).map_err(CommandError::Run)?;
    print!("A = {left}\nB = {right}\n\n{}", rounds.table());
    let failures = rounds.failures_count();
    if failures > 0 {
        println!("\nfailures     {failures}");
    }
    Ok(outcome(failures, allow_errors))
}

fn outcome(failures: u64, allow_errors: bool) -> Outcome {
    if failures == 0 || allow_errors { Outcome::Clean } else { Outcome::RequestsFailed }
}

fn target(url: &str) -> Result<Target, CommandError> {
    url.parse().map_err(|error| CommandError::Argument(format!("{error}")))
}

fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|error| CommandError::Report { path: path.to_owned(), error })
}

fn seconds(name: &str, value: f64) -> Result<Duration, CommandError> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(CommandError::Argument(format!("{name} must be more than 0"))),
    }
}

// === impl Run ===

impl Run {
    fn load(&self) -> Result<Load, CommandError> {
        let bad = |what: &str| CommandError::Argument(what.to_owned());
        let duration = match (self.seconds, self.requests) {
            (Some(value), _) => Some(seconds("--seconds", value)?),
            (None, Some(_)) => None,
            (None, None) => Some(seconds("--seconds", SECONDS_DEFAULT)?),
        };
        if self.connections == 0 {
            return Err(bad("--connections must be at least 1"));
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(bad("--rate must be more than 0"));
        }
        let cores = match &self.cores {
            Some(list) => cores::parse(list).ok_or_else(|| bad("--cores is a list like 1 or 0,2-3"))?,
            None => vec![cores::last()],
        };
        Ok(Load {
            shape: self.shape()?,
            api: self.api.parse::<Api>().map_err(|error| bad(&format!("--api: {error}")))?,
            streams: self.stream,
            connections: self.connections,
            rate_per_s: self.rate,
            duration,
            requests_max: self.requests,
            cores,
            answer_tokens_max: self.max_tokens,
            model: self.model.clone(),
            seed: self.seed,
            salt: 0,
            timeout: seconds("--timeout-seconds", self.timeout_seconds)?,
            ring_memory_kib: self.memory_kib,
            api_key: self.api_key.clone(),
        })
    }

    fn shape(&self) -> Result<Shape, CommandError> {
        let shape = self.shape.parse::<Shape>();
        Ok(match shape.map_err(|error| CommandError::Argument(format!("--shape: {error}")))? {
            Shape::SharedPrefix { groups, prefix_bytes, turns } => Shape::SharedPrefix {
                groups: self.groups.unwrap_or(groups),
                prefix_bytes: self.prefix_bytes.unwrap_or(prefix_bytes),
                turns: self.turns.unwrap_or(turns),
            },
            other => other,
        })
    }
}

// === impl Compare ===

impl Compare {
    /// One round, as a run of its own.
    fn into_run(self) -> Run {
        let seconds = self.seconds.or(if self.requests.is_some() { None } else { Some(5.0) });
        Run {
            url: self.url_a,
            shape: self.shape,
            groups: None,
            prefix_bytes: None,
            turns: None,
            api: self.api,
            stream: self.stream,
            connections: self.connections,
            rate: self.rate,
            seconds,
            requests: self.requests,
            cores: self.cores,
            max_tokens: self.max_tokens,
            model: self.model,
            api_key: self.api_key,
            seed: self.seed,
            timeout_seconds: self.timeout_seconds,
            json: None,
            html: None,
            memory_kib: self.memory_kib,
            allow_errors: self.allow_errors,
        }
    }
}

// === impl CommandError ===

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Argument(text) => formatter.write_str(text),
            CommandError::Run(error) => error.fmt(formatter),
            CommandError::Report { path, error } => {
                write!(formatter, "cannot write {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for CommandError {}
