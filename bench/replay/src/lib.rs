//! Replay: re-runs a trace against any routing policy over simulated engines, in virtual time.
//!
//! Nothing sleeps and no socket is opened: an hour of traffic takes seconds, and the same trace with the same seed
//! gives the same table. The policies are the gateway's own; beside them stand oracles that know every engine's cache.
//!
//! Code map: `trace`, `generate` (what is asked) → `engine`, `engine::cache` (what an engine makes of it) → `router`,
//! `gateway`, `oracle` (who chooses) → `simulate` (the event loop) → `measure`, `report` (what came of it). Beside them,
//! `reproduce` makes captured decisions again.

pub mod engine;
pub mod gateway;
pub mod generate;
pub mod limits;
pub mod measure;
pub mod oracle;
pub mod report;
pub mod reproduce;
pub mod router;
pub mod simulate;
pub mod trace;
