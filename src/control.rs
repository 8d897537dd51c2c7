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

pub mod config;
pub mod event;
pub(crate) mod job;
pub(crate) mod limits;
pub(crate) mod models;
pub(crate) mod publish;
pub(crate) mod registry;
pub mod run;
pub mod state;
pub mod stats;
pub mod task;
pub mod url;
pub(crate) mod worker;
