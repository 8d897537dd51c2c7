//! The control plane: one thread that owns the fleet and publishes it to the shards.
//!
//! [`state`] decides and touches nothing: events and the time go in, orders come out. [`run`] is the loop around it.
//! What takes a socket is done by the services thread, which is told by a [`task::Task`] and answers with an
//! [`event::Event`].
//!
//! Invariants
//! - Only this thread writes the registry and the prefix tree; shards see snapshots.
//! - Every admin call is answered exactly once.
//! - With services or a worker stalled, publication and admin answers go on.

pub(crate) mod config;
pub(crate) mod connector;
pub(crate) mod destination;
pub mod event;
pub(crate) mod job;
pub(crate) mod limits;
pub(crate) mod models;
pub mod pace;
pub mod poll;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod registry;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod stats;
pub mod task;
pub(crate) mod timetable;
pub(crate) mod url;
pub(crate) mod worker;

pub use self::config::ConfigError;
pub use self::config::ControlConfig;
pub use self::config::Fixed;
pub use self::config::FixedWorker;
pub use self::config::HealthConfig;
pub use self::config::Inference;
pub use self::config::PairWorker;
pub use self::destination::Destinations;
pub use self::run::Doors;
pub use self::run::MetricsPage;
pub use self::run::spawn;
pub use self::state::Order;
pub use self::state::State;
pub(crate) use self::state::start::is_key;
pub use self::stats::ControlStats;
pub use self::stats::Health;
pub use self::url::UrlError;

/// Results of services that wait for control at most.
pub const RESULTS_QUEUED_MAX: usize = limits::RESULTS_QUEUED_MAX;

/// Whether control can go by `config`.
///
/// # Errors
/// When a worker URL, the key or the health endpoint of `config` cannot be used.
pub(crate) fn check(config: &ControlConfig) -> Result<(), ConfigError> {
    state::start::worker_specs(config).map(drop)
}

/// The state of control at start, and the snapshot that shards begin with.
///
/// # Errors
/// When a worker URL, the key or the health endpoint of `config` cannot be used.
pub fn initial(config: ControlConfig) -> Result<(State, fleet::snapshot::Snapshot), ConfigError> {
    State::initial(config)
}
