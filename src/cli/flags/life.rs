//! Flags of the life of the process: its configuration file, its end, and the process that comes after it.

use std::path::PathBuf;

use clap::Args;

/// How the process is set up, replaced and ended.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub(crate) struct LifeFlags {
    /// TOML file with flags: each key is a flag's name without the dashes. Flags of the command line win; SIGHUP reads
    /// it again
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Unix socket on which the gateway hands its sockets and all it knows to the one that is started after it with the
    /// same path
    #[arg(long, value_name = "PATH")]
    pub(crate) handover_socket: Option<PathBuf>,
    /// Time after SIGTERM or SIGINT in which /readiness says draining and everything is still served, in seconds
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) drain_settle_secs: u64,
}
