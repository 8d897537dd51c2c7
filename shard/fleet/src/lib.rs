//! Types that cross threads: snapshots, the prefix tree, cells, reports and admin calls.
//!
//! This crate knows nothing of sockets, JSON or how a policy decides.

pub mod admin;
pub mod blocks;
pub mod cell;
pub mod id;
pub mod report;
pub mod snapshot;
pub mod stats;
pub mod tree;
