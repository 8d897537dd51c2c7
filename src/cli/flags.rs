//! Every flag that works, in groups, each with its default.

mod admission;
mod batches;
mod discovery;
mod edge;
mod life;
mod reliability;
pub(crate) mod security;
mod traces;

use std::path::PathBuf;

use clap::Args;
use fleet::rules::CacheAware;
use policy::Policy;

pub(crate) use self::batches::BatchFlags;
pub(crate) use self::discovery::DiscoveryFlags;
pub(crate) use self::edge::ClientFlags;
pub(crate) use self::edge::TlsFlags;
pub(crate) use self::life::LifeFlags;
pub(crate) use self::reliability::BreakerFlags;
pub(crate) use self::reliability::RetryFlags;
pub(crate) use self::traces::TraceFlags;
pub(crate) use crate::cli::flags::admission::AdmissionFlags;
use crate::cli::flags::security::SecurityFlags;

fn policy_help() -> String {
    format!("Policy of models whose workers name none: {}", Policy::NAMES.join(", "))
}

/// Flags of `ringway launch`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LaunchFlags {
    #[command(flatten)]
    pub(crate) listen: ListenFlags,
    #[command(flatten)]
    pub(crate) tls: TlsFlags,
    #[command(flatten)]
    pub(crate) workers: WorkerFlags,
    #[command(flatten)]
    pub(crate) pairs: PairFlags,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryFlags,
    #[command(flatten)]
    pub(crate) routing: RoutingFlags,
    #[command(flatten)]
    pub(crate) keys: KeyFlags,
    #[command(flatten)]
    pub(crate) health: HealthFlags,
    #[command(flatten)]
    pub(crate) retries: RetryFlags,
    #[command(flatten)]
    pub(crate) breakers: BreakerFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) clients: ClientFlags,
    #[command(flatten)]
    pub(crate) security: SecurityFlags,
    #[command(flatten)]
    pub(crate) admission: AdmissionFlags,
    #[command(flatten)]
    pub(crate) logs: LogFlags,
    #[command(flatten)]
    pub(crate) metrics: MetricFlags,
    #[command(flatten)]
    pub(crate) traces: TraceFlags,
    #[command(flatten)]
    pub(crate) batches: BatchFlags,
    #[command(flatten)]
    pub(crate) life: LifeFlags,
}

/// Where and on what the gateway runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub(crate) struct ListenFlags {
    /// Address to bind, IPv4 or IPv6; `::` answers both
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) host: String,
    /// Port to listen on
    #[arg(long, default_value_t = 30000)]
    pub(crate) port: u16,
    /// Shards, each one thread on one CPU [default: the CPUs this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,
    /// CPUs to pin shards to, such as 0-3,8, in this order [default: the CPUs this process may use]
    #[arg(long, value_name = "LIST")]
    pub(crate) cpu_affinity: Option<String>,
    /// How shards wait for sockets: auto, uring or epoll; auto is uring where the host allows it
    #[arg(long, default_value = "auto")]
    pub(crate) io_driver: String,
}

/// Which workers there are at start.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Workers")]
pub(crate) struct WorkerFlags {
    /// Worker URLs, any number of them: http://host:port or https://host:port
    #[arg(long, num_args = 0.., value_name = "URL")]
    pub(crate) worker_urls: Vec<String>,
    /// Kind of engine behind the workers; only sglang (any OpenAI-compatible HTTP server) works
    #[arg(long, default_value = "sglang")]
    pub(crate) backend: String,
    /// Another name for a model, which requests that use it are sent with; may be given several times
    #[arg(long, num_args = 1.., value_name = "ALIAS=MODEL")]
    pub(crate) model_alias: Vec<String>,
    /// Longest time for a worker to become healthy after it was added, in seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    pub(crate) worker_startup_timeout_secs: u64,
    /// Longest pause between two checks of a worker that is starting, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) worker_startup_check_interval: u64,
    /// Pause between two polls of what an engine is busy with, in seconds; 0 for none
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) load_monitor_interval: u64,
    /// Failed connects in a row after which a worker is removed; it joins again when it is healthy
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) max_worker_retries: u32,
    /// Route to each data-parallel rank of an engine as to a worker of its own; engines are asked how many they have
    #[arg(long)]
    pub(crate) dp_aware: bool,
}

/// Workers that share a request: one computes its prompt, another answers it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Prefill and decode")]
pub(crate) struct PairFlags {
    /// Requests are shared by a prefill and a decode worker where both serve their model
    #[arg(long, visible_alias = "vllm-pd-disaggregation")]
    pub(crate) pd_disaggregation: bool,
    /// A prefill worker's URL, and the port of its bootstrap server or none; may be given several times
    #[arg(long, num_args = 1..=2, value_names = ["URL", "PORT"])]
    pub(crate) prefill: Vec<String>,
    /// A decode worker's URL; may be given several times
    #[arg(long, num_args = 1.., value_name = "URL")]
    pub(crate) decode: Vec<String>,
    /// The same as --pd-disaggregation with the policy random for both roles, as SGLang's mini load balancer
    #[arg(long)]
    pub(crate) mini_lb: bool,
    /// Policy of prefill workers that name none [default: that of --policy]
    #[arg(long, value_name = "POLICY")]
    pub(crate) prefill_policy: Option<String>,
    /// Policy of decode workers that name none [default: that of --policy]
    #[arg(long, value_name = "POLICY")]
    pub(crate) decode_policy: Option<String>,
}

/// How a worker is chosen.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Routing")]
pub(crate) struct RoutingFlags {
    #[arg(long, default_value = "cache_aware", help = policy_help())]
    pub(crate) policy: String,
    /// Several models behind one gateway: a request gets the model it names, also where only one is served; without
    /// this a fleet of one model serves whatever is asked for
    #[arg(long)]
    pub(crate) enable_igw: bool,
    /// cache_aware: share of the prompt that must be known for affinity to decide, 0 to 1
    #[arg(long, default_value_t = 0.3, value_name = "SHARE")]
    pub(crate) cache_threshold: f32,
    /// cache_aware: load above the least loaded worker's, in requests, above which load decides; bucket: the same in
    /// bytes of prompt
    #[arg(long, default_value_t = 64, value_name = "REQUESTS")]
    pub(crate) balance_abs_threshold: u32,
    /// cache_aware, bucket: load over the least loaded worker's above which load decides, at least 1
    #[arg(long, default_value_t = 1.5, value_name = "RATIO")]
    pub(crate) balance_rel_threshold: f32,
    /// cache_aware: load over the average up to which a known prefix or session decides, at least 1; 0 for no bound; a
    /// long known prefix may wait behind up to eight requests more than the least loaded worker has, one for every 4 KiB
    #[arg(long, default_value_t = CacheAware::default().affinity_load_factor, value_name = "RATIO")]
    pub(crate) affinity_load_factor: f32,
    /// cache_aware: seconds between two clean-ups of what is no longer read; the bounds below hold at every write
    #[arg(long, alias = "eviction-interval-secs", default_value_t = 120, value_name = "SECONDS")]
    pub(crate) eviction_interval: u64,
    /// cache_aware: characters of prompt remembered per worker
    #[arg(long, default_value_t = 67_108_864, value_name = "CHARACTERS")]
    pub(crate) max_tree_size: usize,
    /// cache_aware: memory of the prefix tree over all workers, in bytes or with a unit such as 512MiB
    #[arg(long, default_value = "256MiB", value_name = "BYTES")]
    pub(crate) prefix_memory: String,
}

/// What requests are recognised by, and policies that go by it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Routing keys")]
pub(crate) struct KeyFlags {
    /// Headers, or fields of the body, whose value names a session; the first present counts
    #[arg(
        long,
        num_args = 0..,
        value_name = "NAME",
        default_values = ["x-session-id", "prompt_cache_key", "user"]
    )]
    pub(crate) affinity_keys: Vec<String>,
    /// session: the header, or field of the body, that names a session
    #[arg(long, value_name = "NAME")]
    pub(crate) session_key: Option<String>,
    /// manual: how a new key finds its worker: random, min_load or min_group
    #[arg(long, default_value = "random", value_name = "MODE")]
    pub(crate) assignment_mode: String,
    /// manual: seconds after which an unused key is forgotten
    #[arg(long, default_value_t = 14_400, value_name = "SECONDS")]
    pub(crate) max_idle_secs: u32,
    /// prefix_hash: tokens, of four bytes each, at the beginning of a prompt that choose its worker
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub(crate) prefix_token_count: u32,
    /// prefix_hash: load over the average up to which the ring decides, at least 1
    #[arg(long, default_value_t = 1.25, value_name = "RATIO")]
    pub(crate) prefix_hash_load_factor: f32,
    /// prefixaware: characters of prompt that must be known for it to decide
    #[arg(long, default_value_t = 0, value_name = "CHARACTERS")]
    pub(crate) prefix_min_match_length: u32,
    /// bucket: seconds between two adjustments of the workers' ranges of lengths
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub(crate) bucket_adjust_interval_secs: u64,
    /// Answer requests that carry `x-ringway-route: 1` with the reason for their worker, worker URLs included
    #[arg(long)]
    pub(crate) explain_routing: bool,
}

/// How workers are probed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Health")]
pub(crate) struct HealthFlags {
    /// Failed probes in a row that make a worker unhealthy
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) health_failure_threshold: u32,
    /// Good probes in a row that make it healthy again
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) health_success_threshold: u32,
    /// Longest time for one probe, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub(crate) health_check_timeout_secs: u64,
    /// Pause between two probes of a worker, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) health_check_interval_secs: u64,
    /// Path that is probed
    #[arg(long, default_value = "/health", value_name = "PATH")]
    pub(crate) health_check_endpoint: String,
    /// Do not probe workers once they have started
    #[arg(long)]
    pub(crate) disable_health_check: bool,
}

/// What a request may cost.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitFlags {
    /// Largest request body, in bytes
    #[arg(long, default_value_t = 536_870_912, value_name = "BYTES")]
    pub(crate) max_payload_size: usize,
    /// Longest time for a whole request with its response, in seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    pub(crate) request_timeout_secs: u64,
    /// Longest time to connect to a worker, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) connect_timeout_secs: u64,
    /// Longest time for a request head to arrive, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) head_timeout_secs: u64,
    /// Longest pause within a request body, or of a client that does not read its response, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) body_timeout_secs: u64,
    /// Longest time a client connection may be idle, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) keep_alive_timeout_secs: u64,
    /// Longest time for requests in flight to end after SIGTERM or SIGINT, in seconds
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    pub(crate) shutdown_grace_period_secs: u64,
    /// Headers that may carry a request id; the first present wins
    #[arg(
        long,
        num_args = 1..,
        value_name = "NAME",
        default_values = ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"]
    )]
    pub(crate) request_id_headers: Vec<String>,
}

/// What is logged, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogFlags {
    /// debug, info, warn or error; the environment variable RUST_LOG overrides it. info logs every request
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
    /// The same as --log-level debug
    #[arg(long)]
    pub(crate) verbose: bool,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub(crate) log_json: bool,
    /// Also write daily files into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
}

/// Where metrics are served.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct MetricFlags {
    /// Address of the Prometheus listener
    #[arg(long, default_value = "0.0.0.0", value_name = "HOST")]
    pub(crate) prometheus_host: String,
    /// Port of the Prometheus listener
    #[arg(long, default_value_t = 29000, value_name = "PORT")]
    pub(crate) prometheus_port: u16,
    /// Upper bounds of the duration histograms, in seconds, ascending
    #[arg(long, num_args = 1.., value_name = "SECONDS")]
    pub(crate) prometheus_duration_buckets: Vec<f64>,
}

/// Flags of `ringway demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoFlags {
    /// Port of the gateway
    #[arg(long, default_value_t = 30000)]
    pub(crate) port: u16,
    /// Simulated engines to start
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) engines: usize,
    #[arg(long, default_value = "cache_aware", help = policy_help())]
    pub(crate) policy: String,
    /// Port of the Prometheus listener
    #[arg(long, default_value_t = 29000)]
    pub(crate) prometheus_port: u16,
}

/// Flags of `ringway engine-sim`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineFlags {
    /// Address to bind
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: std::net::IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Model id to serve
    #[arg(long, default_value = "sim")]
    pub(crate) model: String,
    /// Blocks of the prefix cache, 32 tokens each
    #[arg(long, value_name = "N")]
    pub(crate) cache_blocks: Option<usize>,
    /// Prompt tokens computed per second
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prefill_tokens_per_s: Option<f64>,
    /// Tokens generated per second and request
    #[arg(long, value_name = "TOKENS")]
    pub(crate) decode_tokens_per_s: Option<f64>,
    /// Requests run at a time; more wait
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
}
