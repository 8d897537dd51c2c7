//! Flags of files and batches.

use std::path::PathBuf;

use clap::Args;

/// Whether requests may come as files, and where these are kept.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Files and batches")]
pub(crate) struct BatchFlags {
    /// Serve /v1/files and /v1/batches: files of requests that are worked off in the background, and outlive a restart
    #[arg(long)]
    pub(crate) enable_batch_api: bool,
    /// How files are kept; only local_file exists
    #[arg(long, default_value = "local_file", value_name = "CLASS")]
    pub(crate) file_storage_class: String,
    /// Directory of the files and of what is known about them
    #[arg(long, default_value = "/tmp/vllm_files", value_name = "DIR")]
    pub(crate) file_storage_path: PathBuf,
    /// Who works batches off; only local exists: the gateway itself
    #[arg(long, default_value = "local", value_name = "PROCESSOR")]
    pub(crate) batch_processor: String,
}
