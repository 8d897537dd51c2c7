//! What chooses an engine for each request of a replay.

use crate::engine::Engine;
use crate::engine::RequestIndex;
use crate::trace::TraceRequest;

/// One arrival, as a router may see it. The gateway's own policies look at the request alone; an oracle also at the
/// engines.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Which request of the trace this is.
    pub index: RequestIndex,
    /// What is asked.
    pub request: &'a TraceRequest,
    /// Every engine as it is at this moment.
    pub engines: &'a [Engine<'a>],
    /// When.
    pub now_us: u64,
}

/// Position of an engine in the fleet.
pub type WorkerIndex = usize;

/// Chooses, and hears what became of its choices.
pub trait Router {
    /// The engine that gets the request. It counts as in flight there from now on.
    fn choose(&mut self, arrival: &Arrival<'_>) -> WorkerIndex;

    /// `worker` sent the first token of `request`.
    fn first_token(&mut self, _request: RequestIndex, _worker: WorkerIndex) {}

    /// `worker` finished `request`.
    fn finished(&mut self, _request: RequestIndex, _worker: WorkerIndex) {}
}
