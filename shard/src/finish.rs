//! The end of a request: everything it did is told here, once, also when its client left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api::endpoint::Endpoint;
use api::endpoint::METHODS;
use api::endpoint::method_index;
use api::error::ErrorCode;
use fleet::admission::Permit;
use fleet::snapshot::Worker;
use fleet::stack::Stack;
use fleet::stats::status_index;
use fleet::tenants::Charge;
use otlp::Span;
use otlp::SpanContext;
use tracing::Level;
use tracing::info;

use crate::ShardConfig;
use crate::admit;
use crate::clock::micros;
use crate::guard::CorsBlock;
use crate::retry::Attempts;
use crate::route::Leg;
use crate::spans::Spans;
use crate::state::Shard;
use crate::tenants;

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is known to have gone wrong, and it is not complete: the client left if it stays so.
    Open,
    /// The client has its whole answer.
    Complete,
    /// The worker's answer broke off and the client was told so.
    Broken,
}

/// How far an answer was when its worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takeover {
    /// It had no token yet: another worker begins anew.
    Moved,
    /// It had some: another worker goes on.
    Resumed,
}

/// What a request did, told when it is dropped.
pub(crate) struct Trace<'a> {
    shard: &'a Rc<Shard>,
    pub(crate) endpoint: Endpoint,
    pub(crate) method: &'static str,
    pub(crate) request_id: String,
    /// The settings that the request began with: lines of one guard mean nothing to the next.
    pub(crate) config: Rc<ShardConfig>,
    /// What is other for clients of vLLM's production-stack router, if it is one.
    pub(crate) stack: Option<Arc<Stack>>,
    /// Which CORS headers the answer gets.
    pub(crate) cors: CorsBlock,
    /// Whose key the request came with, if it was a tenant's.
    pub(crate) tenant: Option<Arc<str>>,
    started: Instant,
    /// Its place among the requests in flight, if these are limited.
    pub(crate) permit: Option<Permit>,
    /// What its tenant was charged, if tenants have limits.
    pub(crate) charge: Option<Charge>,
    /// When its tenant may try again, if it was refused for its limits.
    pub(crate) retry_after_s: u32,
    /// How long it waited for a permit.
    pub(crate) queued_us: Option<u64>,
    /// Tokens of its prompt and answer, as far as they are known.
    pub(crate) tokens: u32,
    pub(crate) leg: Option<Leg>,
    /// Who computes its prompt, if that is somebody else than who answers.
    pub(crate) prefill: Option<Arc<Worker>>,
    pub(crate) attempts: Attempts,
    /// That another worker is to take over its answer, until that one has begun.
    pub(crate) takeover: Option<Takeover>,
    /// Where it stands in a trace, if requests are traced.
    pub(crate) span: Option<SpanContext>,
    pub(crate) routed: Option<Instant>,
    pub(crate) upstream_head: Option<Instant>,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) status: u16,
    pub(crate) error: Option<ErrorCode>,
    pub(crate) end: End,
}

impl<'a> Trace<'a> {
    pub(crate) fn begin(
        shard: &'a Rc<Shard>,
        endpoint: Endpoint,
        method: &'static str,
        request_id: String,
        started: Instant,
    ) -> Self {
        shard.stats.requests_total[row(endpoint, method)].add(1);
        shard.stats.requests_active.add(1);
        let config = shard.config();
        Self {
            shard,
            endpoint,
            method,
            request_id,
            cors: config.guard.cors_block_of_anybody(),
            stack: if config.has_stack {
                shard.with_snapshot(|snapshot| snapshot.fleet.stack.clone())
            } else {
                None
            },
            config,
            tenant: None,
            started,
            permit: None,
            charge: None,
            retry_after_s: 1,
            queued_us: None,
            tokens: 0,
            leg: None,
            prefill: None,
            attempts: Attempts::default(),
            takeover: None,
            span: None,
            routed: None,
            upstream_head: None,
            first_byte: None,
            status: 0,
            error: None,
            end: End::Open,
        }
    }

    /// When its head was there.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// A worker has begun its answer: if it took over from another, that has come to pass.
    pub(crate) fn answer_begun(&mut self) {
        match self.takeover.take() {
            None => {}
            Some(Takeover::Moved) => self.shard.stats.streams_moved_total.add(1),
            Some(Takeover::Resumed) => self.shard.stats.streams_resumed_total.add(1),
        }
    }

    fn count(&self, duration_us: u64) {
        let stats = &self.shard.stats;
        stats.requests_active.sub(1);
        stats.request_duration[row(self.endpoint, self.method)].record_us(duration_us);
        if self.status != 0 {
            stats.responses_total[status_index(self.status)].add(1);
        }
        match (self.end, self.error) {
            (End::Broken, _) => stats.broken_responses_total.add(1),
            (End::Open | End::Complete, Some(error)) => stats.errors_total[error.index()].add(1),
            (End::Open, None) => stats.client_aborts_total.add(1),
            (End::Complete, None) => {}
        }
        let Some(leg) = &self.leg else { return };
        let model = leg.stats().shard(self.shard.index);
        model.requests_total[self.endpoint.index()][usize::from(leg.is_stream)].add(1);
        model.duration[self.endpoint.index()].record_us(duration_us);
        // A worker's error is no first token.
        if let Some(first_byte) = self.first_byte
            && self.status < 300
        {
            model.ttft[self.endpoint.index()].record_us(micros(self.started, first_byte));
        }
    }

    /// The request as a trace shows it.
    fn span(&self, context: SpanContext, duration_us: u64, spans: &Spans) -> Span<'_> {
        Span {
            context,
            method: self.method,
            route: self.endpoint.template(),
            request_id: &self.request_id,
            start_unix_ns: spans.unix_ns(self.shard.clock.since_start_us(self.started)),
            duration_us,
            first_byte_us: self.first_byte.map(|at| micros(self.started, at)),
            queued_us: self.queued_us,
            status: self.status,
            error: self.error.map(ErrorCode::code),
            worker: self.leg.as_ref().map(|leg| &*leg.worker().url),
            attempts: self.attempts.made(),
            outcome: self.end.name(),
        }
    }

    fn log(&self, duration_us: u64) {
        let since_start = |at: Option<Instant>| at.map(|at| micros(self.started, at));
        let (worker, reason) =
            self.leg.as_ref().map_or(("", ""), |leg| (&*leg.worker().url, leg.reason.name()));
        info!(
            target: "access",
            request_id = %self.request_id,
            method = self.method,
            path = self.endpoint.template(),
            tenant = self.tenant.as_deref(),
            status = self.status,
            error = self.error.map(ErrorCode::code),
            worker,
            prefill = self.prefill.as_ref().map(|worker| &*worker.url),
            reason,
            attempts = self.attempts.made(),
            outcome = self.end.name(),
            queued_us = self.queued_us,
            routed_us = since_start(self.routed),
            head_us = since_start(self.upstream_head),
            first_byte_us = since_start(self.first_byte),
            total_us = duration_us,
            shard = self.shard.index,
            "request"
        );
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "client_left",
            Self::Complete => "complete",
            Self::Broken => "broken",
        }
    }
}

/// Where the counters of an endpoint and method stand.
fn row(endpoint: Endpoint, method: &str) -> usize {
    endpoint.index() * METHODS.len() + method_index(method)
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            admit::release(self.shard, permit, self.tokens);
        }
        tenants::settle(self.shard, self);
        let duration_us = micros(self.started, self.shard.clock.now());
        self.count(duration_us);
        if tracing::enabled!(target: "access", Level::INFO) {
            self.log(duration_us);
        }
        if let (Some(context), Some(spans)) = (self.span, &self.shard.ports.spans) {
            spans.push(&self.span(context, duration_us, spans), &self.shard.stats);
        }
    }
}
