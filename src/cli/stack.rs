//! The command line of vLLM's production-stack router: the same flags, defaults and exit codes. What they mean is
//! lowered to the settings of every other command line by `config::stack`.

mod file;

use std::path::Path;
use std::path::PathBuf;

use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::ValueEnum;
use clap::error::ErrorKind;

use super::BatchFlags;
use super::Command;
use super::Exit;
use super::Given;
use super::Launch;
use super::one_line;

/// What the production-stack's router is called, and another router too: flags tell them apart.
const NAME: &str = "vllm-router";
/// Beginnings of flags that only this front end has.
const OWN: [&str; 12] = [
    "--static-",
    "--routing-l",
    "--k8s-",
    "--dynamic-config",
    "--engine-stats",
    "--request-stats",
    "--log-stats",
    "--max-instance-failover",
    "--prefill-model-labels",
    "--decode-model-labels",
    "--external-providers",
    "--lmcache-",
];
/// Flags of the other router of that name, and of SGLang's.
const OTHERS: [&str; 6] =
    ["--worker-urls", "--policy", "--pd-disaggregation", "--vllm-pd-disaggregation", "--prefill", "--decode"];
/// Flags whose features do not exist here.
const UNBUILT: [&str; 17] = [
    "--callbacks",
    "--external-providers-config",
    "--feature-gates",
    "--kv-aware-threshold",
    "--lmcache-controller-port",
    "--lmcache-health-check-interval",
    "--lmcache-heartbeat-port",
    "--lmcache-reply-port",
    "--lmcache-worker-timeout",
    "--otel-secure",
    "--pii-analyzer",
    "--semantic-cache-dir",
    "--semantic-cache-model",
    "--semantic-cache-threshold",
    "--sentry-dsn",
    "--sentry-profile-session-sample-rate",
    "--sentry-traces-sample-rate",
];

/// Where engines are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Discovery {
    /// In the flags.
    Static,
    /// In a Kubernetes cluster.
    K8s,
    /// Nowhere: external providers alone.
    ExternalOnly,
}

/// How an engine is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Logic {
    /// In turn.
    Roundrobin,
    /// By session, on a ring.
    Session,
    /// By the cache of another system.
    Kvaware,
    /// By the longest known prefix.
    Prefixaware,
    /// A prefill and a decode engine that share a store.
    #[value(name = "disaggregated_prefill")]
    DisaggregatedPrefill,
    /// A prefill and a decode engine, the first telling the second where its work is.
    #[value(name = "disaggregated_prefill_orchestrated")]
    DisaggregatedPrefillOrchestrated,
}

/// Routes requests to vLLM engines, as the router of vLLM's production-stack does
#[derive(Clone, Debug, Parser, PartialEq, Eq)]
#[command(name = NAME, version, infer_long_args = true, args_override_self = true)]
pub(crate) struct StackFlags {
    /// Address to bind
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) host: String,
    /// Port to listen on; metrics are served there too
    #[arg(long, default_value_t = 8001)]
    pub(crate) port: u16,
    /// Path that a proxy in front takes away before it forwards a request; nothing needs to be done about it here
    #[arg(long, default_value = "")]
    pub(crate) root_path: String,
    /// Where engines are found; required. external-only does not exist here
    #[arg(long, value_enum)]
    pub(crate) service_discovery: Option<Discovery>,
    /// URLs of engines, separated by commas
    #[arg(long, value_name = "URLS")]
    pub(crate) static_backends: Option<String>,
    /// The model of each of them; a URL may be given again with another model
    #[arg(long, value_name = "MODELS")]
    pub(crate) static_models: Option<String>,
    /// Other names for models, as alias:model
    #[arg(long, value_name = "ALIASES")]
    pub(crate) static_aliases: Option<String>,
    /// What each engine is asked for by health checks: chat, completion, embeddings, rerank, score, transcription, vision
    /// or messages
    #[arg(long, value_name = "TYPES")]
    pub(crate) static_model_types: Option<String>,
    /// A label for each engine, by which prefill and decode engines are told apart
    #[arg(long, value_name = "LABELS")]
    pub(crate) static_model_labels: Option<String>,
    /// Ask every engine for something small again and again, and leave out who does not answer well
    #[arg(long)]
    pub(crate) static_backend_health_checks: bool,
    /// Seconds between two such questions
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) static_backend_health_check_interval: u64,
    /// Longest time for the answer, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) static_backend_health_check_timeout_seconds: u64,
    /// How pods are reached; only pod-ip exists: by their addresses
    #[arg(long, default_value = "pod-ip", value_parser = ["pod-ip"])]
    pub(crate) k8s_service_discovery_type: String,
    /// Seconds after which a watch of the cluster is begun anew; 0 for as long as is usual, which is also the most
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) k8s_watcher_timeout_seconds: u32,
    /// Longest time for what an engine in a Kubernetes cluster is asked about itself, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) backend_health_check_timeout_seconds: u64,
    /// Port of engines in a Kubernetes cluster
    #[arg(long, default_value_t = 8000)]
    pub(crate) k8s_port: u16,
    /// Their namespace
    #[arg(long, default_value = "default")]
    pub(crate) k8s_namespace: String,
    /// Their label selector
    #[arg(long, default_value = "")]
    pub(crate) k8s_label_selector: String,
    /// How an engine is chosen; required. kvaware does not exist here
    #[arg(long, value_enum)]
    pub(crate) routing_logic: Option<Logic>,
    /// session: the header, or field of the body, that names a session
    #[arg(long, value_name = "NAME")]
    pub(crate) session_key: Option<String>,
    /// prefixaware: characters of prompt that must be known for it to decide
    #[arg(long, default_value_t = 0, value_name = "CHARACTERS")]
    pub(crate) prefix_min_match_length: u32,
    /// Further engines that a request is sent to when one cannot be connected to or breaks off before it answers
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) max_instance_failover_reroute_attempts: u32,
    /// Labels of prefill engines, separated by commas
    #[arg(long, value_name = "LABELS")]
    pub(crate) prefill_model_labels: Option<String>,
    /// Labels of decode engines, separated by commas
    #[arg(long, value_name = "LABELS")]
    pub(crate) decode_model_labels: Option<String>,
    /// Only noop: requests are not rewritten
    #[arg(long, default_value = "noop", value_parser = ["noop"])]
    pub(crate) request_rewriter: String,
    /// Seconds between two looks at what engines are busy with
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) engine_stats_interval: u64,
    /// Seconds over which requests are looked back at
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) request_stats_window: u64,
    /// Log what engines are busy with, again and again
    #[arg(long)]
    pub(crate) log_stats: bool,
    /// Seconds between two such blocks
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) log_stats_interval: u64,
    /// JSON file of settings that hold before those here; whatever changes in it holds at once
    #[arg(long, value_name = "FILE", conflicts_with = "dynamic_config_yaml")]
    pub(crate) dynamic_config_json: Option<PathBuf>,
    /// The same as YAML
    #[arg(long, value_name = "FILE")]
    pub(crate) dynamic_config_yaml: Option<PathBuf>,
    /// Least of what is logged; debug also logs every request's end
    #[arg(long, default_value = "info", value_parser = ["critical", "error", "warning", "info", "debug", "trace"])]
    pub(crate) log_level: String,
    /// text, or json for one object per line
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,
    /// Collector of spans, OTLP over gRPC: host:port, or http://host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) otel_endpoint: Option<String>,
    /// Only vllm-router
    #[arg(long, default_value = NAME, value_parser = [NAME])]
    pub(crate) otel_service_name: String,
    /// Threads that serve requests, one a CPU [default: the CPUs this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,
    /// CPUs to pin them to, such as 0-3,8
    #[arg(long, value_name = "LIST")]
    pub(crate) cpu_affinity: Option<String>,
    /// How they wait for sockets: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    pub(crate) io_driver: String,
    /// prefixaware: memory of known prefixes over all engines
    #[arg(long, default_value = "256MiB", value_name = "BYTES")]
    pub(crate) prefix_memory: String,
    /// Longest time for requests in flight to end after SIGTERM or SIGINT, in seconds
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    pub(crate) shutdown_grace_period_secs: u64,
    #[command(flatten)]
    pub(crate) batches: BatchFlags,
}

// === impl Logic ===

impl Logic {
    /// Its name as one types it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roundrobin => "roundrobin",
            Self::Session => "session",
            Self::Kvaware => "kvaware",
            Self::Prefixaware => "prefixaware",
            Self::DisaggregatedPrefill => "disaggregated_prefill",
            Self::DisaggregatedPrefillOrchestrated => "disaggregated_prefill_orchestrated",
        }
    }
}

// === impl Discovery ===

impl Discovery {
    /// Its name as one types it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::K8s => "k8s",
            Self::ExternalOnly => "external-only",
        }
    }
}

// === impl StackFlags ===

impl StackFlags {
    /// The file of settings, if there is one.
    pub(crate) fn dynamic_config(&self) -> Option<&Path> {
        self.dynamic_config_json.as_deref().or(self.dynamic_config_yaml.as_deref())
    }
}

/// Whether a command line is one of this front end: by its flags, or else by the name of the program.
pub(super) fn is_meant(argv: &[String]) -> bool {
    let Some((program, arguments)) = argv.split_first() else { return false };
    let has = |beginnings: &[&str]| {
        arguments.iter().any(|argument| beginnings.iter().any(|beginning| argument.starts_with(beginning)))
    };
    // SGLang's flag of this name takes no value.
    let names_discovery = arguments.iter().enumerate().any(|(at, argument)| {
        let value = match argument.strip_prefix("--service-discovery") {
            Some("") => arguments.get(at + 1).map_or("", String::as_str),
            Some(rest) => rest.strip_prefix('=').unwrap_or_default(),
            None => return false,
        };
        Discovery::from_str(value, true).is_ok()
    });
    if has(&OWN) || names_discovery {
        return true;
    }
    let is_other = |argument: &String| {
        OTHERS.iter().any(|flag| argument == flag || argument.starts_with(&format!("{flag}=")))
    };
    Path::new(program).file_name().is_some_and(|name| name == NAME) && !arguments.iter().any(is_other)
}

/// Reads such a command line, program name first, with the file that it may name.
pub(super) fn parse(argv: Vec<String>) -> Result<Command, Exit> {
    let command = StackFlags::command();
    if let Some(flag) = argv.iter().skip(1).find_map(|argument| unbuilt(&command, argument)) {
        return Err(Exit::Refused(format!("{NAME}: {flag} is not supported")));
    }
    let matches = command.try_get_matches_from(&argv).map_err(refused)?;
    let mut flags = StackFlags::from_arg_matches(&matches).map_err(refused)?;
    if let Some(path) = flags.dynamic_config().map(Path::to_owned) {
        let is_yaml = flags.dynamic_config_yaml.is_some();
        file::take_over(&path, is_yaml, &mut flags)
            .map_err(|error| failed(&format!("{}: {error}", path.display())))?;
    }
    let translated =
        super::translated(&crate::config::stack::arguments(&flags).map_err(|error| failed(&error))?)?;
    let stack = Some(Box::new(flags));
    Ok(Command::Launch(Box::new(Launch { flags: translated, given: Given::default(), argv, stack })))
}

/// The flag that `argument` is, in full or in part, if its feature does not exist here.
fn unbuilt(command: &clap::Command, argument: &str) -> Option<&'static str> {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    let long = name.strip_prefix("--").filter(|long| !long.is_empty())?;
    let is_built = |flag: &clap::Arg| flag.get_long().is_some_and(|known| known.starts_with(long));
    UNBUILT
        .iter()
        .copied()
        .find(|flag| *flag == name || (flag.starts_with(name) && !command.get_arguments().any(is_built)))
}

fn failed(error: &str) -> Exit {
    Exit::Failed(format!("{NAME}: {error}"))
}

fn refused(error: clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Shown(error.render().to_string()),
        _ => Exit::Refused(format!("{NAME}: {}", one_line(&error.render().to_string()))),
    }
}

#[cfg(test)]
mod tests;
