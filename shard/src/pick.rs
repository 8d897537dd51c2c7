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
    /// Tokens that its pace does not show yet, and the time they took.
    tokens: u32,
    token_us: u64,
}

/// Chooses a worker of `pool`; none when nobody can take the request. `breaker` is what breakers go by, if there are
/// any. Whoever is turned away leaves no trace: the policy commits to a choice once its breaker has let it through.
pub fn pick<'a>(
    replica: &mut Replica,
    snapshot: &'a Snapshot,
    pool: &'a Pool,
    request: &Request<'_>,
    breaker: Option<&BreakerRules>,
) -> Option<(Choice<'a>, Option<Pass>)> {
    // Who must not be sent to is seldom in the pool: a breaker that opened within the last millisecond, or one that has
    // its fill of probes.
    let mut refused = SmallVec::<[WorkerId; 8]>::new();
    for _ in 0..limits::BREAKERS_ASKED_MAX {
        let excluded = if refused.is_empty() { request.excluded } else { &refused };
        let asked = Request { excluded, ..*request };
        let choice = replica.propose(snapshot, pool, &asked)?;
        let cells = &choice.worker.cells;
        match breaker.map(|rules| cells.breaker().admit(rules)) {
            Some(None) => {
                if refused.is_empty() {
                    refused.extend_from_slice(request.excluded);
                }
                refused.push(choice.worker.id);
            }
            admitted => {
                let pass = admitted.flatten();
                if replica.commit(snapshot, pool, &asked, &choice) {
                    return Some((choice, pass));
                }
                // Another shard has just given the key to somebody: the next proposal finds out to whom.
                pass.into_iter().for_each(|pass| cells.breaker().release(pass));
            }
        }
    }
    None
}

// === impl Hold ===

impl Hold {
    /// Counts `claim` in the load of `worker`. `pass` is what its breaker gave.
    pub fn begin(worker: &Arc<Worker>, claim: Claim, pass: Option<Pass>) -> Self {
        worker.begin(&claim);
        worker.cells.pace().add_prompt(claim.uncached_bytes);
        Self {
            worker: Arc::clone(worker),
            claim,
            pass,
            is_prompt_done: false,
            is_released: false,
            tokens: 0,
            token_us: 0,
        }
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

    /// The first token came so long after the worker was chosen.
    pub fn first_token(&self, us: u64) {
        self.worker.cells.pace().add_first(self.claim.uncached_bytes, us);
    }

    /// So many tokens came in so long. Told to others now and then, since all shards add to the same words.
    pub fn more_tokens(&mut self, tokens: u32, us: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
        self.token_us += us;
        if self.tokens >= limits::TOKENS_UNTOLD_MAX || self.token_us >= limits::TOKEN_TIME_UNTOLD_MAX_US {
            self.tell_tokens();
        }
    }

    fn tell_tokens(&mut self) {
        if self.tokens > 0 {
            self.worker.cells.pace().add_tokens(self.tokens, self.token_us);
            (self.tokens, self.token_us) = (0, 0);
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
        self.tell_tokens();
        // Nobody came to judge it: the client left, and a probe gives its place to another.
        if let Some(pass) = self.pass.take() {
            self.worker.cells.breaker().release(pass);
        }
    }
}
