//! Identity of a worker inside the process: a dense index guarded by a generation.

/// Names one registration of one worker.
///
/// `index` is dense and reused after removal, so tables keyed by it stay small; `generation` differs between two
/// registrations that share an index, so a stale id never resolves to a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    /// Position in the fleet's worker table.
    pub index: u32,
    /// Counts registrations; never reused.
    pub generation: u32,
}
