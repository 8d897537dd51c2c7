//! A simulated inference engine: real tokens, a real prefix cache and a timing model, no model.
//!
//! It is served by an HTTP implementation that is not the gateway's own, so that both ends of a test
//! never share a codec. Start one in a thread with [`spawn`], or in this thread with [`run`]:
//!
//! ```no_run
//! let engine = engine_sim::spawn(engine_sim::EngineConfig::default())?;
//! println!("{}", engine.url());
//! engine.stop();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Code map: `config`, `fault` (what is asked) → `scheduler`, `cache`, `token` (what happens, without
//! sockets or clocks) → `engine`, `generation` (the thin asynchronous shell) → `connection`, `watch`,
//! `writer`, `exchange` (HTTP) → `routes/*` (what each endpoint says) → `handle` (threads).

mod cache;
mod clock;
mod config;
mod connection;
mod engine;
mod exchange;
mod fault;
mod generation;
mod handle;
mod routes;
mod scheduler;
mod stats;
mod token;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use config::{Dialect, EngineConfig};
pub use fault::FaultPlan;
pub use handle::{EngineHandle, run, spawn};
pub use stats::EngineStats;
