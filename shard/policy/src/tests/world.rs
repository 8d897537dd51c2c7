//! A small fleet of one model, held in the hand.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::board::Board;
use fleet::cell::WorkerCells;
use fleet::id::WorkerId;
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
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;

use crate::Policy;
use crate::Reason;
use crate::Replica;
use crate::Request;

pub(super) struct World {
    pub(super) snapshot: Snapshot,
    tree: PrefixTree,
    pub(super) replica: Replica,
}

pub(super) fn id(index: u32) -> WorkerId {
    WorkerId { index, generation: index + 1 }
}

/// A prompt as long as its blocks can be.
pub(super) fn request<'a>(blocks: &'a [u64], excluded: &'a [WorkerId]) -> Request<'a> {
    Request { blocks, prompt_bytes: 128 * blocks.len(), excluded, ..Request::default() }
}

impl World {
    pub(super) fn new(workers: usize, policy: Policy) -> Self {
        Self::weighted(&vec![1.0; workers], policy)
    }

    pub(super) fn weighted(ratios: &[f64], policy: Policy) -> Self {
        let board = Arc::new(Board::new(policy.unit()));
        let mut workers = WorkerTable::default();
        let indexes = 0..ratios.len() as u32;
        for (index, &ratio) in indexes.clone().zip(ratios) {
            let worker = Worker {
                id: id(index),
                url: format!("http://w{index}").into(),
                host: format!("w{index}").into(),
                base_path: "".into(),
                transport: fleet::snapshot::Transport::Plain,
                addresses: Box::new([]),
                role: Role::Regular,
                bootstrap_port: None,
                handoff: Handoff::Bootstrap,
                rank: None,
                authorization: None,
                weight: Weight::of(50, 1.0 / ratio),
                ring_weight: Weight::default(),
                can_continue: false,
                cells: Arc::new(WorkerCells::default()),
                boards: [Arc::clone(&board)].into_iter().collect(),
                tallies: None,
            };
            workers.set(index, Some(Arc::new(worker)));
            board.set_present(index, true);
        }
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        let members: Vec<RingMember<'_>> = workers
            .iter()
            .map(|worker| RingMember { index: worker.id.index, url: &worker.url, weight: 1.0 })
            .collect();
        let pool = Arc::new(Pool {
            name: PoolName { model: "m".into(), role: Role::Regular },
            policy,
            block_seed: 0,
            members: indexes.clone().collect(),
            continuing: Arc::from([]),
            turns: indexes.clone().flat_map(|index| vec![index; ratios[index as usize] as usize]).collect(),
            registered: indexes.collect(),
            ring: policy.ring_layout().map(|layout| Arc::new(Ring::new(layout).changed(&[], &members))),
            bounds: Arc::from([]),
            rotation: Arc::new(AtomicU64::new(0)),
            arrivals: board.arrivals(),
            board,
            lengths: Arc::default(),
            stats: Arc::new(ModelStats::new(1, &shape)),
        });
        let page = Page { status: 200, content_type: "", body: Default::default() };
        let mut tree = PrefixTree::new(TreeConfig { bytes_max: 1 << 20, blocks_per_holder_max: usize::MAX });
        let fleet = Fleet {
            workers,
            pools: Box::new([pool]),
            sticky: Arc::default(),
            aliases: Arc::default(),
            stack: None,
            readiness: page.clone(),
            health_generate: page.clone(),
            models: page,
        };
        let snapshot = Snapshot { version: 1, fleet: Arc::new(fleet), tree: tree.snapshot() };
        Self { snapshot, tree, replica: Replica::new(7) }
    }

    /// Another shard over the same fleet.
    pub(super) fn shard(&mut self, seed: u64) -> Self {
        let tree = PrefixTree::new(TreeConfig { bytes_max: 1 << 20, blocks_per_holder_max: usize::MAX });
        Self { snapshot: self.snapshot.clone(), tree, replica: Replica::new(seed) }
    }

    pub(super) fn worker(&self, index: u32) -> Arc<Worker> {
        Arc::clone(self.snapshot.fleet.workers.get(index).expect("registered"))
    }

    pub(super) fn board(&self) -> &Board {
        &self.snapshot.fleet.pools[0].board
    }

    pub(super) fn set_present(&self, index: u32, is_present: bool) {
        self.board().set_present(index, is_present);
    }

    /// Says that these workers alone can go on with another's answer.
    pub(super) fn set_continuing(&mut self, continuing: &[u32]) {
        let fleet = Arc::get_mut(&mut self.snapshot.fleet).expect("one owner");
        Arc::get_mut(&mut fleet.pools[0]).expect("one owner").continuing = continuing.into();
        let workers: Vec<Arc<Worker>> = fleet.workers.iter().map(Arc::clone).collect();
        for old in workers {
            let can_continue = continuing.contains(&old.id.index);
            let worker = Worker {
                id: old.id,
                url: old.url.clone(),
                host: old.host.clone(),
                base_path: "".into(),
                transport: fleet::snapshot::Transport::Plain,
                addresses: Box::new([]),
                authorization: None,
                handoff: Handoff::Bootstrap,
                weight: old.weight,
                ring_weight: old.ring_weight,
                can_continue,
                role: old.role,
                bootstrap_port: old.bootstrap_port,
                rank: old.rank,
                cells: Arc::clone(&old.cells),
                boards: old.boards.clone(),
                tallies: None,
            };
            fleet.workers.set(old.id.index, Some(Arc::new(worker)));
        }
    }

    pub(super) fn set_bounds(&mut self, bounds: &[u32]) {
        let fleet = Arc::get_mut(&mut self.snapshot.fleet).expect("one owner");
        Arc::get_mut(&mut fleet.pools[0]).expect("one owner").bounds = bounds.into();
    }

    /// Registers somebody else under the index of a worker.
    pub(super) fn replace(&mut self, index: u32) {
        let old = self.worker(index);
        let worker = Worker {
            id: WorkerId { index, generation: old.id.generation + 1_000 },
            url: old.url.clone(),
            host: old.host.clone(),
            base_path: "".into(),
            transport: fleet::snapshot::Transport::Plain,
            addresses: Box::new([]),
            role: Role::Regular,
            bootstrap_port: None,
            handoff: Handoff::Bootstrap,
            rank: None,
            authorization: None,
            weight: old.weight,
            ring_weight: Weight::default(),
            can_continue: false,
            cells: Arc::default(),
            boards: old.boards.clone(),
            tallies: None,
        };
        let fleet = Arc::get_mut(&mut self.snapshot.fleet).expect("one owner");
        fleet.workers.set(index, Some(Arc::new(worker)));
        let pool = Arc::get_mut(&mut fleet.pools[0]).expect("one owner");
        pool.arrivals = pool.board.arrivals();
        self.tree.remove_holder(HolderId(index));
        self.snapshot.tree = self.tree.snapshot();
    }

    pub(super) fn hold(&mut self, blocks: &[u64], worker: u32) {
        self.hold_at(blocks, worker, 0);
    }

    /// As [`World::hold`], used at `tick`.
    pub(super) fn hold_at(&mut self, blocks: &[u64], worker: u32, tick: u32) {
        self.tree.insert(blocks, HolderId(worker), tick);
        self.snapshot.tree = self.tree.snapshot();
    }

    /// Puts requests in flight.
    pub(super) fn load(&self, worker: u32, requests: u32) {
        (0..requests).for_each(|_| self.worker(worker).begin(&Claim::default()));
    }

    pub(super) fn choose_with(&mut self, request: &Request<'_>) -> Option<(u32, Reason, u32, bool)> {
        let pool = Arc::clone(&self.snapshot.fleet.pools[0]);
        self.replica
            .choose(&self.snapshot, &pool, request)
            .map(|choice| (choice.worker.id.index, choice.reason, choice.matched_blocks, choice.is_news))
    }

    pub(super) fn choose(&mut self, blocks: &[u64]) -> (u32, Reason, u32, bool) {
        self.choose_with(&request(blocks, &[])).expect("a worker")
    }
}
