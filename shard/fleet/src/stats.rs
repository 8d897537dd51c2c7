//! What each shard counts: plain single-writer cells that the metrics page sums up when it is asked for.
//!
//! Tables are indexed by small integers that the endpoint and error tables of `api` give out; this crate only keeps
//! the numbers.

use std::sync::Arc;

use crate::admission::AdmissionStats;
use crate::cell::Counter;
use crate::cell::Histogram;

/// Highest HTTP status counted by its own number.
const STATUS_MAX: usize = 599;

/// Sizes of the tables in [`ShardStats`] and [`ModelStats`].
#[derive(Clone, Debug)]
pub struct StatsShape {
    /// Number of endpoints in the endpoint table.
    pub endpoints: usize,
    /// Number of HTTP methods told apart.
    pub methods: usize,
    /// Number of error codes of the router.
    pub error_codes: usize,
    /// Upper bounds of every duration histogram, in microseconds.
    pub duration_bounds_us: Arc<[u64]>,
}

/// Everything one shard counts, apart from what is kept per model.
#[derive(Debug)]
pub struct ShardStats {
    /// Client connections open now.
    pub connections_active: Counter,
    /// Client connections accepted.
    pub connections_total: Counter,
    /// Client connections closed at once because the shard had reached its cap.
    pub connections_refused_total: Counter,
    /// Requests of clients that came over HTTP/2.
    pub http2_streams_total: Counter,
    /// Connections closed at once because their address had its fill.
    pub connections_over_address_total: Counter,
    /// Requests between head and last byte now.
    pub requests_active: Counter,
    /// Requests by endpoint and method: endpoint × methods + method.
    pub requests_total: Box<[Counter]>,
    /// Time from the request's head to the response's last byte, by the same index.
    pub request_duration: Box<[Histogram]>,
    /// Responses relayed or made, by status.
    pub responses_total: Box<[Counter]>,
    /// Responses the router made itself, by error code.
    pub errors_total: Box<[Counter]>,
    /// Responses received from workers, by status.
    pub upstream_responses_total: Box<[Counter]>,
    /// Failed exchanges with workers, by [`UpstreamFailure`].
    pub upstream_failures_total: [Counter; UpstreamFailure::COUNT],
    /// Attempts beyond the first, by endpoint.
    pub retries_total: Box<[Counter]>,
    /// Requests that ended because every allowed attempt failed, by endpoint.
    pub retries_exhausted_total: Box<[Counter]>,
    /// Retries not made because the budget was spent.
    pub retries_denied_total: Counter,
    /// Pauses before second, third, ... attempts: how many, and how long together in microseconds.
    pub backoffs: [Backoffs; BACKOFFS_TOLD_APART],
    /// Streams that another worker took over before their first token.
    pub streams_moved_total: Counter,
    /// Streams that another worker took over after it.
    pub streams_resumed_total: Counter,
    /// Clients that left before their answer was complete.
    pub client_aborts_total: Counter,
    /// Responses that a worker broke off after their first byte.
    pub broken_responses_total: Counter,
    /// New connections to workers.
    pub upstream_connects_total: Counter,
    /// Requests sent over a connection that had served one before.
    pub upstream_reuses_total: Counter,
    /// Idle connections to workers kept now.
    pub upstream_idle: Counter,
    /// Batches of reports not taken because control's inbox was full.
    pub reports_dropped_total: Counter,
    /// Spans not exported because too many waited.
    pub spans_dropped_total: Counter,
    /// Prompt blocks looked up in the prefix tree.
    pub prefix_blocks_total: Counter,
    /// Of these, blocks that the chosen worker was known to hold.
    pub prefix_blocks_matched_total: Counter,
    /// Bytes received from clients.
    pub received_bytes_total: Counter,
    /// Bytes sent to clients.
    pub sent_bytes_total: Counter,
    /// Turns of the shard's housekeeping: a shard that is stuck counts no more.
    pub ticks_total: Counter,
    /// What became of requests at the gate, if there is one.
    pub admission: AdmissionStats,
}

/// Pauses before an attempt, added up.
#[derive(Debug, Default)]
pub struct Backoffs {
    /// How many.
    pub count: Counter,
    /// How long together, in microseconds.
    pub sum_us: Counter,
}

/// Attempts whose pauses are counted apart; later ones count with the last.
pub const BACKOFFS_TOLD_APART: usize = 8;

impl ShardStats {
    /// All zero.
    pub fn new(shape: &StatsShape) -> Self {
        let counters = |n: usize| (0..n).map(|_| Counter::default()).collect::<Box<[_]>>();
        Self {
            connections_active: Counter::default(),
            ticks_total: Counter::default(),
            connections_total: Counter::default(),
            connections_refused_total: Counter::default(),
            connections_over_address_total: Counter::default(),
            http2_streams_total: Counter::default(),
            requests_active: Counter::default(),
            requests_total: counters(shape.endpoints * shape.methods),
            request_duration: (0..shape.endpoints * shape.methods)
                .map(|_| Histogram::new(Arc::clone(&shape.duration_bounds_us)))
                .collect(),
            responses_total: counters(STATUS_MAX + 1),
            errors_total: counters(shape.error_codes),
            upstream_responses_total: counters(STATUS_MAX + 1),
            upstream_failures_total: Default::default(),
            retries_total: counters(shape.endpoints),
            retries_exhausted_total: counters(shape.endpoints),
            retries_denied_total: Counter::default(),
            backoffs: Default::default(),
            streams_moved_total: Counter::default(),
            streams_resumed_total: Counter::default(),
            client_aborts_total: Counter::default(),
            broken_responses_total: Counter::default(),
            upstream_connects_total: Counter::default(),
            upstream_reuses_total: Counter::default(),
            upstream_idle: Counter::default(),
            reports_dropped_total: Counter::default(),
            spans_dropped_total: Counter::default(),
            prefix_blocks_total: Counter::default(),
            prefix_blocks_matched_total: Counter::default(),
            received_bytes_total: Counter::default(),
            sent_bytes_total: Counter::default(),
            admission: AdmissionStats::new(&shape.duration_bounds_us),
        }
    }
}

/// Table index of an HTTP status; anything out of range counts as the highest.
pub fn status_index(status: u16) -> usize {
    usize::from(status).min(STATUS_MAX)
}

/// Why an exchange with a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// The connection was refused or could not be made.
    Connect,
    /// Connecting took longer than the connect timeout.
    ConnectTimeout,
    /// The request could not be written.
    Send,
    /// The connection ended before a complete response head.
    Head,
    /// The response head broke the protocol.
    Protocol,
    /// The request timeout passed.
    Timeout,
    /// The connection ended inside the response body.
    Body,
    /// No connection could be made for want of descriptors, ports or memory here.
    Local,
    /// The TLS handshake failed.
    Tls,
    /// No token came for longer than a stream may stall.
    Stall,
}

impl UpstreamFailure {
    /// Number of variants.
    pub const COUNT: usize = 10;
    /// Every variant, in table order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Send,
        Self::Head,
        Self::Protocol,
        Self::Timeout,
        Self::Body,
        Self::Local,
        Self::Tls,
        Self::Stall,
    ];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Send => "send",
            Self::Head => "head",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Body => "body",
            Self::Local => "local",
            Self::Tls => "tls",
            Self::Stall => "stall",
        }
    }
}

/// What one shard counts for one model.
#[derive(Debug)]
pub struct ModelShardStats {
    /// Routed requests by endpoint: not streamed, streamed.
    pub requests_total: Box<[[Counter; 2]]>,
    /// Requests for which a worker was chosen, however often.
    pub begun_total: Counter,
    /// Workers chosen.
    pub selections_total: Counter,
    /// Head to last byte, by endpoint.
    pub duration: Box<[Histogram]>,
    /// Head to the first byte of the body of a successful response, by endpoint.
    pub ttft: Box<[Histogram]>,
    /// Gap between two reads of one stream that completed events, by endpoint.
    pub inter_token: Box<[Histogram]>,
}

/// What all shards count for one model; it lives as long as the process, so totals never go back.
#[derive(Debug)]
pub struct ModelStats {
    shards: Box<[ModelShardStats]>,
}

impl ModelStats {
    /// All zero, for `shards` shards.
    pub fn new(shards: usize, shape: &StatsShape) -> Self {
        let histograms = || {
            (0..shape.endpoints)
                .map(|_| Histogram::new(Arc::clone(&shape.duration_bounds_us)))
                .collect::<Box<[_]>>()
        };
        let one = || ModelShardStats {
            requests_total: (0..shape.endpoints).map(|_| Default::default()).collect(),
            begun_total: Counter::default(),
            selections_total: Counter::default(),
            duration: histograms(),
            ttft: histograms(),
            inter_token: histograms(),
        };
        Self { shards: (0..shards).map(|_| one()).collect() }
    }

    /// The part that shard `shard` writes.
    #[inline]
    pub fn shard(&self, shard: usize) -> &ModelShardStats {
        &self.shards[shard]
    }

    /// Every shard's part.
    pub fn shards(&self) -> &[ModelShardStats] {
        &self.shards
    }
}
