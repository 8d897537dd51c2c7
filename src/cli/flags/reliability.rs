//! Flags of what happens when workers fail: retries, circuit breakers, stalls, recovery.

use clap::Args;

/// When a request is tried again.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Retries")]
pub(crate) struct RetryFlags {
    /// Attempts of one request in all [default: 5, or --max-total-retries if that is given]
    #[arg(long, value_name = "N")]
    pub(crate) retry_max_retries: Option<u32>,
    /// Pause before the second attempt, in milliseconds
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pub(crate) retry_initial_backoff_ms: u64,
    /// Longest pause between two attempts, also if a worker's Retry-After asks for more, in milliseconds
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    pub(crate) retry_max_backoff_ms: u64,
    /// How many times longer each pause is than the one before, at least 1
    #[arg(long, default_value_t = 1.5, value_name = "FACTOR")]
    pub(crate) retry_backoff_multiplier: f64,
    /// Share by which a pause is longer or shorter at random, 0 to 1
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    pub(crate) retry_jitter_factor: f64,
    /// Retries of all requests together, as a percentage of the requests; some are allowed in any case
    #[arg(long, default_value_t = 20, value_name = "PERCENT")]
    pub(crate) retry_budget_percent: u32,
    /// Try each request once
    #[arg(long)]
    pub(crate) disable_retries: bool,
    /// Have a chat or completion whose worker fails after its first token go on with another (SGLang and vLLM engines),
    /// where that is safe: not with tools, log probabilities, several choices or a grammar
    #[arg(long)]
    pub(crate) stream_resume: bool,
    /// Attempts of one request in all; the older name of --retry-max-retries
    #[arg(long, value_name = "N")]
    pub(crate) max_total_retries: Option<u32>,
}

/// When a worker gets no requests for a while.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Circuit breakers")]
pub(crate) struct BreakerFlags {
    /// Failed requests in a row that keep further ones from a worker
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) cb_failure_threshold: u32,
    /// Good requests after that pause that bring all of them back; as many try the worker at a time
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) cb_success_threshold: u32,
    /// Pause until some requests try the worker again, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) cb_timeout_duration_secs: u64,
    /// Time within which the failures in a row must fall, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) cb_window_duration_secs: u64,
    /// Send requests to a worker however many fail
    #[arg(long)]
    pub(crate) disable_circuit_breaker: bool,
    /// Time in which a worker that was in trouble gets its whole share of requests again, in seconds; 0 for at once
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) recovery_ramp_secs: u64,
    /// Keep requests from a worker for a while whose streams take so many times as long as the median of its model's
    /// workers, between tokens or to the first one; of ten workers one at most. 0 for never
    #[arg(long, default_value_t = 5.0, value_name = "FACTOR")]
    pub(crate) slow_worker_factor: f64,
    /// Longest time for the first token of a stream, in seconds; a worker that takes longer is replaced. 0 for no bound
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) first_token_timeout_secs: u64,
    /// Longest time between two tokens of a stream, in seconds; comments are no tokens. 0 for no bound
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) inter_token_timeout_secs: u64,
}
