//! The shard's doors to other threads: reports to control, admin calls, tokens and calls of batches with their answers.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use crossbeam_channel::Sender;
use fleet::access::Principal;
use fleet::access::TokenError;
use fleet::access::TokenRoad;
use fleet::admin::AdminCall;
use fleet::admin::AdminReply;
use fleet::batch::BatchRoad;
use fleet::report::REPORTS_PER_BATCH_MAX;
use fleet::report::Report;
use fleet::secret::Secret;
use fleet::stats::ShardStats;
use futures_channel::oneshot;
use otlp::SpanContext;
use wire::RequestHead;

use crate::Shared;
use crate::limits;
use crate::spans::Spans;
use crate::state::Shard;

pub(crate) struct Ports {
    reports: Sender<Vec<Report>>,
    admin: Sender<AdminCall>,
    tokens: Option<TokenRoad>,
    /// To the service of files and batches, where it is on.
    pub(crate) batches: Option<BatchRoad>,
    pub(crate) spans: Option<Spans>,
    batch: RefCell<Vec<Report>>,
    /// When the last batch left.
    flushed: Cell<Option<Instant>>,
    /// Whether a task is on its way that sends the batch.
    is_flush_due: Cell<bool>,
}

impl Ports {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            reports: shared.reports.clone(),
            admin: shared.admin.clone(),
            tokens: shared.tokens.clone(),
            batches: shared.batches.clone(),
            spans: shared.spans.clone().map(Spans::new),
            batch: RefCell::new(Vec::new()),
            flushed: Cell::new(None),
            is_flush_due: Cell::new(false),
        }
    }

    /// Takes a report. It leaves at once when the last batch left a while ago, so that other shards know of a
    /// conversation before its next turn; under load it leaves in batches, one per interval or when one is full.
    pub(crate) fn report(shard: &Rc<Shard>, report: Report) {
        let ports = &shard.ports;
        let is_full = {
            let mut batch = ports.batch.borrow_mut();
            batch.push(report);
            batch.len() >= REPORTS_PER_BATCH_MAX
        };
        let now = shard.clock.now();
        let is_rested =
            ports.flushed.get().is_none_or(|last| now.duration_since(last) >= limits::REPORT_INTERVAL);
        if is_full || is_rested {
            ports.flushed.set(Some(now));
            ports.flush(&shard.stats);
        } else if !ports.is_flush_due.replace(true) {
            let shard = Rc::clone(shard);
            monoio::spawn(async move {
                monoio::time::sleep(limits::REPORT_INTERVAL).await;
                shard.ports.is_flush_due.set(false);
                shard.ports.flushed.set(Some(shard.clock.now()));
                shard.ports.flush(&shard.stats);
            });
        }
    }

    /// Where a request stands in a trace: in its client's, or at the beginning of one. None if requests are not traced, or
    /// the client wants this one not to be.
    pub(crate) fn begin_span(&self, head: &RequestHead<'_>, draw: impl Fn() -> u64) -> Option<SpanContext> {
        self.spans.as_ref()?;
        match head.header("traceparent") {
            Some(traceparent) => SpanContext::of_client(traceparent, draw()),
            None => Some(SpanContext {
                trace_id: u128::from(draw()) << 64 | u128::from(draw()),
                span_id: draw(),
                parent_id: 0,
            }),
        }
    }

    /// Lets the spans go that have gathered.
    pub(crate) fn flush_spans(&self, stats: &ShardStats) {
        self.spans.iter().for_each(|spans| spans.flush(stats));
    }

    /// Sends what there is. A batch that control has no room for is dropped and counted.
    pub(crate) fn flush(&self, stats: &ShardStats) {
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        if !batch.is_empty() && self.reports.try_send(batch).is_err() {
            stats.reports_dropped_total.add(1);
        }
    }

    /// Hands a call to control; none when its inbox is full or it is gone.
    pub(crate) fn call(&self, make: impl FnOnce(oneshot::Sender<AdminReply>) -> AdminCall) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        self.admin.try_send(make(reply)).ok().map(|()| answer)
    }

    /// Has a token verified; none when there is no room for it.
    pub(crate) fn verify(&self, token: Secret) -> Option<oneshot::Receiver<Result<Principal, TokenError>>> {
        self.tokens.as_ref()?.call(token)
    }
}

/// The answer to an admin call, when it comes.
pub(crate) type Reply = oneshot::Receiver<AdminReply>;
