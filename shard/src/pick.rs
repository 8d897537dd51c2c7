//! Picks a worker whose circuit breaker lets the request through, and holds it until the request is done with it.
//!
//! No socket and no clock: the shard uses this, and so does the simulation of faults.

use std::sync::Arc;

use fleet::breaker::BreakerRules;
use fleet::breaker::Outcome;
use fleet::breaker::Pass;
use fleet::breaker::Transition;
use fleet::id::WorkerId;
use fleet::snapshot::Claim;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use policy::Choice;
use policy::Replica;
use policy::Request;
use smallvec::SmallVec;

use crate::limits;

/// One request's hold on a worker: it counts in its load, and its breaker awaits a word. Both end with it, at the
/// latest.
#[derive(Debug)]
pub struct Hold {
    worker: Arc<Worker>,
    claim: Claim,
    /// The breaker let this through and hears how it ended; none once it has.
    pass: Option<Pass>,
    is_prompt_done: bool,
    is_released: bool,
}

/// Chooses a worker of `pool`; none when nobody can take the request. `breaker` is what breakers go by, if there are
/// any; `must_continue` asks for a worker that can go on with another's answer.
pub fn pick<'a>(
    replica: &mut Replica,
    snapshot: &'a Snapshot,
    pool: &'a Pool,
    request: &Request<'_>,
    breaker: Option<&BreakerRules>,
    must_continue: bool,
) -> Option<(Choice<'a>, Option<Pass>)> {
    // Who must not be sent to is seldom in the pool: a breaker that opened within the last millisecond, or one that has
    // its fill of probes.
    let mut refused = SmallVec::<[WorkerId; 8]>::new();
    loop {
        let excluded = if refused.is_empty() { request.excluded } else { &refused };
        let choice = replica.choose(snapshot, pool, &Request { excluded, ..*request })?;
        if choice.worker.can_continue || !must_continue {
            let Some(rules) = breaker else { return Some((choice, None)) };
            if let Some(pass) = choice.worker.cells.breaker().admit(rules) {
                return Some((choice, Some(pass)));
            }
        }
        let turned_away = choice.worker.id;
        if refused.is_empty() {
            refused.extend_from_slice(request.excluded);
        }
        if refused.len() >= request.excluded.len() + limits::BREAKERS_ASKED_MAX {
            return None;
        }
        refused.push(turned_away);
    }
}

// === impl Hold ===

impl Hold {
    /// Counts `claim` in the load of `worker`. `pass` is what its breaker gave.
    pub fn begin(worker: &Arc<Worker>, claim: Claim, pass: Option<Pass>) -> Self {
        worker.begin(&claim);
        Self { worker: Arc::clone(worker), claim, pass, is_prompt_done: false, is_released: false }
    }

    /// Who is held.
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Whether the worker has begun to answer.
    pub fn has_begun(&self) -> bool {
        self.is_prompt_done
    }

    /// The worker has begun to answer, so it has computed the prompt.
    pub fn prompt_done(&mut self) {
        if !self.is_released && !std::mem::replace(&mut self.is_prompt_done, true) {
            self.worker.prompt_done(&self.claim);
        }
    }

    /// The worker is done with this request: it counts in its load no more.
    pub fn release(&mut self) {
        if !std::mem::replace(&mut self.is_released, true) {
            self.worker.end(&self.claim, self.is_prompt_done);
        }
    }

    /// Says what the request showed about its worker; the first word counts. Returns how the breaker moved.
    pub fn judge(&mut self, outcome: Outcome, now_ms: u64, rules: &BreakerRules) -> Option<Transition> {
        let pass = self.pass.take()?;
        let cells = &self.worker.cells;
        cells.outcomes().count(outcome);
        let moved = cells.breaker().judge(pass, outcome, now_ms, rules)?;
        cells.outcomes().count_transition(moved);
        Some(moved)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
        // Nobody came to judge it: the client left, and a probe gives its place to another.
        if let Some(pass) = self.pass.take() {
            self.worker.cells.breaker().release(pass);
        }
    }
}
