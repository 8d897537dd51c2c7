//! Spans of a shard's requests: written as each ends, and handed over in batches.

use std::cell::RefCell;

use fleet::span::SPANS_PER_BATCH_MAX;
use fleet::span::SpanBatch;
use fleet::span::SpanRoad;
use fleet::stats::ShardStats;
use otlp::Span;

/// What has not left yet.
pub(crate) struct Spans {
    road: SpanRoad,
    batch: RefCell<SpanBatch>,
    scratch: RefCell<Vec<u8>>,
}

impl Spans {
    pub(crate) fn new(road: SpanRoad) -> Self {
        Self { road, batch: RefCell::default(), scratch: RefCell::default() }
    }

    /// The time in nanoseconds since 1970 that is so many microseconds after the process's start.
    pub(crate) fn unix_ns(&self, since_start_us: u64) -> u64 {
        self.road.start_unix_ns.saturating_add(since_start_us.saturating_mul(1_000))
    }

    /// Takes the span of a request that has ended; a full batch leaves.
    pub(crate) fn push(&self, span: &Span<'_>, stats: &ShardStats) {
        let is_full = {
            let mut batch = self.batch.borrow_mut();
            span.push(&mut self.scratch.borrow_mut(), &mut batch.bytes);
            batch.count += 1;
            batch.count == SPANS_PER_BATCH_MAX
        };
        if is_full {
            self.flush(stats);
        }
    }

    /// Hands over what there is. A batch that nobody has room for is dropped and counted.
    pub(crate) fn flush(&self, stats: &ShardStats) {
        let batch = {
            let mut batch = self.batch.borrow_mut();
            // The next one will be about as long.
            let next = Vec::with_capacity(batch.bytes.len());
            SpanBatch {
                bytes: std::mem::replace(&mut batch.bytes, next),
                count: std::mem::take(&mut batch.count),
            }
        };
        let count = batch.count;
        if count > 0 && self.road.batches.try_send(batch).is_err() {
            stats.spans_dropped_total.add(count.into());
        }
    }
}
