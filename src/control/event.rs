//! What happens to the control plane: the closed list of its inputs.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use crossbeam_channel::Sender;
use engine::metadata::Metadata;
use fleet::admin::AdminCall;
use fleet::id::WorkerId;
use fleet::report::Report;

use crate::control::config::ControlConfig;
use crate::control::poll::Polled;
use crate::control::state::handover::Export;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;

/// One input of [`State::apply`](crate::control::state::State::apply).
#[derive(Debug)]
pub enum Event {
    /// A shard handed over a request.
    Admin(AdminCall),
    /// A shard noticed things.
    Reports(Vec<Report>),
    /// A worker was checked.
    Probed {
        /// Who.
        worker: WorkerId,
        /// How it went.
        probe: Probe,
    },
    /// A worker was asked what it serves. Whatever it left out is absent.
    Described {
        /// Who.
        worker: WorkerId,
        /// What it said.
        metadata: Box<Metadata>,
    },
    /// A worker was asked what it is busy with.
    Polled {
        /// Who.
        worker: WorkerId,
        /// What came of it.
        polled: Box<Polled>,
    },
    /// Workers were asked on behalf of an admin call.
    Called {
        /// Names the call.
        ticket: u64,
        /// One answer per worker, in the order of the task.
        answers: Vec<Result<Bytes, Failure>>,
    },
    /// A source was asked who belongs to the fleet. Whoever it named before and does not now has left.
    Discovered(Box<Discovered>),
    /// Settings were read again, and are good.
    Reload(Box<ControlConfig>),
    /// Another process wants to know everything.
    Export(Sender<Box<Export>>),
    /// That process serves now.
    HandedOver,
    /// Somebody wants to see that control is alive.
    Ping,
    /// The process was told to end: drain at the first time, stop at the second.
    Terminate,
    /// Time passed.
    Tick {
        /// Requests between head and last byte, over all shards.
        requests_active: u64,
    },
}

/// All workers that one source knows of.
#[derive(Debug)]
pub struct Discovered {
    /// Who says so.
    pub(crate) source: Source,
    /// Each under another URL.
    pub(crate) workers: Vec<WorkerSpec>,
}

/// How a check of a worker went.
#[derive(Debug)]
pub struct Probe {
    /// What its name was resolved to; none when no look-up was asked for, or it did not come to that.
    pub addresses: Option<Vec<SocketAddr>>,
    /// Status of the health endpoint; 200 when only the name was looked up.
    pub answer: Result<u16, Failure>,
}

/// Why a worker gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its name has no address.
    Resolve,
    /// Its name leads only to addresses that workers may not have.
    Destination,
    /// No connection.
    Connect,
    /// It took too long.
    Timeout,
    /// It answered with this status.
    Status(u16),
    /// Its answer was no HTTP, too large, or broke off, perhaps before it began.
    Body,
    /// Services had no room for the task.
    Busy,
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Resolve => "its name cannot be resolved",
            Self::Destination => "its name leads to a link-local or metadata address",
            Self::Connect => "no connection",
            Self::Timeout => "it did not answer in time",
            Self::Status(status) => return write!(formatter, "HTTP {status}"),
            Self::Body => "its answer could not be read",
            Self::Busy => "the gateway is busy",
        })
    }
}
