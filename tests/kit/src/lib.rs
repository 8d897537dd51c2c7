//! Peers for tests of the `ringway` binary: a gateway as a child process, a client and workers on plain sockets.
//!
//! Nothing here shares code with the gateway: what both ends of a test read wrongly in the same way, no test finds.
//! Nothing sleeps to let something happen either: a test waits for a condition, until a deadline that is far beyond
//! any good run.
//!
//! Code map: [`gateway`] (the process), [`client`] (what users do), [`worker`] (what engines do), [`http`] (what
//! both of these read), [`metrics`] (the Prometheus page), [`issuer`] (who signs
//! tokens), [`collector`] (who takes spans), [`chaos`] (many requests over a fleet that changes), [`faults`] (the same over
//! engines that fail in every way).
//!
//! A wait that fails panics with what it waited for: its caller is a test.

pub mod chaos;
pub mod client;
pub mod collector;
pub mod dns;
pub mod draws;
pub mod faults;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod issuer;
pub mod kubernetes;
pub mod metrics;
pub mod pairs;
pub mod place;
pub mod pods;
pub mod tls;
pub mod wait;
pub mod worker;
