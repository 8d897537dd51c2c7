//! Traces: the requests of all shards as OpenTelemetry spans, exported over gRPC (`--enable-trace`).
//!
//! A shard leaves each request's span in a bounded channel and goes on. The services thread takes them out in batches
//! and sends them to the collector; while it cannot be reached, spans are dropped and counted, and nothing else suffers.

mod export;
mod messages;

use std::time::Duration;

use crossbeam_channel::Receiver;
use fleet::span::Span;
use tracing::info;
use tracing::warn;

use crate::traces::export::Collector;

/// Pause between two looks for spans.
const BATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Spans sent at a time.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time for a batch to be taken.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct TraceConfig {
    /// `host:port` of the collector.
    pub(crate) collector: String,
    /// Time of the process's start in nanoseconds since 1970.
    pub(crate) start_unix_ns: u64,
}

/// Exports spans for as long as somebody may leave one.
pub(crate) async fn run(spans: Receiver<Span>, config: TraceConfig) {
    let mut collector = Collector::new(config.collector.clone());
    let mut is_failing = false;
    loop {
        tokio::time::sleep(BATCH_INTERVAL).await;
        loop {
            let batch: Vec<Span> = spans.try_iter().take(BATCH_SPANS_MAX).collect();
            if batch.is_empty() {
                break;
            }
            let count = batch.len();
            let message = messages::request(&batch, config.start_unix_ns);
            let exported = tokio::time::timeout(EXPORT_TIMEOUT, collector.export(&message)).await;
            let result = exported.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            match (&result, is_failing) {
                (Err(reason), false) => {
                    warn!(collector = %config.collector, %reason, "spans cannot be exported and are dropped");
                }
                (Ok(()), true) => info!(collector = %config.collector, "spans are exported again"),
                (Err(_), true) | (Ok(()), false) => {}
            }
            is_failing = result.is_err();
            if count < BATCH_SPANS_MAX || is_failing {
                break;
            }
        }
    }
}
