//! Traces: the requests of all shards as OpenTelemetry spans, exported over gRPC (`--enable-trace`).
//!
//! A shard writes each request's span and leaves them in a bounded channel, in batches. The services thread frames these
//! and sends them to the collector; while it cannot be reached, spans are dropped and counted, and nothing else suffers.

mod export;

use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use fleet::span::SpanBatch;
use otlp::Resource;
use tracing::info;
use tracing::warn;

use crate::traces::export::Collector;

/// Pause between two looks for spans.
const BATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Batches sent at a time.
const BATCHES_PER_CALL_MAX: usize = 32;
/// Longest time for a call to be answered.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Exports spans to `collector` (`host:port`) for as long as somebody may leave one.
pub(crate) async fn run(inbox: Receiver<SpanBatch>, collector: String) {
    let resource = Resource::new("ringway", env!("CARGO_PKG_VERSION"));
    let mut connection = Collector::new(collector.clone());
    let mut is_failing = false;
    loop {
        tokio::time::sleep(BATCH_INTERVAL).await;
        loop {
            let spans: Vec<Bytes> =
                inbox.try_iter().take(BATCHES_PER_CALL_MAX).map(|batch| batch.bytes.into()).collect();
            let batches = spans.len();
            if batches == 0 {
                break;
            }
            let exported = tokio::time::timeout(EXPORT_TIMEOUT, connection.export(&resource, spans)).await;
            let result = exported.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            match (&result, is_failing) {
                (Err(reason), false) => {
                    warn!(%collector, %reason, "spans cannot be exported and are dropped");
                }
                (Ok(()), true) => info!(%collector, "spans are exported again"),
                (Err(_), true) | (Ok(()), false) => {}
            }
            is_failing = result.is_err();
            if is_failing || batches < BATCHES_PER_CALL_MAX {
                break;
            }
        }
    }
}
