//! Flags of `ringway replay`.

use std::path::PathBuf;

use clap::ArgGroup;
use clap::Args;
use fleet::rules::CacheAware;

/// What is replayed, over what, and what is told about it.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("source").required(true).args(["file", "synthetic"]))]
pub(crate) struct ReplayFlags {
    /// Policies to compare, separated by commas: the gateway's, oracle, oracle_ttft, or all, which leaves out those by
    /// key when the trace has none
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "POLICY")]
    pub(crate) policy: Vec<String>,
    #[command(flatten)]
    pub(crate) trace: TraceFlags,
    #[command(flatten)]
    pub(crate) pace: PaceFlags,
    #[command(flatten)]
    pub(crate) engine: SimulatedEngineFlags,
    #[command(flatten)]
    pub(crate) thresholds: ThresholdFlags,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw waiting times and hit rates as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Which requests.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Trace")]
pub(crate) struct TraceFlags {
    /// Trace of JSON lines: captured decisions, or Mooncake's shape
    pub(crate) file: Option<PathBuf>,
    /// Make a trace instead: multi_turn, shared_prefix or hot_prefix
    #[arg(long, value_name = "KIND")]
    pub(crate) synthetic: Option<String>,
    /// Requests to make, or to read at most
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<usize>,
    /// Made traces: prefixes there are
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) groups: u32,
    /// Made traces: tokens of each prefix
    #[arg(long, default_value_t = 4_096, value_name = "TOKENS")]
    pub(crate) prefix_tokens: u32,
    /// Made traces: requests name their conversation, or their group, by a session key
    #[arg(long)]
    pub(crate) session_keys: bool,
    /// Made traces: turns of a conversation, on average
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) turns: u32,
    /// Tokens of one of the file's hash_ids, where its lines do not say
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    pub(crate) block_tokens: u32,
    /// Unit of the file's timestamps: ms or s
    #[arg(long, default_value = "ms", value_name = "UNIT")]
    pub(crate) time_unit: String,
    /// Answer tokens of captured decisions, which are made before the answer is known
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub(crate) output_tokens: u32,
    /// Read captured decisions of this model only: prompts of several share nothing, and seldom their workers
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Also write the trace, in Mooncake's shape
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

/// When requests are sent.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pace", group = ArgGroup::new("pace").args(["speedup", "rate", "concurrency"]))]
pub(crate) struct PaceFlags {
    /// Replay the trace's times this many times as fast
    #[arg(long, value_name = "FACTOR")]
    pub(crate) speedup: Option<f64>,
    /// Send this many requests a second on average; made traces: 16 if nothing else is asked
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) rate: Option<f64>,
    /// Keep this many requests in flight instead
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) concurrency: Option<usize>,
}

/// What the engines are. The defaults are about an 8-billion-parameter model on one 80 GB accelerator.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engines")]
pub(crate) struct SimulatedEngineFlags {
    /// Simulated engines
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub(crate) workers: usize,
    /// Shards of the gateway, each with its own memory of what it placed a moment ago
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) shards: usize,
    /// Tokens of keys and values that fit into one
    #[arg(long, default_value_t = 400_000, value_name = "TOKENS")]
    pub(crate) cache_tokens: u64,
    /// Prompt tokens computed a second
    #[arg(long, default_value_t = 20_000.0, value_name = "TOKENS")]
    pub(crate) prefill_tokens_per_s: f64,
    /// Prompt tokens computed in one step at most
    #[arg(long, default_value_t = 2_048, value_name = "TOKENS")]
    pub(crate) chunk_tokens: u32,
    /// Time of every step, in microseconds
    #[arg(long, default_value_t = 8_000, value_name = "US")]
    pub(crate) step_us: u64,
    /// What each running request adds to it, in microseconds
    #[arg(long, default_value_t = 60, value_name = "US")]
    pub(crate) step_per_request_us: u64,
    /// Requests computed at a time; more wait
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) running_max: usize,
}

/// Thresholds of the gateway's policies.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Policies")]
pub(crate) struct ThresholdFlags {
    /// cache_aware: share of the prompt that must be known for affinity to decide, 0 to 1
    #[arg(long, default_value_t = CacheAware::default().cache_threshold, value_name = "SHARE")]
    pub(crate) cache_threshold: f32,
    /// cache_aware: load above the least, in requests, above which load decides; each of a list is a policy of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [CacheAware::default().balance_abs_threshold],
        value_name = "REQUESTS"
    )]
    pub(crate) balance_abs_threshold: Vec<u32>,
    /// cache_aware: load over the least, at least 1, above which load decides; each of a list is a policy of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [CacheAware::default().balance_rel_threshold],
        value_name = "RATIO"
    )]
    pub(crate) balance_rel_threshold: Vec<f32>,
    /// cache_aware: load over the average up to which affinity is followed, 0 for no bound (a long known prefix may wait
    /// behind up to eight requests more, one for every 4 KiB); each of a list is a policy of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [CacheAware::default().affinity_load_factor],
        value_name = "RATIO"
    )]
    pub(crate) affinity_load_factor: Vec<f32>,
}
