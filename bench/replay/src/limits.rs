//! Bounds of what a trace may ask for, and of what it may be replayed over. Within them no sum of virtual times
//! overflows, however long everything takes.

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
/// Tokens that fit into one engine's cache.
pub const CACHE_TOKENS_MAX: u64 = 1 << 40;
/// Slowest and fastest computing of a prompt, in tokens a second.
pub const PREFILL_TOKENS_PER_S_MIN: f64 = 10.0;
/// See [`PREFILL_TOKENS_PER_S_MIN`].
pub const PREFILL_TOKENS_PER_S_MAX: f64 = 1e9;
/// Prompt tokens of one step: a whole prompt.
pub const CHUNK_TOKENS_MAX: u32 = PROMPT_TOKENS_MAX;
/// Longest step, in microseconds, and what one request may add to it.
pub const STEP_US_MAX: u64 = 1_000_000;
/// See [`STEP_US_MAX`].
pub const STEP_PER_REQUEST_US_MAX: u64 = 100_000;
/// Requests computed at a time.
pub const RUNNING_MAX: usize = 1 << 16;
/// Groups of a made trace: one a request.
pub const GROUPS_MAX: u32 = REQUESTS_MAX as u32;
/// Tokens of a made prefix: half of what the blocks of one request may name, with room for the question.
pub const PREFIX_TOKENS_MAX: u32 = 1 << 21;
/// Turns of a made conversation, on average; the longest has twice as many.
pub const TURNS_MAX: u32 = 1_000;
