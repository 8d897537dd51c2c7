//! Flags of admission: how many requests are in flight, who waits, and who goes first.

use std::path::PathBuf;

use clap::Args;

/// How many requests are in flight at a time, and who waits.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Admission")]
pub(crate) struct AdmissionFlags {
    /// Requests to workers at a time, over all shards; -1 for no limit
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "N")]
    pub(crate) max_concurrent_requests: i64,
    /// Requests that may wait for one of them to end; more are refused with 429. 0 for no queue [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) queue_size: Option<u32>,
    /// Longest wait, in seconds, before a request is refused with 408 [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) queue_timeout_secs: Option<u64>,
    /// Request starts per second, over all shards, with a burst of --max-concurrent-requests; 0 for no such limit
    #[arg(long, value_name = "STARTS")]
    pub(crate) rate_limit_tokens_per_second: Option<u32>,
    /// Tell requests apart by x-smg-priority: system, interactive, default or bulk, each with a queue of its own
    #[arg(long)]
    pub(crate) priority_scheduler_enabled: bool,
    /// The highest class that a request can ask for
    #[arg(long, default_value = "default", value_name = "CLASS")]
    pub(crate) priority_scheduler_default_max_class: String,
    /// YAML file with what each class may have
    #[arg(long, value_name = "FILE")]
    pub(crate) priority_scheduler_config: Option<PathBuf>,
    /// Bound what each tenant may ask for in a minute, as --tenant-rate-limit-config says
    #[arg(long)]
    pub(crate) tenant_rate_limit_enabled: bool,
    /// YAML file with requests and tokens per minute of all tenants, and of some
    #[arg(long, value_name = "FILE")]
    pub(crate) tenant_rate_limit_config: Option<PathBuf>,
    /// Take the tenant of a request from a header; else it is told by its key or where it came from
    #[arg(long)]
    pub(crate) trust_tenant_header: bool,
    /// The header that names the tenant
    #[arg(long, default_value = "x-smg-tenant-id", value_name = "NAME")]
    pub(crate) tenant_header_name: String,
}
