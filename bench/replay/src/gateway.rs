//! Presents simulated engines to the gateway's own policies, as control and its shards would present real ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::blocks::BLOCK_BYTES;
use fleet::blocks::block_count;
use fleet::blocks::bytes_covered;
use fleet::board::Board;
use fleet::cell::WorkerCells;
use fleet::id::WorkerId;
use fleet::lengths::LengthHistogram;
use fleet::ring::Ring;
use fleet::ring::RingMember;
use fleet::snapshot::Claim;
use fleet::snapshot::Fleet;
use fleet::snapshot::Handoff;
use fleet::snapshot::Page;
use fleet::snapshot::Pool;
use fleet::snapshot::PoolName;
use fleet::snapshot::Role;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Weight;
use fleet::snapshot::Worker;
use fleet::snapshot::WorkerTable;
use fleet::stats::ModelStats;
use fleet::stats::StatsShape;
use fleet::sticky::StickyTable;
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;
use policy::Keys;
use policy::Policy;
use policy::Replica;
use policy::Request;

use crate::engine::RequestIndex;
use crate::router::Arrival;
use crate::router::Router;
use crate::router::WorkerIndex;
use crate::trace::BYTES_PER_TOKEN;
use crate::trace::TraceRequest;
use crate::trace::chain;

/// Control publishes at most this often.
const PUBLISH_INTERVAL_US: u64 = 1_000;
/// How often the bucket policy's ranges follow the lengths of prompts: the gateway's default.
const BOUNDS_INTERVAL_US: u64 = 5_000_000;
/// Bounds of the prefix tree: the gateway's defaults.
const TREE: TreeConfig =
    TreeConfig { bytes_max: 256 << 20, blocks_per_holder_max: 67_108_864_usize.div_ceil(BLOCK_BYTES) };

/// Shards, and the control behind them.
#[derive(Debug)]
pub struct Gateway {
    /// One a shard.
    replicas: Vec<Replica>,
    snapshot: Snapshot,
    tree: PrefixTree,
    /// Whether the tree has grown since it was published, and when that was.
    is_stale: bool,
    published_us: u64,
    bounds_due_us: u64,
    /// What each request in flight puts on its worker.
    claims: HashMap<RequestIndex, Claim>,
    blocks: Vec<u64>,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway of `shards` shards in front of `workers` engines. What they draw follows from `seed`.
    pub fn new(policy: Policy, workers: usize, shards: usize, seed: u64) -> Gateway {
        let board = Arc::new(Board::new(policy.unit()));
        let mut table = WorkerTable::default();
        for index in 0..workers as u32 {
            table.set(index, Some(Arc::new(worker(index, &board))));
            board.set_present(index, true);
        }
        let page = Page { status: 200, content_type: "", body: bytes::Bytes::new() };
        let mut tree = PrefixTree::new(TREE);
        let fleet = Fleet {
            pools: Box::new([Arc::new(pool(policy, &table, board))]),
            workers: table,
            sticky: Arc::new(StickyTable::default()),
            aliases: Arc::default(),
            stack: None,
            readiness: page.clone(),
            health_generate: page.clone(),
            models: page,
        };
        let snapshot = Snapshot { version: 1, fleet: Arc::new(fleet), tree: tree.snapshot() };
        Gateway {
            replicas: (0..shards.max(1) as u64).map(|shard| Replica::new(chain(seed, shard))).collect(),
            snapshot,
            tree,
            is_stale: false,
            published_us: 0,
            bounds_due_us: BOUNDS_INTERVAL_US,
            claims: HashMap::new(),
            blocks: Vec::new(),
        }
    }

    /// What control would have done until now.
    fn publish(&mut self, now_us: u64) {
        if self.is_stale && now_us >= self.published_us + PUBLISH_INTERVAL_US {
            self.snapshot.tree = self.tree.snapshot();
            self.snapshot.version += 1;
            // Bounded work per call; what is left is freed after the next publication.
            self.tree.collect_garbage();
            self.is_stale = false;
            self.published_us = now_us;
        }
        if now_us >= self.bounds_due_us {
            self.bounds_due_us = now_us + BOUNDS_INTERVAL_US;
            self.move_bounds();
        }
    }

    /// Gives each worker of the bucket policy its range of lengths anew.
    fn move_bounds(&mut self) {
        let pool = &self.snapshot.fleet.pools[0];
        if !matches!(pool.policy, Policy::Bucket(_)) {
            return;
        }
        let fleet = &self.snapshot.fleet;
        let bounds = pool.lengths.take_bounds(pool.members.len()).into();
        let pool = Pool { bounds, ..shared_parts(pool) };
        self.snapshot.fleet = Arc::new(Fleet {
            pools: Box::new([Arc::new(pool)]),
            workers: fleet.workers.clone(),
            sticky: Arc::clone(&fleet.sticky),
            aliases: Arc::default(),
            stack: None,
            readiness: fleet.readiness.clone(),
            health_generate: fleet.health_generate.clone(),
            models: fleet.models.clone(),
        });
    }
}

impl Router for Gateway {
    fn choose(&mut self, arrival: &Arrival<'_>) -> WorkerIndex {
        self.publish(arrival.now_us);
        let pool = &self.snapshot.fleet.pools[0];
        let prompt_bytes = arrival.request.prompt_bytes();
        self.blocks.clear();
        if pool.policy.reads_prompt() {
            hash_blocks(arrival.request, &mut self.blocks);
        }
        let key = arrival.request.key.map(u64::to_be_bytes);
        let request = Request {
            blocks: &self.blocks,
            prompt_bytes,
            keys: Keys { session: key.as_ref().map(|key| &key[..]), ..Keys::default() },
            excluded: &[],
            must_continue: false,
            tick: (arrival.now_us / 1_000_000) as u32,
        };
        // The kernel spreads connections over shards by a hash.
        let shard = chain(0, arrival.index as u64) as usize % self.replicas.len();
        let choice = self.replicas[shard].choose(&self.snapshot, pool, &request);
        let choice = choice.expect("every worker is present and none is excluded");
        let held = bytes_covered(choice.matched_blocks, prompt_bytes);
        let bytes = |bytes: usize| bytes.min(u32::MAX as usize) as u32;
        let claim = Claim { prompt_bytes: bytes(prompt_bytes), uncached_bytes: bytes(prompt_bytes - held) };
        choice.worker.begin(&claim);
        self.claims.insert(arrival.index, claim);
        let worker = choice.worker.id.index;
        if choice.is_news {
            self.tree.insert(&self.blocks, HolderId(worker), request.tick);
            self.is_stale = true;
        }
        worker as WorkerIndex
    }

    fn first_token(&mut self, request: RequestIndex, worker: WorkerIndex) {
        if let (Some(worker), Some(claim)) = (self.worker(worker), self.claims.get(&request)) {
            worker.prompt_done(claim);
        }
    }

    fn finished(&mut self, request: RequestIndex, worker: WorkerIndex) {
        if let Some(claim) = self.claims.remove(&request)
            && let Some(worker) = self.worker(worker)
        {
            worker.end(&claim, true);
        }
    }
}

impl Gateway {
    fn worker(&self, index: WorkerIndex) -> Option<&Arc<Worker>> {
        self.snapshot.fleet.workers.get(index as u32)
    }
}

fn worker(index: u32, board: &Arc<Board>) -> Worker {
    Worker {
        id: WorkerId { index, generation: index + 1 },
        url: format!("http://engine-{index}").into(),
        host: format!("engine-{index}").into(),
        base_path: "".into(),
        transport: fleet::snapshot::Transport::Plain,
        addresses: Box::new([]),
        role: Role::Regular,
        bootstrap_port: None,
        handoff: Handoff::Bootstrap,
        rank: None,
        authorization: None,
        weight: Weight::default(),
        ring_weight: Weight::default(),
        can_continue: false,
        cells: Arc::new(WorkerCells::default()),
        boards: std::iter::once(Arc::clone(board)).collect(),
        tallies: None,
    }
}

fn pool(policy: Policy, workers: &WorkerTable, board: Arc<Board>) -> Pool {
    let shape = StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
    let members: Arc<[u32]> = workers.iter().map(|worker| worker.id.index).collect();
    let on_ring: Vec<RingMember<'_>> = workers
        .iter()
        .map(|worker| RingMember { index: worker.id.index, url: &worker.url, weight: worker.weight.ratio() })
        .collect();
    let lengths = Arc::<LengthHistogram>::default();
    let ranges = if matches!(policy, Policy::Bucket(_)) { members.len() } else { 0 };
    Pool {
        name: PoolName { model: "replay".into(), role: Role::Regular },
        policy,
        block_seed: 0,
        turns: Arc::clone(&members),
        registered: Arc::clone(&members),
        continuing: Arc::clone(&members),
        members,
        ring: policy.ring_layout().map(|layout| Arc::new(Ring::new(layout).changed(&[], &on_ring))),
        bounds: lengths.bounds(ranges).into(),
        rotation: Arc::new(AtomicU64::new(0)),
        arrivals: board.arrivals(),
        board,
        lengths,
        stats: Arc::new(ModelStats::new(1, &shape)),
    }
}

/// A pool with the same parts.
fn shared_parts(pool: &Pool) -> Pool {
    Pool {
        name: pool.name.clone(),
        policy: pool.policy,
        block_seed: pool.block_seed,
        members: Arc::clone(&pool.members),
        continuing: Arc::clone(&pool.continuing),
        turns: Arc::clone(&pool.turns),
        registered: Arc::clone(&pool.registered),
        ring: pool.ring.clone(),
        bounds: Arc::clone(&pool.bounds),
        rotation: Arc::clone(&pool.rotation),
        board: Arc::clone(&pool.board),
        arrivals: pool.arrivals,
        lengths: Arc::clone(&pool.lengths),
        stats: Arc::clone(&pool.stats),
    }
}

/// The prompt in the gateway's own blocks: each is named by the block of the trace that its last byte lies in, so two
/// prompts agree in a block when they agree in all of that. Bytes that the trace does not name are nobody else's.
fn hash_blocks(request: &TraceRequest, hashes: &mut Vec<u64>) {
    let prompt_bytes = request.prompt_bytes();
    let mut trace_blocks = request.blocks.iter();
    let mut prefix = 0;
    let mut named_bytes = 0;
    for block in 1..=block_count(prompt_bytes) {
        let end = bytes_covered(block, prompt_bytes);
        while named_bytes < end
            && let Some(next) = trace_blocks.next()
        {
            named_bytes += next.tokens as usize * BYTES_PER_TOKEN as usize;
            prefix = next.prefix;
        }
        if named_bytes < end {
            return;
        }
        hashes.push(chain(prefix, block.into()));
    }
}
