//! The data plane: one shard per CPU, each with its own accept loop, codec, worker connections and policy replica.
//!
//! A request's life, in the order of the modules that carry it: [`accept`] → [`conn`] (TLS, [`http2`], idle until
//! readable) → [`intake`] (head and body) → [`exchange`] (which endpoint) → [`admit`] (at once, or from a queue) →
//! [`route`] (which worker) → [`dispatch`] (attempts, each an [`ask`] over an [`upstream`] connection that [`dial`] made)
//! → [`relay`] → [`finish`].
//!
//! Invariants
//! - A shard talks to other threads only through [`port`], [`fleet::admission`] and atomic cells; nothing here waits for
//!   a lock.
//! - Routing is not async.
//! - What happened to a request is told once, in [`finish`], also when the client leaves.
//! - Peer bytes never panic, and every buffer has a bound in [`limits`].

mod accept;
mod admit;
mod aliases;
mod answer;
mod ask;
mod batches;
mod client;
mod clock;
mod conn;
mod dial;
mod dispatch;
mod encode;
mod exchange;
mod explain;
mod finish;
pub mod guard;
mod http2;
mod intake;
mod limits;
pub mod listen;
mod logprobs;
mod media;
mod page;
mod patience;
pub mod pick;
mod port;
mod prefill;
mod relay;
mod respond;
mod resume;
pub mod retry;
mod route;
pub mod rt;
mod spans;
mod splice;
mod stack;
mod state;
mod stop;
mod tenants;
mod upstream;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use fleet::access::TokenRoad;
use fleet::admin::AdminCall;
use fleet::admission::Gate;
use fleet::batch::BatchRoad;
use fleet::breaker::BreakerRules;
use fleet::budget::RetryBudget;
use fleet::cell::Lifecycle;
use fleet::decision::DecisionRing;
use fleet::peers::PeerCounts;
use fleet::report::Report;
use fleet::snapshot::Snapshot;
use fleet::span::SpanRoad;
use fleet::stats::ShardStats;
use fleet::tenants::Policies;
use fleet::tenants::Tenants;
use rustls::ClientConfig;
use rustls::ServerConfig;

use crate::guard::Guard;
use crate::listen::Listener;
use crate::retry::RetryRules;
use crate::rt::driver::IoDriver;
use crate::state::Shard;

/// What every shard goes by. Most of it may change while they run.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Headers, lower case, whose value says which session a request belongs to; the first present counts.
    pub session_headers: Vec<String>,
    /// Whether the first of them is the session policy's own (`--session-key`).
    pub has_session_key: bool,
    /// Whether only the model is served that a request names, also where there is one only (`--enable-igw`).
    pub has_exact_models: bool,
    /// Fields of the body that routing looks at: `previous_response_id`, then those that may stand in for the session
    /// headers, in their order.
    pub body_keys: Vec<String>,
    /// Whether clients may ask why a worker was chosen (`--explain-routing`).
    pub explain_routing: bool,
    /// Client connections of one shard; beyond it new ones are closed at once and counted.
    pub connections_max: u64,
    /// Largest request body, in bytes (`--max-payload-size`).
    pub payload_bytes_max: usize,
    /// Longest time from the head of a request to the end of its response (`--request-timeout-secs`).
    pub request_timeout: Duration,
    /// Longest time for a connection to a worker to be made.
    pub connect_timeout: Duration,
    /// Longest time from a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// Longest pause within a request body, and longest time a client may leave a response unread.
    pub body_timeout: Duration,
    /// Longest wait for control's answer: it must cover the slowest call, which waits for a worker to start.
    pub admin_timeout: Duration,
    /// Longest time a client connection may sit idle.
    pub keep_alive_timeout: Duration,
    /// Headers that may carry a request id, lower case; the first present wins (`--request-id-headers`).
    pub request_id_headers: Vec<String>,
    /// Connections by client address, if there is a bound (`--max-connections-per-address`).
    pub peers: Option<Arc<PeerCounts>>,
    /// Least bytes of a body per second after a moment of grace; 0 for no bound (`--min-body-rate`).
    pub body_rate_min: u64,
    /// TLS towards clients; plain connections without it.
    pub tls: Option<Arc<ServerConfig>>,
    /// TLS towards workers whose URL says so.
    pub worker_tls: Arc<ClientConfig>,
    /// How often a request is tried.
    pub retry: RetryRules,
    /// When a worker gets no more requests because too many failed; none for never (`--disable-circuit-breaker`).
    pub breaker: Option<BreakerRules>,
    /// Longest time for the first token of a stream; a worker that takes longer is replaced.
    pub first_token_timeout: Option<Duration>,
    /// Whether a stream whose worker fails after its first token goes on with another, where that is safe.
    pub stream_resume: bool,
    /// Longest time between two tokens of a stream; a worker that takes longer has failed.
    pub inter_token_timeout: Option<Duration>,
    /// Who may ask for what.
    pub guard: Arc<Guard>,
    /// Header, lower case, whose value names a request's tenant, if clients are trusted to say so.
    pub tenant_header: Option<String>,
    /// What tenants may ask for in a minute, if that is bounded.
    pub tenant_policies: Option<Arc<Policies>>,
    /// Whether clients are those of vLLM's production-stack router.
    pub has_stack: bool,
    /// Seed of this process's generators.
    pub seed: u64,
}

/// The roads between shards and the rest of the process.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Settings; shards take over changed ones within a tick.
    pub config: Arc<ArcSwap<ShardConfig>>,
    /// What to route by.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Whether to go on.
    pub lifecycle: Arc<Lifecycle>,
    /// To whoever exports spans, if requests are traced.
    pub spans: Option<SpanRoad>,
    /// How many retries may still be made.
    pub retry_budget: Arc<RetryBudget>,
    /// To control: what was noticed.
    pub reports: Sender<Vec<Report>>,
    /// To control: what only it can answer.
    pub admin: Sender<AdminCall>,
    /// To whoever verifies signed tokens, if they are accepted.
    pub tokens: Option<TokenRoad>,
    /// To the service of files and batches, where it is on.
    pub batches: Option<BatchRoad>,
    /// How many requests are in flight at a time, and who waits; none for no limit.
    pub gate: Option<Arc<Gate>>,
    /// What tenants have had.
    pub tenants: Arc<Tenants>,
}

/// One shard's own part.
#[derive(Debug)]
pub struct ShardPlace {
    /// Its number; also its column in every per-shard cell.
    pub index: usize,
    /// Its CPU, if it is pinned.
    pub cpu: Option<usize>,
    /// Its listening sockets; several when it serves those of a process that had more shards.
    pub listeners: Vec<Listener>,
    /// The control plane's own listening socket, if it has one: the first shard serves it.
    pub admin_listener: Option<Listener>,
    /// Its counters.
    pub stats: Arc<ShardStats>,
    /// Where its decisions are remembered.
    pub decisions: Arc<DecisionRing>,
    /// Its driver; [`IoDriver::Auto`] counts as io_uring here and must be resolved before.
    pub driver: IoDriver,
}

/// Starts a shard on a thread of its own, named `shard-N`. It ends when the lifecycle says so.
///
/// # Errors
/// When the thread cannot be started. Errors of the shard itself are the thread's result.
pub fn spawn(shared: Shared, place: ShardPlace, start: Instant) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("shard-{}", place.index)).spawn(move || {
        if let Some(cpu) = place.cpu {
            rt::cpu::pin(cpu)?;
        }
        rt::driver::block_on(place.driver, || async move {
            let ShardPlace { index, listeners, admin_listener, stats, decisions, .. } = place;
            let shard = Rc::new(Shard::new(index, shared, stats, decisions, start));
            accept::run(shard, listeners, admin_listener).await;
        })
    })
}
