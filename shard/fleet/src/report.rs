//! What shards tell control. Reports may be lost; correctness never depends on one.

use crate::id::WorkerId;

/// Reports per batch at most: a shard sends when it has this many.
pub const REPORTS_PER_BATCH_MAX: usize = 64;
/// Batches that wait for control at most, over all shards; beyond it they are dropped and counted.
pub const BATCHES_QUEUED_MAX: usize = 256;

/// One thing a shard noticed.
#[derive(Debug)]
pub enum Report {
    /// A prompt with these block hashes was sent to this worker.
    Placed {
        /// Who got it.
        worker: WorkerId,
        /// Version of the snapshot by which it was chosen: a worker whose cache was found to be empty later has lost
        /// the prompt.
        version: u64,
        /// Block hashes of the whole prompt, in order.
        blocks: Box<[u64]>,
    },
    /// This worker's circuit breaker has moved.
    Circuit {
        /// Whose.
        worker: WorkerId,
    },
    /// This worker could not be connected to; its cells count how often in a row.
    Failing {
        /// Who fails.
        worker: WorkerId,
    },
}
