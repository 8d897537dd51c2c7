//! A change of processes without a gap: the one that runs hands its listening sockets and all it knows to the one that
//! comes, which says when it serves. From then on the old one takes nobody new and ends with its last request.
//!
//! Invariants
//! - Until the new process says that it serves, nothing changes for the old one: if the new one dies, it goes on.
//! - A listening socket is open in one of the two at any time, with whoever waits in it.
//! - Only the same user may take over; what comes over the socket is bounded and checked.

mod give;
mod succession;
pub(crate) mod successor;
mod take;
mod wire;

use serde::Deserialize;
use serde::Serialize;

pub(crate) use self::succession::Succession;
pub(crate) use self::take::Inheritance;
#[cfg(test)]
pub(crate) use self::wire::FRAME_BYTES_MAX;

/// Version of what the two say to each other, and of what blocks of prompts are.
const PROTOCOL: u32 = 1;

/// Who a process is.
#[derive(Debug, Deserialize, Serialize)]
struct Hello {
    protocol: u32,
    version: String,
    pid: u32,
}

/// From when the old process counts its time, and what else the new one has to be the same in.
#[derive(Debug, Deserialize, Serialize)]
struct Welcome {
    pid: u32,
    now_us: u64,
    block_seed: u64,
    started_unix_s: u64,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
enum Role {
    Main,
    Admin,
    Metrics,
}

/// A listening socket, beside its descriptor.
#[derive(Debug, Deserialize, Serialize)]
struct SocketRecord {
    role: Role,
    is_shared: bool,
}

impl Hello {
    fn ours() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
    }
}
