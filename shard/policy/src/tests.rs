//! Decisions over small fleets, with loads, prefixes and exclusions set by hand.

use std::sync::atomic::AtomicU64;

use fleet::cell::WorkerCells;
use fleet::snapshot::Fleet;
use fleet::snapshot::Page;
use fleet::stats::ModelStats;
use fleet::stats::StatsShape;
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;

use super::*;

struct World {
    snapshot: Snapshot,
    tree: PrefixTree,
    replica: Replica,
}

impl World {
    fn new(workers: u32) -> Self {
        let members: Box<[Arc<Worker>]> = (0..workers)
            .map(|index| {
                Arc::new(Worker {
                    id: WorkerId { index, generation: index + 1 },
                    url: format!("http://w{index}").into(),
                    host: format!("w{index}").into(),
                    base_path: "".into(),
                    addresses: Box::new([]),
                    authorization: None,
                    cells: Arc::new(WorkerCells::new(1)),
                })
            })
            .collect();
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        let pool = Arc::new(Pool {
            model: "m".into(),
            block_seed: 0,
            members: members.clone(),
            rotation: Arc::new(AtomicU64::new(0)),
            stats: Arc::new(ModelStats::new(1, &shape)),
        });
        let page = Page { status: 200, content_type: "", body: Default::default() };
        let mut tree = PrefixTree::new(TreeConfig { bytes_max: 1 << 20, blocks_per_holder_max: usize::MAX });
        let fleet = Fleet {
            workers: members.iter().cloned().map(Some).collect(),
            pools: Box::new([pool]),
            readiness: page.clone(),
            health_generate: page.clone(),
            models: page,
        };
        let snapshot = Snapshot { version: 1, fleet: Arc::new(fleet), tree: tree.snapshot() };
        Self { snapshot, tree, replica: Replica::new(7) }
    }

    fn hold(&mut self, blocks: &[u64], worker: u32) {
        self.tree.insert(blocks, HolderId(worker), 0);
        self.snapshot.tree = self.tree.snapshot();
    }

    fn load(&self, worker: u32, requests: u32) {
        (0..requests).for_each(|_| self.snapshot.fleet.pools[0].members[worker as usize].cells.begin(0));
    }

    fn choose_with(&mut self, policy: &Policy, request: &Request<'_>) -> Option<(u32, Reason, u32, bool)> {
        let pool = Arc::clone(&self.snapshot.fleet.pools[0]);
        self.replica
            .choose(policy, &self.snapshot, &pool, request)
            .map(|choice| (choice.worker.id.index, choice.reason, choice.matched_blocks, choice.is_news))
    }

    fn choose(&mut self, policy: &Policy, blocks: &[u64]) -> (u32, Reason, u32, bool) {
        self.choose_with(policy, &request(blocks, &[])).expect("a worker")
    }
}

fn cache_aware() -> Policy {
    Policy::CacheAware(CacheAware::default())
}

fn policies() -> [Policy; 4] {
    [Policy::Random, Policy::RoundRobin, Policy::PowerOfTwo, cache_aware()]
}

/// A prompt as long as its blocks can be.
fn request<'a>(blocks: &'a [u64], excluded: &'a [WorkerId]) -> Request<'a> {
    Request { blocks, prompt_bytes: 128 * blocks.len(), excluded, tick: 0 }
}

fn id(index: u32) -> WorkerId {
    WorkerId { index, generation: index + 1 }
}

#[test]
fn an_excluded_worker_is_never_chosen_and_the_last_one_left_always() {
    for policy in policies() {
        let mut world = World::new(3);
        world.hold(&[1, 2], 0);
        for _ in 0..50 {
            let excluded = [id(0), id(2)];
            let request = request(&[1, 2], &excluded);
            assert_eq!(world.choose_with(&policy, &request).expect("one is left").0, 1, "{}", policy.name());
        }
        let excluded = [id(0), id(1), id(2)];
        let request = request(&[1], &excluded);
        assert!(world.choose_with(&policy, &request).is_none());
        assert!(World::new(0).choose_with(&policy, &request).is_none());
    }
}

#[test]
fn round_robin_takes_turns_exactly() {
    let mut world = World::new(3);
    let picks: Vec<u32> = (0..7).map(|_| world.choose(&Policy::RoundRobin, &[]).0).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn random_reaches_every_worker() {
    let mut world = World::new(4);
    let mut seen = [0; 4];
    (0..400).for_each(|_| seen[world.choose(&Policy::Random, &[]).0 as usize] += 1);
    assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
}

#[test]
fn power_of_two_picks_the_lighter_of_two_distinct_workers() {
    let mut world = World::new(2);
    world.load(0, 1);
    for _ in 0..50 {
        assert_eq!(world.choose(&Policy::PowerOfTwo, &[]).0, 1);
    }
}

#[test]
fn unknown_prompts_spread_evenly_over_idle_workers() {
    let mut world = World::new(3);
    let mut seen = [0; 3];
    for prompt in 0..30 {
        seen[world.choose(&cache_aware(), &[1000 + prompt]).0 as usize] += 1;
    }
    assert_eq!(seen, [10, 10, 10]);
}

#[test]
fn the_holder_of_the_prefix_wins_above_the_threshold_only() {
    let mut world = World::new(3);
    world.hold(&[1, 2, 3, 4], 2);
    let (worker, reason, matched, is_news) = world.choose(&cache_aware(), &[1, 2, 3, 4]);
    assert_eq!((worker, reason, matched, is_news), (2, Reason::Prefix, 4, false));
    let (_, reason, matched, _) = world.choose(&cache_aware(), &[1, 20, 30, 40, 50]);
    assert_eq!((reason, matched), (Reason::LeastLoad, 0));
}

#[test]
fn the_lightest_of_all_holders_wins() {
    let mut world = World::new(3);
    world.hold(&[1, 2], 0);
    world.hold(&[1, 2], 1);
    world.load(0, 3);
    assert_eq!(world.choose(&cache_aware(), &[1, 2]).0, 1);
}

#[test]
fn load_out_of_balance_beats_affinity() {
    let mut world = World::new(2);
    world.hold(&[1, 2], 0);
    world.load(0, 64);
    assert_eq!(world.choose(&cache_aware(), &[1, 2]).1, Reason::Prefix, "64 is not more than 64");
    world.load(0, 1);
    let (worker, reason, ..) = world.choose(&cache_aware(), &[1, 2]);
    assert_eq!((worker, reason), (1, Reason::Balance));
}

#[test]
fn out_of_balance_still_prefers_a_light_holder() {
    let mut world = World::new(3);
    world.hold(&[1, 2], 0);
    world.hold(&[1, 2], 2);
    world.load(0, 100);
    world.load(2, 5);
    let (worker, reason, matched, _) = world.choose(&cache_aware(), &[1, 2]);
    assert_eq!((worker, reason, matched), (2, Reason::Balance, 2));
}

#[test]
fn the_second_request_sticks_before_the_tree_is_published() {
    let mut world = World::new(4);
    let (first, ..) = world.choose(&cache_aware(), &[1, 2, 3]);
    let (second, reason, matched, _) = world.choose(&cache_aware(), &[1, 2, 3, 4]);
    assert_eq!((second, reason, matched), (first, Reason::Prefix, 3));
}

#[test]
fn a_worker_that_left_is_not_chosen_for_what_it_held() {
    let mut world = World::new(2);
    world.hold(&[1, 2], 0);
    let excluded = [id(0)];
    let request = request(&[1, 2], &excluded);
    let (worker, _, matched, is_news) = world.choose_with(&cache_aware(), &request).expect("one");
    assert_eq!((worker, matched, is_news), (1, 0, true));
}

#[test]
fn the_threshold_is_a_share_of_bytes_not_of_blocks() {
    let mut world = World::new(2);
    // 128 of 640 bytes, in 3 of 7 blocks: a fifth, which is not above 0.3.
    world.hold(&[1, 2, 3], 1);
    let blocks = [1, 2, 3, 40, 50, 60, 70];
    let short = Request { prompt_bytes: 640, ..request(&blocks, &[]) };
    let (_, reason, matched, _) = world.choose_with(&cache_aware(), &short).expect("a worker");
    assert_eq!((reason, matched), (Reason::LeastLoad, 0));
}
