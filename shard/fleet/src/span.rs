//! Requests as a trace shows them (OpenTelemetry), on their way from a shard to whoever exports them.

use crossbeam_channel::Sender;

/// Spans that a shard hands over at a time, at most.
pub const SPANS_PER_BATCH_MAX: u32 = 64;
/// Batches that wait to be exported at most, over all shards; beyond it they are dropped and counted.
pub const SPAN_BATCHES_QUEUED_MAX: usize = 512;

/// Spans of requests that have ended, in their wire form.
#[derive(Debug, Default)]
pub struct SpanBatch {
    /// One behind the other, as `otlp::Span::push` writes them.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub count: u32,
}

/// Where shards leave their spans.
#[derive(Clone, Debug)]
pub struct SpanRoad {
    /// To the thread that exports them.
    pub batches: Sender<SpanBatch>,
    /// Time of the process's start in nanoseconds since 1970, from which a shard counts.
    pub start_unix_ns: u64,
}
