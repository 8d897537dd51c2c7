//! Routers that know every engine's cache and queue: what a policy could reach if it knew all that.

use crate::engine::Engine;
use crate::router::Arrival;
use crate::router::Router;
use crate::router::WorkerIndex;
use crate::trace::TraceRequest;

/// An engine may have this many times the average of requests in flight before [`Oracle::Hits`] passes it over. It is
/// there for sanity alone: without it a prefix that everybody shares would go to one engine.
const LOAD_FACTOR: f64 = 2.0;
/// Requests in flight that are always allowed, as an average of a few says nothing.
const LOAD_FREE: usize = 8;

/// What an oracle is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// The longest resident prefix; of several, the engine with the least prompt work before it.
    Hits,
    /// The least prompt work before the first token: what waits plus what is not resident.
    FirstToken,
}

impl Router for Oracle {
    fn choose(&mut self, arrival: &Arrival<'_>) -> WorkerIndex {
        let Arrival { request, engines, .. } = *arrival;
        let candidates = engines.iter().enumerate();
        let chosen = match self {
            Oracle::Hits => {
                let total: usize = engines.iter().map(Engine::in_flight).sum();
                let average = (total + 1) as f64 / engines.len().max(1) as f64;
                let most = ((average * LOAD_FACTOR).ceil() as usize).max(LOAD_FREE);
                candidates.filter(|(_, engine)| engine.in_flight() < most).min_by_key(|(_, engine)| {
                    (u32::MAX - engine.known_tokens(request), work(engine, request))
                })
            }
            Oracle::FirstToken => candidates.min_by_key(|(_, engine)| work(engine, request)),
        };
        // Some engine is below average, so one is always allowed.
        chosen.map_or(0, |(worker, _)| worker)
    }
}

/// Prompt tokens to compute before the request's first token; of equals, the engine with fewer requests.
fn work(engine: &Engine<'_>, request: &TraceRequest) -> (u64, usize) {
    let own = request.prompt_tokens - engine.known_tokens(request);
    (engine.backlog_tokens() + u64::from(own), engine.in_flight())
}
