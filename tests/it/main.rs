//! The `ringway` binary between clients and workers, seen only through sockets, signals and its output.

mod setup;

mod admission;
mod breakers;
mod chaos;
mod client_leaves;
mod corpus;
mod ejection;
mod errors;
mod failover;
mod faults;
mod fleet;
mod framing;
mod headers;
mod hostile;
mod http2;
mod keep_alive;
mod lifecycle;
mod metrics;
mod models;
mod policies;
mod ranks;
mod relay;
mod reload;
mod removal;
mod replay;
mod resume;
mod retries;
mod routing;
mod security;
mod slow;
mod streams;
mod systemd;
mod tls;
mod traces;
mod upgrade;
