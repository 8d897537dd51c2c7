//! Types that cross threads: snapshots, the prefix tree, cells, reports and admin calls.
//!
//! This crate knows nothing of sockets, JSON or how a policy decides.

pub mod access;
pub mod admin;
pub mod admission;
pub mod batch;
pub mod blocks;
pub mod board;
pub mod breaker;
pub mod budget;
pub mod cell;
pub mod decision;
pub mod id;
pub mod lengths;
pub mod peers;
pub mod pressure;
pub mod report;
pub mod ring;
pub mod rules;
pub mod secret;
pub mod snapshot;
pub mod span;
pub mod stack;
pub mod stats;
pub mod sticky;
pub mod tally;
pub mod tenants;
pub mod tree;
pub mod workers;
