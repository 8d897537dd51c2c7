//! What the flags of files and batches mean.

use std::path::PathBuf;

use super::require;
use crate::Failure;
use crate::cli::BatchFlags;
use crate::cli::ClientFlags;

/// What the service of files and batches runs by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchConfig {
    /// Where it keeps everything.
    pub(crate) path: PathBuf,
    /// Connections that one address may have, if there is a bound: the gateway is a client of its own.
    pub(crate) connections_max: Option<usize>,
    /// Whether an error is no more than its text, as the production-stack's router has it.
    pub(crate) has_short_errors: bool,
}

/// Its configuration; none where it is off.
pub(super) fn lower(flags: &BatchFlags, clients: &ClientFlags) -> Result<Option<BatchConfig>, Failure> {
    let class = &flags.file_storage_class;
    require(class == "local_file", &format!("unknown --file-storage-class `{class}`: use local_file"))?;
    let processor = &flags.batch_processor;
    require(processor == "local", &format!("unknown --batch-processor `{processor}`: use local"))?;
    require(!flags.file_storage_path.as_os_str().is_empty(), "--file-storage-path must name a directory")?;
    let connections_max = clients.max_connections_per_address as usize;
    Ok(flags.enable_batch_api.then(|| BatchConfig {
        path: flags.file_storage_path.clone(),
        connections_max: (connections_max > 0).then_some(connections_max),
        has_short_errors: false,
    }))
}
