//! Pure routing decisions over a snapshot: which worker of a pool gets a request.
//!
//! Invariants
//! - Nothing here reads a clock, draws from a global generator, locks, awaits or knows a socket: the replica of the
//!   shard holds the generator, the tick is an argument.
//! - A choice is a member of the pool and never one of the excluded workers.
//! - Ties go to the worker this shard chose least recently, so equal workers share equally.

mod cache_aware;
mod overlay;

use std::sync::Arc;

use fleet::id::WorkerId;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::overlay::Overlay;

/// Thresholds of [`Policy::CacheAware`], with SGLang's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheAware {
    /// Share of the prompt that must be known before affinity decides, 0 to 1 (`--cache-threshold`).
    pub cache_threshold: f32,
    /// Load difference, in requests, that is still balanced (`--balance-abs-threshold`).
    pub balance_abs_threshold: u32,
    /// Load ratio, at least 1, that is still balanced (`--balance-rel-threshold`).
    pub balance_rel_threshold: f32,
}

impl Default for CacheAware {
    fn default() -> Self {
        Self { cache_threshold: 0.3, balance_abs_threshold: 64, balance_rel_threshold: 1.5 }
    }
}

/// How a worker is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Uniformly.
    Random,
    /// In turn, exactly, over every shard and connection.
    RoundRobin,
    /// The less loaded of two drawn at random (Mitzenmacher, "The power of two choices", 2001).
    PowerOfTwo,
    /// The holder of the longest known prefix, unless load is out of balance.
    CacheAware(CacheAware),
}

impl Policy {
    /// Its name on the command line, in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::PowerOfTwo => "power_of_two",
            Self::CacheAware(_) => "cache_aware",
        }
    }

    /// Whether the decision looks at the prompt. If not, nobody needs to hash it.
    pub fn reads_prompt(&self) -> bool {
        matches!(self, Self::CacheAware(_))
    }
}

/// What a decision may look at, besides the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Block hashes of the prompt; empty when the policy does not read it or there is none.
    pub blocks: &'a [u64],
    /// Length of the prompt that the blocks were made from.
    pub prompt_bytes: usize,
    /// Workers that already failed this request.
    pub excluded: &'a [WorkerId],
    /// Coarse time, in seconds since the process started.
    pub tick: u32,
}

/// Why a worker was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was the only candidate.
    Only,
    /// It was its turn.
    Turn,
    /// Chance.
    Chance,
    /// It had less load than the other one drawn.
    Lighter,
    /// It holds the longest known prefix.
    Prefix,
    /// No prefix was known well enough: it had the least load.
    LeastLoad,
    /// Load was out of balance: the longest prefix among the lightly loaded.
    Balance,
}

impl Reason {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Turn => "turn",
            Self::Chance => "chance",
            Self::Lighter => "lighter",
            Self::Prefix => "prefix",
            Self::LeastLoad => "least_load",
            Self::Balance => "balance",
        }
    }
}

/// A decision.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Who gets the request.
    pub worker: &'a Arc<Worker>,
    /// Why.
    pub reason: Reason,
    /// Blocks of the prompt this worker is known to hold.
    pub matched_blocks: u32,
    /// Whether control should learn of this placement: false when the tree already says so.
    pub is_news: bool,
}

/// What a shard remembers between decisions.
#[derive(Debug)]
pub struct Replica {
    rng: SmallRng,
    /// Number of choices made; the clock of `last_chosen`.
    turn: u64,
    /// By worker index: the turn at which this shard last chose it.
    last_chosen: Vec<u64>,
    /// By worker index: load of the candidates of the decision being made, else `NOT_A_CANDIDATE`.
    loads: Vec<u32>,
    overlay: Overlay,
}

const NOT_A_CANDIDATE: u32 = u32::MAX;

impl Replica {
    /// A fresh replica whose draws follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            turn: 0,
            last_chosen: Vec::new(),
            loads: Vec::new(),
            overlay: Overlay::new(),
        }
    }

    /// Chooses a worker of `pool`, or none if every member is excluded.
    pub fn choose<'a>(
        &mut self,
        policy: &Policy,
        snapshot: &'a Snapshot,
        pool: &'a Pool,
        request: &Request<'_>,
    ) -> Option<Choice<'a>> {
        let index_max = snapshot.fleet.workers.len();
        if self.last_chosen.len() < index_max {
            self.last_chosen.resize(index_max, 0);
            self.loads.resize(index_max, NOT_A_CANDIDATE);
        }
        let choice = match policy {
            Policy::Random => self.random(pool, request),
            Policy::RoundRobin => round_robin(pool, request),
            Policy::PowerOfTwo => self.power_of_two(pool, request),
            Policy::CacheAware(config) => self.cache_aware(config, snapshot, pool, request),
        }?;
        self.turn += 1;
        self.last_chosen[choice.worker.id.index as usize] = self.turn;
        Some(choice)
    }

    fn random<'a>(&mut self, pool: &'a Pool, request: &Request<'_>) -> Option<Choice<'a>> {
        let worker = self.draw(pool, request.excluded, None)?;
        Some(plain(worker, Reason::Chance))
    }

    fn power_of_two<'a>(&mut self, pool: &'a Pool, request: &Request<'_>) -> Option<Choice<'a>> {
        let first = self.draw(pool, request.excluded, None)?;
        let Some(second) = self.draw(pool, request.excluded, Some(first.id)) else {
            return Some(plain(first, Reason::Only));
        };
        let lighter = if second.cells.load() < first.cells.load() { second } else { first };
        Some(plain(lighter, Reason::Lighter))
    }

    /// A member drawn uniformly among those that are neither excluded nor `other`.
    fn draw<'a>(
        &mut self,
        pool: &'a Pool,
        excluded: &[WorkerId],
        other: Option<WorkerId>,
    ) -> Option<&'a Arc<Worker>> {
        let allowed = |worker: &&Arc<Worker>| !excluded.contains(&worker.id) && Some(worker.id) != other;
        if excluded.is_empty() && other.is_none() {
            let members = pool.members.len();
            return (members > 0).then(|| &pool.members[self.rng.random_range(0..members)]);
        }
        if excluded.is_empty() {
            // Two distinct picks without a loop: draw from one fewer, step over the other.
            let at = pool.members.iter().position(|worker| Some(worker.id) == other)?;
            let others = pool.members.len() - 1;
            return (others > 0).then(|| {
                let drawn = self.rng.random_range(0..others);
                &pool.members[drawn + usize::from(drawn >= at)]
            });
        }
        let candidates = pool.members.iter().filter(allowed).count();
        if candidates == 0 {
            return None;
        }
        pool.members.iter().filter(allowed).nth(self.rng.random_range(0..candidates))
    }
}

/// The member whose turn it is; an excluded one passes its turn to the next in order.
fn round_robin<'a>(pool: &'a Pool, request: &Request<'_>) -> Option<Choice<'a>> {
    let members = pool.members.len();
    if members == 0 {
        return None;
    }
    let start = (pool.next_turn() % members as u64) as usize;
    (0..members)
        .map(|step| &pool.members[(start + step) % members])
        .find(|worker| !request.excluded.contains(&worker.id))
        .map(|worker| plain(worker, Reason::Turn))
}

fn plain(worker: &Arc<Worker>, reason: Reason) -> Choice<'_> {
    Choice { worker, reason, matched_blocks: 0, is_news: false }
}

#[cfg(test)]
mod tests;
