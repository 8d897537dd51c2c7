//! What control is told at start, and what is wrong with it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::breaker::BreakerRules;
use fleet::decision::DecisionRing;
use fleet::rules::Rules;
use fleet::secret::Secret;
use fleet::snapshot::Aliases;
use fleet::snapshot::Role;
use fleet::stack::Stack;
use fleet::stats::StatsShape;

use crate::control::destination::Destinations;
use crate::control::pace::PaceRules;
use crate::control::url::UrlError;

/// Settings of the control plane.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Shards that will read the snapshots; every per-worker cell has a slot for each.
    pub shards: usize,
    /// Sizes of the per-model counters.
    pub stats_shape: StatsShape,
    /// Seed of this process's generators.
    pub seed: u64,
    /// Seed of the block hashes, which a process keeps that goes on with another one's prefix tree.
    pub block_seed: u64,
    /// The policy of models whose workers name none, and the settings of every policy.
    pub rules: Rules,
    /// How often the bucket policy's ranges follow the lengths of prompts (`--bucket-adjust-interval-secs`).
    pub bucket_adjust_interval: Duration,
    /// Where each shard remembers its decisions, for `/debug/decisions`.
    pub decisions: Vec<Arc<DecisionRing>>,
    /// Workers to register at start (`--worker-urls`).
    pub worker_urls: Vec<String>,
    /// Workers of pairs to register at start (`--prefill`, `--decode`).
    pub pair_workers: Vec<PairWorker>,
    /// Workers of which everything is said (`--static-backends`).
    pub fixed_workers: Vec<FixedWorker>,
    /// Models by their other names (`--model-alias`).
    pub aliases: Arc<Aliases>,
    /// What is other for clients of vLLM's production-stack router; none for all others.
    pub stack: Option<Arc<Stack>>,
    /// Whether every data-parallel rank of an engine is a worker of its own (`--dp-aware`).
    pub dp_aware: bool,
    /// The gateway's own key, which start-up workers inherit (`--api-key`).
    pub api_key: Option<Secret>,
    /// Whether pages for everybody leave out who the workers are: the control plane is not open to everybody.
    pub hides_workers: bool,
    /// Where workers may be (`--allow-link-local-workers`).
    pub destinations: Destinations,
    /// How workers are checked.
    pub health: HealthConfig,
    /// How long a new worker may take to become healthy (`--worker-startup-timeout-secs`).
    pub startup_timeout: Duration,
    /// Longest pause between two attempts to reach a new worker (`--worker-startup-check-interval`).
    pub startup_check_interval: Duration,
    /// Bytes that the prefix tree may take (`--prefix-memory`).
    pub prefix_bytes_max: usize,
    /// Blocks that one worker may have in the prefix tree; `usize::MAX` for no bound (`--max-tree-size`).
    pub blocks_per_holder_max: usize,
    /// How often an idle process frees tree versions that readers let go (`--eviction-interval-secs`). The bounds
    /// themselves hold after every write and need no interval.
    pub eviction_interval: Duration,
    /// How often workers are asked what they are busy with; none for never (`--load-monitor-interval`).
    pub load_monitor_interval: Option<Duration>,
    /// When circuit breakers open and close; none if workers have none (`--cb-*`).
    pub breaker: Option<BreakerRules>,
    /// How long a worker that was in trouble takes to get its whole share again; zero for none
    /// (`--recovery-ramp-secs`).
    pub recovery_ramp: Duration,
    /// When a worker is slow beside others of its model; none if that is nobody's business (`--slow-worker-factor`).
    pub pace: Option<PaceRules>,
    /// Transport failures in a row after which a worker is removed; 0 for never (`--max-worker-retries`).
    pub worker_failures_max: u32,
    /// How long everything is still served after the order to end, while `/readiness` says draining
    /// (`--drain-settle-secs`).
    pub drain_settle: Duration,
    /// Longest wait for requests in flight at shutdown (`--shutdown-grace-period-secs`).
    pub shutdown_grace: Duration,
    /// Version of the gateway, for `/get_server_info`.
    pub version: &'static str,
    /// Time of the start in seconds since 1970, for the times in answers.
    pub started_unix_s: u64,
}

/// A prefill or decode worker that is registered at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairWorker {
    /// As given.
    pub url: String,
    /// Which half of a request it does.
    pub role: Role,
    /// Where a prefill worker hands over what it has computed.
    pub bootstrap_port: Option<u16>,
}

/// A worker of which everything is said, so that it serves from the moment it is named.
#[derive(Clone, Debug)]
pub struct FixedWorker {
    /// As given.
    pub url: String,
    /// What part of a request it does.
    pub role: Role,
    /// The connector by which it hands over, if it does that.
    pub connector: Option<&'static str>,
    /// What else is said.
    pub fixed: Arc<Fixed>,
}

/// What is said of a worker that is not asked.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// What it serves.
    pub models: Vec<String>,
    /// What it is asked for when its health is checked.
    pub asks: Vec<Inference>,
    /// Where it is, if its name has been looked up already.
    pub addresses: Vec<SocketAddr>,
}

/// Addresses come and go; what is said is the same.
impl PartialEq for Fixed {
    fn eq(&self, other: &Self) -> bool {
        (&self.models, &self.asks) == (&other.models, &other.asks)
    }
}

/// A small request that shows whether a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Path without base.
    pub path: &'static str,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

/// How workers are checked.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// Failed checks in a row that make a worker unhealthy.
    pub failure_threshold: u32,
    /// Good checks in a row that make it healthy again.
    pub success_threshold: u32,
    /// Longest wait for one check.
    pub timeout: Duration,
    /// Time between two checks.
    pub interval: Duration,
    /// Path that is asked for.
    pub endpoint: String,
    /// Whether workers are taken to be healthy once they were reached.
    pub disabled: bool,
}

/// Why control cannot start.
#[derive(Debug)]
pub enum ConfigError {
    /// A worker URL cannot be used.
    Url {
        /// As given, without what may be secret.
        url: String,
        /// What is wrong with it.
        error: UrlError,
    },
    /// Two worker URLs name the same worker.
    Duplicate {
        /// The second of them.
        url: String,
    },
    /// More workers than can be registered.
    TooManyWorkers,
    /// The key cannot be sent in a header.
    Key,
    /// The path to check health at is not a path.
    HealthEndpoint,
}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, error } => write!(formatter, "worker URL {url:?}: {error}"),
            Self::Duplicate { url } => write!(formatter, "worker URL {url:?} is given twice"),
            Self::TooManyWorkers => {
                write!(formatter, "more than {} worker URLs", crate::control::limits::WORKERS_MAX)
            }
            Self::Key => formatter.write_str("the API key must be printable ASCII without spaces"),
            Self::HealthEndpoint => {
                formatter.write_str("the health check endpoint must be a path that begins with /")
            }
        }
    }
}

impl std::error::Error for ConfigError {}
