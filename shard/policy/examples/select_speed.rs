//! Measures a selection under every policy with 10, 1,000 and 10,000 workers, and what remembering it costs:
//! `cargo run --release -p policy --example select_speed`.
//!
//! Times are of one thread that chooses, claims and, some choices later, releases, so loads move as under traffic.
//! A tenth of the prompts are new, the others go on from a prompt of before. Workers' connections are not involved.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use fleet::board::Board;
use fleet::cell::WorkerCells;
use fleet::decision;
use fleet::decision::Decision;
use fleet::decision::DecisionRing;
use fleet::id::WorkerId;
use fleet::ring::Ring;
use fleet::ring::RingMember;
use fleet::rules::Policy;
use fleet::rules::Rules;
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
use policy::Keys;
use policy::Replica;
use policy::Request;

const FLEETS: [u32; 3] = [10, 1_000, 10_000];
const SELECTIONS: usize = 200_000;
const IN_FLIGHT: usize = 512;
/// Blocks of each prompt: about 1 KiB.
const BLOCKS: usize = 10;
const PROMPTS: u64 = 2_000;

fn main() {
    println!("{:20} {:>22} {:>22} {:>22}", "policy", "10 workers", "1,000", "10,000");
    println!("{:20} {:>22} {:>22} {:>22}", "", "p50 / p99 ns", "p50 / p99 ns", "p50 / p99 ns");
    for name in Policy::NAMES {
        let Some(policy) = Rules::default().policy(name) else { continue };
        let cells: Vec<String> = FLEETS
            .iter()
            .map(|&workers| {
                let (p50, p99) = measure(policy, workers);
                format!("{p50} / {p99}")
            })
            .collect();
        println!("{name:20} {:>22} {:>22} {:>22}", cells[0], cells[1], cells[2]);
    }
    println!("\none decision record: {} ns", record_ns());
}

fn measure(policy: Policy, workers: u32) -> (u64, u64) {
    let (snapshot, pool) = world(policy, workers);
    let mut replica = Replica::new(7);
    let mut flights = VecDeque::new();
    let mut times = Vec::with_capacity(SELECTIONS);
    let mut draw = 1_u64;
    for n in 0..SELECTIONS {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let prompt = if draw >> 60 == 0 { PROMPTS + n as u64 } else { (draw >> 33) % PROMPTS };
        let blocks = blocks_of(prompt);
        let key = prompt.to_le_bytes();
        let request = Request {
            blocks: if policy.reads_prompt() { &blocks } else { &[] },
            prompt_bytes: BLOCKS * 128,
            keys: Keys { session: Some(&key), ..Keys::default() },
            excluded: &[],
            must_continue: false,
            tick: (n / 10_000) as u32,
        };
        let began = Instant::now();
        let choice = replica.choose(&snapshot, &pool, &request).expect("a worker");
        times.push(began.elapsed().as_nanos() as u64);
        let claim = Claim { prompt_bytes: 1_280, uncached_bytes: 640 };
        choice.worker.begin(&claim);
        flights.push_back((Arc::clone(choice.worker), claim));
        if flights.len() > IN_FLIGHT
            && let Some((worker, claim)) = flights.pop_front()
        {
            worker.end(&claim, false);
        }
    }
    times.sort_unstable();
    (times[SELECTIONS / 2], times[SELECTIONS * 99 / 100])
}

/// Four prompts share their first six blocks.
fn blocks_of(prompt: u64) -> [u64; BLOCKS] {
    std::array::from_fn(|at| {
        let own = if at > 5 { prompt % 4 } else { 0 };
        (prompt / 4 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((at as u64) << 3) ^ own
    })
}

fn world(policy: Policy, count: u32) -> (Snapshot, Arc<Pool>) {
    let board = Arc::new(Board::new(policy.unit()));
    let mut workers = WorkerTable::default();
    for index in 0..count {
        let worker = Worker {
            id: WorkerId { index, generation: index + 1 },
            url: format!("http://10.{}.{}.1:8000", index / 250, index % 250).into(),
            host: "".into(),
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
            boards: [Arc::clone(&board)].into_iter().collect(),
            tallies: None,
        };
        workers.set(index, Some(Arc::new(worker)));
        board.set_present(index, true);
    }
    let members: Arc<[u32]> = (0..count).collect();
    let on_ring: Vec<RingMember<'_>> = workers
        .iter()
        .map(|worker| RingMember { index: worker.id.index, url: &worker.url, weight: 1.0 })
        .collect();
    let shape = StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
    let pool = Arc::new(Pool {
        name: PoolName { model: "m".into(), role: Role::Regular },
        policy,
        block_seed: 0,
        turns: Arc::clone(&members),
        registered: Arc::clone(&members),
        continuing: Arc::clone(&members),
        bounds: (1..count).map(|bound| bound * 100).collect(),
        members,
        ring: policy.ring_layout().map(|layout| Arc::new(Ring::new(layout).changed(&[], &on_ring))),
        rotation: Arc::new(AtomicU64::new(0)),
        arrivals: board.arrivals(),
        board,
        lengths: Arc::default(),
        stats: Arc::new(ModelStats::new(1, &shape)),
    });
    let mut tree = PrefixTree::new(TreeConfig { bytes_max: 1 << 30, blocks_per_holder_max: usize::MAX });
    for prompt in 0..PROMPTS {
        tree.insert(&blocks_of(prompt), HolderId((prompt as u32).wrapping_mul(2_654_435_761) % count), 0);
    }
    let page = Page { status: 200, content_type: "", body: Default::default() };
    let fleet = Fleet {
        workers,
        pools: Box::new([Arc::clone(&pool)]),
        sticky: Arc::default(),
        aliases: Arc::default(),
        stack: None,
        readiness: page.clone(),
        health_generate: page.clone(),
        models: page,
    };
    (Snapshot { version: 1, fleet: Arc::new(fleet), tree: tree.snapshot() }, pool)
}

/// Making and storing one full record, its clock reads aside.
fn record_ns() -> u64 {
    const RECORDS: u32 = 200_000;
    let policy = Rules::default().default;
    let (snapshot, pool) = world(policy, 10);
    let mut replica = Replica::new(7);
    let blocks: Vec<u64> = (0..512).collect();
    let request = Request { blocks: &blocks, prompt_bytes: 64 << 10, ..Request::default() };
    let choice = replica.choose(&snapshot, &pool, &request).expect("a worker");
    let ring = DecisionRing::default();
    let began = Instant::now();
    for n in 0..RECORDS {
        ring.push(&Decision {
            at_us: u64::from(n),
            evidence: replica.evidence().clone(),
            worker: choice.worker.id.index,
            generation: choice.worker.id.generation,
            reason: choice.reason,
            model_hash: 1,
            policy: policy.number(),
            attempt: 0,
            key: choice.key,
            hash_ns: 1,
            choose_ns: 1,
            samples: decision::samples(&blocks),
        });
    }
    began.elapsed().as_nanos() as u64 / u64::from(RECORDS)
}
