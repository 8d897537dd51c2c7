//! Requests in flight, and what they come to on every board by a plain sum.

use std::sync::Arc;

use fleet::board::Board;
use fleet::board::Unit;
use fleet::snapshot::Claim;
use fleet::snapshot::Worker;

/// A request at a worker.
pub(super) struct Leg {
    pub(super) worker: Arc<Worker>,
    pub(super) claim: Claim,
    pub(super) is_prompt_done: bool,
    /// Seed of the model it is for, by which its answer would be remembered.
    pub(super) block_seed: u64,
}

#[derive(Default)]
pub(super) struct Flights {
    pub(super) legs: Vec<Leg>,
    /// Every board ever seen.
    boards: Vec<Arc<Board>>,
}

// === impl Leg ===

impl Leg {
    pub(super) fn begin(worker: &Arc<Worker>, claim: Claim, block_seed: u64) -> Self {
        worker.begin(&claim);
        Self { worker: Arc::clone(worker), claim, is_prompt_done: false, block_seed }
    }

    pub(super) fn prompt_done(&mut self) {
        if !std::mem::replace(&mut self.is_prompt_done, true) {
            self.worker.prompt_done(&self.claim);
        }
    }

    pub(super) fn end(self) {
        self.worker.end(&self.claim, self.is_prompt_done);
    }

    /// What it counts as: a request; its prompt in steps of 64 bytes; or 5 ms for its answer and a second for 8,000
    /// bytes to compute, a hundred seconds at most. Each over the worker's weight.
    fn cost(&self, unit: Unit) -> u64 {
        let over_weight = |cost: u32| (f64::from(cost) / self.worker.weight.ratio()).floor() as u64;
        match unit {
            Unit::Requests => over_weight(256),
            Unit::PromptBytes => over_weight(self.claim.prompt_bytes.div_ceil(64)),
            Unit::Work if self.is_prompt_done => over_weight(5),
            Unit::Work => over_weight(5) + over_weight(self.claim.uncached_bytes / 8).min(100_000),
        }
    }
}

// === impl Flights ===

impl Flights {
    pub(super) fn see(&mut self, board: &Arc<Board>) {
        if !self.boards.iter().any(|seen| Arc::ptr_eq(seen, board)) {
            self.boards.push(Arc::clone(board));
        }
    }

    pub(super) fn boards(&self) -> &[Arc<Board>] {
        &self.boards
    }

    /// What worker `index` has to do.
    pub(super) fn cost(&self, board: &Arc<Board>, index: u32) -> u64 {
        self.costs(board).filter(|(at, _)| *at == index).map(|(_, cost)| cost).sum()
    }

    /// What all of a board have to do.
    pub(super) fn total(&self, board: &Arc<Board>) -> u64 {
        self.costs(board).map(|(_, cost)| cost).sum()
    }

    fn costs<'a>(&'a self, board: &'a Arc<Board>) -> impl Iterator<Item = (u32, u64)> + 'a {
        let counts = move |leg: &&Leg| leg.worker.boards.iter().any(|other| Arc::ptr_eq(other, board));
        self.legs.iter().filter(counts).map(|leg| (leg.worker.id.index, leg.cost(board.unit())))
    }
}
