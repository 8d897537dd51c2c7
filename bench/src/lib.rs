//! A load generator for gateways and engines that speak OpenAI's or SGLang's API.
//!
//! It runs on another runtime than the gateway and has a client of its own, so that one fault cannot hide
//! at both ends. Code map: `shape` (what is asked), `response`, `events`, `answer` (what came back, without
//! sockets), `record` (what is kept of it) → `client` → `drive` (one core's connections) → `run` (cores) →
//! `report/*`, `compare`.

mod answer;
mod client;
mod clock;
mod cores;
mod drive;
mod events;
mod load;
mod progress;
mod response;
mod shape;
mod target;

pub mod cli;
pub mod compare;
pub mod record;
pub mod report;
pub mod run;

#[cfg(test)]
mod tests;

pub use load::Load;
pub use shape::{Api, Shape};
pub use target::Target;
