//! One registered worker as control knows it, and how checks move it from state to state.
//!
//! ```text
//!            reached             described          thresholds
//!  Pending ────────────▶ Reached ────────────▶ Ready ◀──────────▶ Unhealthy
//!     └───────────────────┬─┴────────────────────┴─────────────────┘
//!                         │ removed
//!                         ▼
//!                      Draining ──▶ gone, when its last request ends
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::metadata::Dialect;
use engine::metadata::Metadata;
use fleet::admin::AdminReply;
use fleet::board::Board;
use fleet::cell::WorkerCells;
use fleet::id::WorkerId;
use fleet::secret::Secret;
use fleet::snapshot::Handoff;
use fleet::snapshot::PoolName;
use fleet::snapshot::Role;
use fleet::snapshot::Weight;
use fleet::snapshot::Worker;
use fleet::tally::Tallies;
use futures_channel::oneshot;
use serde::Deserialize;
use serde::Serialize;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::control::config::Fixed;
use crate::control::config::HealthConfig;
use crate::control::limits::ADDRESSES_MAX;
use crate::control::limits::CHECK_INTERVAL_MIN;
use crate::control::pace::Pacing;
use crate::control::poll::Polling;
use crate::control::state::engine_cost::EngineCost;
use crate::control::stats::Health;
use crate::control::task::Lookup;
use crate::control::task::Target;
use crate::control::url::WorkerUrl;

/// A worker's whole share of requests, in eighths.
pub(crate) const FULL_SHARE: u16 = 8;

/// The label that names the policy of a worker's models, as in SGLang's gateway.
pub(crate) const POLICY_LABEL: &str = "policy";

/// What whoever registers a worker says about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WorkerSpec {
    pub(crate) url: WorkerUrl,
    pub(crate) api_key: Option<Secret>,
    /// Overrides what the worker says it serves.
    pub(crate) model_id: Option<String>,
    pub(crate) role: Role,
    /// Where a prefill worker hands over what it has computed.
    pub(crate) bootstrap_port: Option<u16>,
    pub(crate) priority: u32,
    pub(crate) cost: f64,
    pub(crate) labels: BTreeMap<String, String>,
    /// What it serves and more, where all of that is said by its source: it is not asked then.
    pub(crate) fixed: Option<Arc<Fixed>>,
    /// Fields that are shown as they were given.
    pub(crate) declared: BTreeMap<&'static str, String>,
    pub(crate) checks: Checks,
    /// Who says so.
    pub(crate) source: Source,
}

/// Who says that a worker belongs to the fleet, and may take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Source {
    /// The settings of the process: `--worker-urls`, a configuration file.
    Settings,
    /// Whoever called the admin API.
    Admin,
    /// Pods of a Kubernetes cluster.
    Kubernetes,
    /// A watched list of workers.
    File,
    /// A name in the domain name system.
    Dns,
}

/// How one worker is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
    pub(crate) disabled: bool,
}

/// Where a worker stands, with what that state counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not reached yet, after this many attempts.
    Pending { failures: u32 },
    /// Reached, and asked what it serves.
    Reached,
    /// Gets requests; this many checks failed in a row.
    Ready { failures: u32 },
    /// Gets none; this many checks went well in a row.
    Unhealthy { successes: u32 },
    /// Removed; its last requests go on.
    Draining,
}

/// How far a worker is on its way back from trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It gets all its share.
    Over,
    /// Its circuit breaker has not closed yet.
    Awaited,
    /// It gets more and more, since then.
    Since(Duration),
}

/// What a check changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that others see.
    None,
    /// A new worker answered.
    Reached,
    /// A ready worker failed once too often.
    Lost,
    /// An unhealthy worker is back.
    Recovered,
}

/// One registration.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: WorkerId,
    pub(crate) uuid: Uuid,
    pub(crate) spec: WorkerSpec,
    pub(crate) stage: Stage,
    /// When it was registered.
    pub(crate) since: Duration,
    /// When it is to be checked next; none while a task is under way, or when no check is needed.
    pub(crate) due: Option<Duration>,
    /// Whether services have a task about it.
    pub(crate) is_under_way: bool,
    /// Whether it was silent when last asked what it serves, and is to be asked again with its next check.
    pub(crate) owes_description: bool,
    /// How fast it is, and whether it gets no requests because it is slow.
    pub(crate) pacing: Pacing,
    /// Whether its circuit breaker keeps requests away.
    pub(crate) is_tripped: bool,
    /// When its circuit breaker, or its ramp, goes on; none while neither has anywhere to go.
    pub(crate) circuit_due: Option<Duration>,
    /// Whether it was removed for failing and is waited for.
    pub(crate) is_expected_back: bool,
    /// How far it is on its way back from trouble.
    pub(crate) recovery: Recovery,
    /// What its source said last, if that is asked again and again: an admin may have said otherwise since.
    pub(crate) discovered: Option<Box<WorkerSpec>>,
    /// Polls of what it is busy with.
    pub(crate) polling: Polling,
    /// Who waits for it to become healthy.
    pub(crate) waiting: Option<oneshot::Sender<AdminReply>>,
    pub(crate) metadata: Box<Metadata>,
    /// Pools it is in, that of its main model first; empty until it was described.
    pub(crate) pools: Vec<PoolName>,
    pub(crate) cells: Arc<WorkerCells>,
    /// The first version published after its cache was last found to be empty: who was chosen by an earlier one may
    /// hold the prompt no longer.
    pub(crate) emptied_version: u64,
    /// What is counted of its engine, where statistics by engine are kept.
    tallies: Option<Arc<Tallies>>,
    /// Whether its engine was put to sleep: it gets no requests.
    pub(crate) is_asleep: bool,
    /// What its engine counts as on the boards of its models.
    pub(crate) engine_costs: Vec<EngineCost>,
    /// How much of its share of requests it gets, [`FULL_SHARE`] but while it recovers.
    share_eighths: u16,
    /// As something to call.
    pub(crate) target: Arc<Target>,
    /// As shards see it.
    pub(crate) published: Arc<Worker>,
}

// === impl WorkerSpec ===

impl WorkerSpec {
    /// The policy that its labels name for its models.
    pub(crate) fn policy(&self) -> Option<&str> {
        self.labels.get(POLICY_LABEL).map(String::as_str)
    }
}

// === impl Checks ===

impl From<&HealthConfig> for Checks {
    fn from(config: &HealthConfig) -> Self {
        Self {
            timeout: config.timeout,
            interval: config.interval.max(CHECK_INTERVAL_MIN),
            success_threshold: config.success_threshold,
            failure_threshold: config.failure_threshold,
            disabled: config.disabled,
        }
    }
}

// === impl Stage ===

impl Stage {
    /// The state after a check of this outcome.
    fn after_check(self, is_alive: bool, checks: &Checks) -> (Self, Change) {
        match (self, is_alive) {
            // Pending => (Pending | Reached)
            (Self::Pending { .. }, true) => (Self::Reached, Change::Reached),
            (Self::Pending { failures }, false) => {
                (Self::Pending { failures: failures.saturating_add(1) }, Change::None)
            }
            // Ready => (Ready | Unhealthy)
            (Self::Ready { .. }, true) => (Self::Ready { failures: 0 }, Change::None),
            (Self::Ready { failures }, false) if failures + 1 >= checks.failure_threshold => {
                (Self::Unhealthy { successes: 0 }, Change::Lost)
            }
            (Self::Ready { failures }, false) => (Self::Ready { failures: failures + 1 }, Change::None),
            // Unhealthy => (Unhealthy | Ready)
            (Self::Unhealthy { .. }, false) => (Self::Unhealthy { successes: 0 }, Change::None),
            (Self::Unhealthy { successes }, true) if successes + 1 >= checks.success_threshold => {
                (Self::Ready { failures: 0 }, Change::Recovered)
            }
            (Self::Unhealthy { successes }, true) => {
                (Self::Unhealthy { successes: successes + 1 }, Change::None)
            }
            // A check that was under way when the worker moved on says nothing any more.
            (Self::Reached | Self::Draining, _) => (self, Change::None),
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn new(id: WorkerId, uuid: Uuid, spec: WorkerSpec, now: Duration) -> Self {
        let cells = Arc::new(WorkerCells::default());
        let addresses: Box<[SocketAddr]> = spec.url.literal_address().into_iter().collect();
        Self {
            id,
            uuid,
            stage: Stage::Pending { failures: 0 },
            since: now,
            due: None,
            is_under_way: false,
            owes_description: false,
            pacing: Pacing::default(),
            is_tripped: false,
            circuit_due: None,
            is_expected_back: false,
            recovery: Recovery::Over,
            discovered: None,
            polling: Polling::new(),
            waiting: None,
            metadata: Box::default(),
            pools: Vec::new(),
            emptied_version: 0,
            tallies: None,
            is_asleep: false,
            engine_costs: Vec::new(),
            target: target(&spec),
            published: Arc::new(published(id, &spec, addresses, &cells, SmallVec::new(), Said::default())),
            share_eighths: FULL_SHARE,
            cells,
            spec,
        }
    }

    pub(crate) fn health(&self) -> Health {
        match self.stage {
            Stage::Pending { .. } | Stage::Reached => Health::Pending,
            Stage::Ready { .. } => Health::Ready,
            Stage::Unhealthy { .. } => Health::Unhealthy,
            Stage::Draining => Health::Draining,
        }
    }

    /// Whether shards may send it requests.
    pub(crate) fn is_routable(&self) -> bool {
        self.is_up() && self.pacing.ejected().is_none()
    }

    /// Whether it could get requests, were it not for being slow.
    pub(crate) fn is_up(&self) -> bool {
        self.health() == Health::Ready
            && !self.published.addresses.is_empty()
            && !self.is_tripped
            && !self.is_asleep
    }

    /// Whether it was removed for failing, and has not been heard of since.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_expected_back && self.health() == Health::Pending
    }

    /// The main model, as far as it is known.
    pub(crate) fn model(&self) -> &str {
        self.pools.first().map_or("unknown", |pool| &pool.model)
    }

    pub(crate) fn lookup(&self) -> Lookup {
        if self.spec.url.literal_address().is_some() { Lookup::Needless } else { Lookup::Needed }
    }

    /// Takes the outcome of a check and says what it changed.
    pub(crate) fn on_check(&mut self, is_alive: bool) -> Change {
        let (stage, change) = self.stage.after_check(is_alive, &self.spec.checks);
        self.stage = stage;
        change
    }

    /// Takes over looked-up addresses; true if they are others than before. Resolvers rotate their answers, so the
    /// order alone is no change.
    pub(crate) fn set_addresses(&mut self, mut addresses: Vec<SocketAddr>) -> bool {
        addresses.truncate(ADDRESSES_MAX);
        let sorted = |addresses: &[SocketAddr]| {
            let mut sorted = addresses.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            sorted
        };
        if addresses.is_empty() || sorted(&addresses) == sorted(&self.published.addresses) {
            return false;
        }
        self.publish(addresses.into(), self.published.boards.clone());
        true
    }

    /// Has its load kept on `boards`, those of the models it serves, from the next request on.
    pub(crate) fn set_boards(&mut self, boards: SmallVec<[Arc<Board>; 1]>) {
        self.publish(self.published.addresses.clone(), boards);
    }

    /// Has it serve these pools from now on, of which everything is known.
    pub(crate) fn join(&mut self, pools: Vec<PoolName>, boards: SmallVec<[Arc<Board>; 1]>) {
        let given = self.spec.fixed.as_ref().map(|fixed| fixed.addresses.clone()).unwrap_or_default();
        let addresses = if given.is_empty() { self.published.addresses.clone() } else { given.into() };
        self.pools = pools;
        self.tally();
        self.stage = Stage::Ready { failures: 0 };
        self.publish(addresses, boards);
    }

    /// Has requests to it counted by the models it serves: anew if these are others than before.
    pub(crate) fn tally(&mut self) {
        let models = self.pools.iter().map(|pool| &pool.model);
        if self
            .tallies
            .as_ref()
            .is_none_or(|of| !of.by_model.iter().map(|(model, _)| model).eq(models.clone()))
        {
            self.tallies = Some(Arc::new(Tallies::new(self.uuid.to_string(), models.cloned())));
        }
    }

    fn publish(&mut self, addresses: Box<[SocketAddr]>, boards: SmallVec<[Arc<Board>; 1]>) {
        let said = Said {
            share_eighths: self.share_eighths,
            speaks_http2: self.metadata.speaks_http2,
            can_continue: self.metadata.dialect.can_continue(),
            is_vllm: self.metadata.dialect == Dialect::Vllm,
        };
        let worker = published(self.id, &self.spec, addresses, &self.cells, boards, said);
        self.published = Arc::new(Worker { tallies: self.tallies.clone(), ..worker });
    }

    /// Gives it so much of its share of requests; true if it had another.
    pub(crate) fn set_share(&mut self, eighths: u16) -> bool {
        if eighths == self.share_eighths {
            return false;
        }
        self.share_eighths = eighths;
        self.publish(self.published.addresses.clone(), self.published.boards.clone());
        true
    }

    /// Has it be this rank behind its address, or all there is.
    pub(crate) fn set_rank(&mut self, rank: Option<u16>) {
        self.spec.url = self.spec.url.at_rank(rank);
        self.target = target(&self.spec);
        self.publish(self.published.addresses.clone(), self.published.boards.clone());
    }

    /// Replaces what was said about the worker. Its URL stays.
    pub(crate) fn set_spec(&mut self, spec: WorkerSpec) {
        assert_eq!(spec.url, self.spec.url, "a worker is its URL");
        self.target = target(&spec);
        self.spec = spec;
        self.publish(self.published.addresses.clone(), self.published.boards.clone());
        if self.spec.checks.disabled && self.health() == Health::Unhealthy {
            // Nothing would ever find it healthy again.
            self.stage = Stage::Ready { failures: 0 };
        }
    }
}

fn target(spec: &WorkerSpec) -> Arc<Target> {
    Arc::new(Target {
        url: spec.url.address().into(),
        host: spec.url.host.clone(),
        port: spec.url.port,
        rank: spec.url.rank,
        authorization: authorization(spec),
    })
}

/// What has been found out about a worker since it was registered.
struct Said {
    share_eighths: u16,
    speaks_http2: bool,
    can_continue: bool,
    is_vllm: bool,
}

impl Default for Said {
    fn default() -> Self {
        Self { share_eighths: FULL_SHARE, speaks_http2: false, can_continue: false, is_vllm: false }
    }
}

fn published(
    id: WorkerId,
    spec: &WorkerSpec,
    addresses: Box<[SocketAddr]>,
    cells: &Arc<WorkerCells>,
    boards: SmallVec<[Arc<Board>; 1]>,
    said: Said,
) -> Worker {
    let weight = Weight::of(spec.priority, spec.cost);
    Worker {
        id,
        url: spec.url.text.clone(),
        host: spec.url.authority.clone(),
        base_path: spec.url.base_path.clone(),
        transport: spec.url.transport(said.speaks_http2),
        role: spec.role,
        bootstrap_port: spec.bootstrap_port,
        handoff: spec.handoff().ok().flatten().unwrap_or(if said.is_vllm {
            Handoff::Nixl
        } else {
            Handoff::Bootstrap
        }),
        rank: spec.url.rank,
        addresses,
        authorization: authorization(spec),
        weight: weight.eighths(said.share_eighths),
        ring_weight: weight,
        can_continue: said.can_continue,
        cells: Arc::clone(cells),
        boards,
        tallies: None,
    }
}

fn authorization(spec: &WorkerSpec) -> Option<Secret> {
    spec.api_key.as_ref().map(Secret::bearer)
}

#[cfg(test)]
mod tests;
