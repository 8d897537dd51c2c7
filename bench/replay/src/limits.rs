//! Bounds of what a trace may ask for.

/// Longest line of a trace file, in bytes. A prompt of [`BLOCKS_PER_REQUEST_MAX`] blocks fits.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Requests of one trace.
pub const REQUESTS_MAX: usize = 2_000_000;
/// Prompt blocks of one request.
pub const BLOCKS_PER_REQUEST_MAX: usize = 1 << 16;
/// Prompt blocks of one trace: 1 GiB of memory.
pub const BLOCKS_MAX: usize = 1 << 26;
/// Prompt tokens of one request.
pub const PROMPT_TOKENS_MAX: u32 = 1 << 24;
/// Answer tokens of one request.
pub const OUTPUT_TOKENS_MAX: u32 = 1 << 20;
/// Latest arrival of a trace, in microseconds: a year.
pub const AT_US_MAX: u64 = 365 * 24 * 3_600 * 1_000_000;
/// Simulated engines of one replay.
pub const WORKERS_MAX: usize = 1_024;
/// Policies compared in one replay.
pub const CONTENDERS_MAX: usize = 64;
/// Shards of a simulated gateway.
pub const SHARDS_MAX: usize = 1_024;
