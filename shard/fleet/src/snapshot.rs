//! The immutable picture of the fleet that shards route by.
//!
//! Invariants
//! - A published snapshot never changes; a new one replaces it behind one pointer.
//! - Every worker in a pool is routable and stands in the worker table under its own id.
//! - Pools are ordered by model name and role, members by worker index.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::board::Board;
use crate::board::PROMPT_STEP_BYTES;
use crate::board::REQUEST_COST;
use crate::board::Unit;
use crate::board::WORK_UNITS_PER_S;
use crate::cell::WorkerCells;
use crate::id::WorkerId;
use crate::lengths::LengthHistogram;
use crate::ring::Ring;
use crate::rules::Policy;
use crate::secret::Secret;
use crate::stack::Stack;
use crate::stats::ModelStats;
use crate::sticky::StickyTable;
use crate::tally::Tallies;
use crate::tree::TreeSnapshot;
pub use crate::workers::WorkerTable;

/// One worker as shards see it.
#[derive(Debug)]
pub struct Worker {
    /// Identity inside the process.
    pub id: WorkerId,
    /// As registered, without a trailing slash.
    pub url: Box<str>,
    /// Value of the Host header: host, and port when the URL names one.
    pub host: Box<str>,
    /// Path that the URL puts before every endpoint; empty for most.
    pub base_path: Box<str>,
    /// Resolved addresses, in the order to try them. Never empty for a routable worker.
    pub addresses: Box<[SocketAddr]>,
    /// How it is spoken to.
    pub transport: Transport,
    /// What part of a request it does.
    pub role: Role,
    /// Where a prefill worker hands over what it has computed, if it says so.
    pub bootstrap_port: Option<u16>,
    /// How a prefill worker does that.
    pub handoff: Handoff,
    /// Which of the data-parallel ranks behind its address it is; none of an engine that has one.
    pub rank: Option<u16>,
    /// `Authorization` value that replaces the client's, if the worker has a key.
    pub authorization: Option<Secret>,
    /// Whether its engine goes on with an answer that is begun in the request (`continue_final_message`).
    pub can_continue: bool,
    /// How much of the requests it should get now, beside others: less than its own while it recovers.
    pub weight: Weight,
    /// How much of a ring it takes; a recovery moves no keys.
    pub ring_weight: Weight,
    /// Shared load and failure cells.
    pub cells: Arc<WorkerCells>,
    /// Where its load is kept for selection: the boards of the models it serves.
    pub boards: SmallVec<[Arc<Board>; 1]>,
    /// What is counted of it beside that, where statistics by engine are kept.
    pub tallies: Option<Arc<Tallies>>,
}

/// What part of a request a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// All of it.
    #[default]
    Regular,
    /// It computes the prompt and hands what it has computed to a worker that decodes.
    Prefill,
    /// It generates the answer from what a prefill worker hands over.
    Decode,
}

/// How a prefill worker's engine hands what it has computed to the one that decodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Handoff {
    /// SGLang: both meet in a room of the prefill worker's bootstrap server, and get the request at once.
    #[default]
    Bootstrap,
    /// vLLM with a connector such as NIXL: the prefill worker answers with parameters for the one that decodes.
    Nixl,
    /// vLLM with Mooncake: both are told at once which transfer it is, and the one that decodes from whom.
    Mooncake {
        /// What the prefill worker's engine calls itself.
        engine_id: Box<str>,
    },
    /// vLLM with a store that both share, such as LMCache: the prefill worker goes first, and nothing is told.
    Shared,
}

/// What names a pool: the workers of one role that serve one model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName {
    /// Model id as clients name it.
    pub model: Box<str>,
    /// What part of a request its members do.
    pub role: Role,
}

/// How a worker is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 over plain TCP.
    #[default]
    Plain,
    /// HTTP/2 over plain TCP, with prior knowledge.
    PlainHttp2,
    /// TLS with a certificate good for this name or address; both sides agree on HTTP/2 or HTTP/1.1.
    Tls(Box<str>),
}

/// A worker's share of requests: its priority over its cost, in parts of which the usual worker has [`Weight::ONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

/// The load that one request puts on a worker, to be taken back when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Length of the prompt.
    pub prompt_bytes: u32,
    /// Bytes of it that the worker must compute.
    pub uncached_bytes: u32,
}

/// The routable workers of one role and model.
#[derive(Debug)]
pub struct Pool {
    /// Whose they are.
    pub name: PoolName,
    /// How a worker is chosen.
    pub policy: Policy,
    /// Seed of the block hashes: prompts for two models never match each other.
    pub block_seed: u64,
    /// Indexes of the routable workers, ascending.
    pub members: Arc<[u32]>,
    /// Of these, who can go on with an answer that another has begun; the members themselves when all can.
    pub continuing: Arc<[u32]>,
    /// The members in an order that gives each as many turns as its weight says, or about as many in a large pool of
    /// many weights; the members themselves when all weigh the same.
    pub turns: Arc<[u32]>,
    /// Indexes of all registered workers of the model, ascending, routable or not.
    pub registered: Arc<[u32]>,
    /// The members on a ring, if the policy needs one.
    pub ring: Option<Arc<Ring>>,
    /// For the bucket policy: the longest prompt, in bytes, of each member but the last.
    pub bounds: Arc<[u32]>,
    /// Rotation counter, shared by every shard and kept over publications, so that round robin is exact.
    pub rotation: Arc<AtomicU64>,
    /// Loads of the members, shared by every shard and kept over publications.
    pub board: Arc<Board>,
    /// What [`Board::arrivals`] says once all members are on the board. More than that, and somebody may be chosen
    /// whom this pool does not know.
    pub arrivals: u64,
    /// Lengths of prompts, from which `bounds` are made.
    pub lengths: Arc<LengthHistogram>,
    /// Counters of this model.
    pub stats: Arc<ModelStats>,
}

impl Pool {
    /// What blocks of prompts for this pool are hashed with. Where the hash alone decides, every gateway must get the
    /// same; elsewhere nobody may know it, lest prompts be made that collide.
    #[inline]
    pub fn hash_seed(&self) -> u64 {
        if matches!(self.policy, Policy::PrefixHash(_)) { 0 } else { self.block_seed }
    }

    /// Whether somebody has joined since this pool was published.
    #[inline]
    pub fn is_outrun(&self) -> bool {
        self.board.arrivals() > self.arrivals
    }

    /// Whether the worker that is present on the board at `index` is a member here.
    #[inline]
    pub fn knows(&self, index: u32) -> bool {
        !self.is_outrun() || self.members.binary_search(&index).is_ok()
    }

    /// Takes the next turn of the rotation.
    #[inline]
    pub fn next_turn(&self) -> u64 {
        self.rotation.fetch_add(1, Ordering::Relaxed)
    }
}

/// A page that shards answer by themselves.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

/// Workers, pools and the pages made from them. Replaced when the fleet changes.
#[derive(Debug)]
pub struct Fleet {
    /// Every registered worker by index, routable or not.
    pub workers: WorkerTable,
    /// One pool per model and role, ordered by name. A pool may have no members.
    pub pools: Box<[Arc<Pool>]>,
    /// Whom keys belong to; one for the life of the process.
    pub sticky: Arc<StickyTable>,
    /// Models by their other names.
    pub aliases: Arc<Aliases>,
    /// Answer of `/readiness`.
    pub readiness: Page,
    /// Answer of `/health_generate`.
    pub health_generate: Page,
    /// Answer of `/v1/models`.
    pub models: Page,
    /// What is other for clients of vLLM's production-stack router; none for all others.
    pub stack: Option<Arc<Stack>>,
}

/// Models by other names that clients may use for them.
pub type Aliases = HashMap<Box<str>, Box<str>>;

/// Why no pool serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPool {
    /// No worker is registered.
    NoWorkers,
    /// Several models are served and the request names none.
    ModelRequired,
    /// The request names a model that nobody serves.
    UnknownModel,
}

/// Where the pools of one model are; at least one of them is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPools {
    /// Workers that do all of a request.
    pub regular: Option<usize>,
    /// Workers that compute prompts.
    pub prefill: Option<usize>,
    /// Workers that generate answers.
    pub decode: Option<usize>,
}

impl Fleet {
    /// The worker with this id, if it is still registered.
    #[inline]
    pub fn worker(&self, id: WorkerId) -> Option<&Arc<Worker>> {
        self.workers.get(id.index).filter(|worker| worker.id == id)
    }

    /// Where in `pools` those of the model are that a request names.
    ///
    /// A fleet of one model serves a request without a name, and unless names are to be exact one with any name, as
    /// SGLang's single-model router does.
    ///
    /// # Errors
    /// Says what is missing: workers, a model name, or that model.
    pub fn pools_of(&self, model: Option<&str>, is_exact: bool) -> Result<ModelPools, NoPool> {
        let (Some(first), Some(last)) = (self.pools.first(), self.pools.last()) else {
            return Err(NoPool::NoWorkers);
        };
        let is_one = first.name.model == last.name.model;
        let range = if is_one && (model.is_none() || !is_exact) {
            0..self.pools.len()
        } else {
            let model = model.ok_or(NoPool::ModelRequired)?;
            let begin = self.pools.partition_point(|pool| *pool.name.model < *model);
            let of_model = |pool: &&Arc<Pool>| *pool.name.model == *model;
            begin..begin + self.pools[begin..].iter().take_while(of_model).count()
        };
        let index = |role| range.clone().find(|&index| self.pools[index].name.role == role);
        match [index(Role::Regular), index(Role::Prefill), index(Role::Decode)] {
            [None, None, None] => Err(NoPool::UnknownModel),
            [regular, prefill, decode] => Ok(ModelPools { regular, prefill, decode }),
        }
    }
}

/// What shards route by: fleet and prefix tree of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts publications.
    pub version: u64,
    /// Workers and pools.
    pub fleet: Arc<Fleet>,
    /// Which worker holds which prompt prefix.
    pub tree: TreeSnapshot,
}

// === impl Role ===

impl Role {
    /// Its name in admin calls and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

// === impl Weight ===

impl Weight {
    /// Every priority and every sixteenth is a whole number of parts: 16 times 25.
    const ONE: u16 = 400;
    const MIN: f64 = 1.0 / 16.0;
    const MAX: f64 = 16.0;

    /// The weight of a worker of this priority (usually 50) and cost (usually 1.0): twice the priority or half the
    /// cost is twice the requests, within a sixteenth and sixteen times the usual.
    pub fn of(priority: u32, cost: f64) -> Self {
        let ratio = f64::from(priority.max(1)) / 50.0 / if cost > 0.0 { cost } else { 1.0 };
        Self((ratio.clamp(Self::MIN, Self::MAX) * f64::from(Self::ONE)).round().max(1.0) as u16)
    }

    /// This share of it, at least one part.
    pub fn eighths(self, eighths: u16) -> Self {
        Self((u32::from(self.0) * u32::from(eighths) / 8).max(1) as u16)
    }

    /// In sixteenths of the usual weight, rounded, at least one.
    pub fn sixteenths(self) -> u16 {
        (self.ratio() * 16.0).round().max(1.0) as u16
    }

    /// In whole parts, at least one.
    pub fn parts(self) -> u32 {
        u32::from(self.0.max(1))
    }

    /// As a multiple of the usual weight.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE)
    }

    /// `cost` as it counts on a worker of this weight.
    #[inline]
    fn scaled(self, cost: u32) -> u32 {
        (u64::from(cost) * u64::from(Self::ONE) / u64::from(self.parts())).min(u64::from(u32::MAX)) as u32
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(Self::ONE)
    }
}

// === impl Worker ===

/// Bytes of prompt computed in a second, where nobody says: 2,000 tokens of four bytes (smg's default throughput).
const PREFILL_BYTES_PER_S: u32 = 8_000;
/// What an answer counts as while it is generated, in [`Unit::Work`]: little, so that waiting prompts decide.
const DECODE_WORK: u32 = WORK_UNITS_PER_S / 200;

/// What computing so many bytes of prompt counts as, in [`Unit::Work`], on a worker of the usual weight.
#[inline]
pub fn prefill_work(uncached_bytes: u32) -> u32 {
    (uncached_bytes / (PREFILL_BYTES_PER_S / WORK_UNITS_PER_S)).min(PREFILL_WORK_MAX)
}

impl Worker {
    /// What one request of this weight costs in [`Unit::Requests`].
    #[inline]
    pub fn request_cost(&self) -> u32 {
        self.weight.scaled(REQUEST_COST)
    }

    /// Says whether it counts as full, wherever its load is kept.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.boards.iter().for_each(|board| board.set_full(self.id.index, is_full));
    }

    /// Counts a request in this worker's loads.
    #[inline]
    pub fn begin(&self, claim: &Claim) {
        self.cells.begin();
        for board in &self.boards {
            board.add(self.id.index, self.cost(board.unit(), claim));
        }
    }

    /// The prompt of a request is computed: what is left of its load is its answer.
    #[inline]
    pub fn prompt_done(&self, claim: &Claim) {
        for board in self.boards.iter().filter(|board| board.unit() == Unit::Work) {
            board.sub(self.id.index, self.prefill_work(claim));
        }
    }

    /// Takes a request out of this worker's loads. `is_prompt_done` says whether [`Worker::prompt_done`] was called.
    #[inline]
    pub fn end(&self, claim: &Claim, is_prompt_done: bool) {
        self.cells.end();
        for board in &self.boards {
            let done =
                if is_prompt_done && board.unit() == Unit::Work { self.prefill_work(claim) } else { 0 };
            board.sub(self.id.index, self.cost(board.unit(), claim) - done);
        }
    }

    fn cost(&self, unit: Unit, claim: &Claim) -> u32 {
        match unit {
            Unit::Requests => self.request_cost(),
            Unit::PromptBytes => self.weight.scaled(claim.prompt_bytes.div_ceil(PROMPT_STEP_BYTES)),
            Unit::Work => self.weight.scaled(DECODE_WORK) + self.prefill_work(claim),
        }
    }

    fn prefill_work(&self, claim: &Claim) -> u32 {
        self.weight.scaled(prefill_work(claim.uncached_bytes)).min(PREFILL_WORK_MAX)
    }
}

/// Most that one prompt counts as, in [`Unit::Work`]: a hundred seconds.
const PREFILL_WORK_MAX: u32 = 100 * WORK_UNITS_PER_S;
