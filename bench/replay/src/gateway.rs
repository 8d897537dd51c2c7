//! Presents simulated engines to the gateway's own policies, as control and a shard would present real ones.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::blocks::BLOCK_BYTES;
use fleet::blocks::block_count;
use fleet::blocks::bytes_covered;
use fleet::cell::WorkerCells;
use fleet::id::WorkerId;
use fleet::snapshot::Fleet;
use fleet::snapshot::Page;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use fleet::stats::ModelStats;
use fleet::stats::StatsShape;
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;
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
/// Bounds of the prefix tree: the gateway's defaults.
const TREE: TreeConfig =
    TreeConfig { bytes_max: 256 << 20, blocks_per_holder_max: 67_108_864_usize.div_ceil(BLOCK_BYTES) };

/// One shard and the control behind it.
#[derive(Debug)]
pub struct Gateway {
    policy: Policy,
    replica: Replica,
    pool: Arc<Pool>,
    snapshot: Snapshot,
    tree: PrefixTree,
    /// Whether the tree has grown since it was published, and when that was.
    is_stale: bool,
    published_us: u64,
    blocks: Vec<u64>,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway in front of `workers` engines. What it draws follows from `seed`.
    pub fn new(policy: Policy, workers: usize, seed: u64) -> Gateway {
        let members: Box<[Arc<Worker>]> = (0..workers as u32).map(|index| Arc::new(worker(index))).collect();
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        let pool = Arc::new(Pool {
            model: "replay".into(),
            block_seed: 0,
            members: members.clone(),
            rotation: Arc::new(AtomicU64::new(0)),
            stats: Arc::new(ModelStats::new(1, &shape)),
        });
        let page = Page { status: 200, content_type: "", body: bytes::Bytes::new() };
        let mut tree = PrefixTree::new(TREE);
        let fleet = Fleet {
            workers: members.iter().cloned().map(Some).collect(),
            pools: Box::new([Arc::clone(&pool)]),
            readiness: page.clone(),
            health_generate: page.clone(),
            models: page,
        };
        let snapshot = Snapshot { version: 1, fleet: Arc::new(fleet), tree: tree.snapshot() };
        Gateway {
            policy,
            replica: Replica::new(seed),
            pool,
            snapshot,
            tree,
            is_stale: false,
            published_us: 0,
            blocks: Vec::new(),
        }
    }

    fn publish(&mut self, now_us: u64) {
        if self.is_stale && now_us >= self.published_us + PUBLISH_INTERVAL_US {
            self.snapshot.tree = self.tree.snapshot();
            self.snapshot.version += 1;
            // Bounded work per call; what is left is freed after the next publication.
            self.tree.collect_garbage();
            self.is_stale = false;
            self.published_us = now_us;
        }
    }
}

impl Router for Gateway {
    fn choose(&mut self, arrival: &Arrival<'_>) -> WorkerIndex {
        self.publish(arrival.now_us);
        let prompt_bytes = arrival.request.prompt_bytes();
        self.blocks.clear();
        if self.policy.reads_prompt() {
            hash_blocks(arrival.request, &mut self.blocks);
        }
        let tick = (arrival.now_us / 1_000_000) as u32;
        let request = Request { blocks: &self.blocks, prompt_bytes, excluded: &[], tick };
        let choice = self.replica.choose(&self.policy, &self.snapshot, &self.pool, &request);
        let choice = choice.expect("a fleet has at least one worker, and none is excluded");
        choice.worker.cells.begin(0);
        let index = choice.worker.id.index;
        if choice.is_news {
            self.tree.insert(&self.blocks, HolderId(index), tick);
            self.is_stale = true;
        }
        index as WorkerIndex
    }

    fn finished(&mut self, _request: RequestIndex, worker: WorkerIndex) {
        self.pool.members[worker].cells.end(0);
    }
}

fn worker(index: u32) -> Worker {
    Worker {
        id: WorkerId { index, generation: index + 1 },
        url: format!("http://engine-{index}").into(),
        host: format!("engine-{index}").into(),
        base_path: "".into(),
        addresses: Box::new([]),
        authorization: None,
        cells: Arc::new(WorkerCells::new(1)),
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
