//! The fleet made from the registry alone, as a check of the one that is kept from change to change. For tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::ring::Ring;
use fleet::rules::Policy;
use fleet::snapshot::Fleet;
use fleet::snapshot::Page;
use fleet::snapshot::Pool;
use fleet::snapshot::PoolName;
use fleet::snapshot::Role;
use fleet::snapshot::Weight;
use fleet::snapshot::Worker;

use crate::control::models::Models;
use crate::control::publish::Sources;
use crate::control::publish::pages;
use crate::control::publish::pages::Card;
use crate::control::publish::pool::order;
use crate::control::publish::pool::ring_member;
use crate::control::worker::Entry;

/// Keys whose places on a ring are compared.
const KEYS: u64 = 64;
/// Workers clockwise of each that are.
const STEPS: usize = 16;

/// Whether rings are compared, which takes longest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rings {
    Compared,
    Left,
}

/// Who serves a model.
#[derive(Default)]
struct Served<'a> {
    registered: Vec<u32>,
    members: Vec<&'a Entry>,
}

/// Compares `fleet`, which shards can see, with what the registry says; its rings only if they have not been before.
pub(crate) fn check(fleet: &Fleet, sources: &Sources<'_>, rings: Rings) {
    let registry = sources.registry;
    let mut served: BTreeMap<&PoolName, Served<'_>> = BTreeMap::new();
    for entry in registry.registered() {
        for name in &entry.pools {
            let served = served.entry(name).or_default();
            served.registered.push(entry.id.index);
            served.members.extend(entry.is_routable().then_some(entry));
        }
    }
    check_workers(fleet, sources);
    assert!(fleet.pools.iter().map(|pool| &pool.name).eq(served.keys().copied()), "the models served");
    for (pool, served) in fleet.pools.iter().zip(served.values()) {
        check_pool(pool, served, sources.models);
        if rings == Rings::Compared {
            check_ring(pool, served);
        }
    }
    let has = |model: &str, role| {
        served
            .iter()
            .any(|(name, served)| *name.model == *model && name.role == role && !served.members.is_empty())
    };
    let is_served = |name: &PoolName| {
        let is_pair = has(&name.model, Role::Prefill) && has(&name.model, Role::Decode);
        is_pair || has(&name.model, Role::Regular)
    };
    let is_serving = served.keys().any(|name| is_served(name));
    let routable = registry.registered().filter(|entry| entry.is_routable()).count();
    let routable = if is_serving { routable } else { 0 };
    check_page(&fleet.readiness, &pages::readiness(routable, registry.registered().count()));
    check_page(&fleet.health_generate, &pages::health_generate(routable));
    let card = |(name, served): (&&PoolName, &Served<'_>)| {
        served.members.first().map(|first| Card::of(&name.model, first, sources.started_unix_s))
    };
    let mut cards: Vec<Card> = served.iter().filter_map(card).collect();
    cards.dedup_by(|a, b| a.id() == b.id());
    check_page(&fleet.models, &pages::models(cards.iter().collect()));
}

fn check_workers(fleet: &Fleet, sources: &Sources<'_>) {
    let slots = sources.registry.slots();
    for index in 0..fleet.workers.index_end().max(slots.len() as u32) {
        let expect = slots.get(index as usize).and_then(Option::as_ref).map(|entry| &entry.published);
        let shown = fleet.workers.get(index);
        assert_eq!(shown.map(Arc::as_ptr), expect.map(Arc::as_ptr), "worker {index} is not as it is");
    }
}

fn check_pool(pool: &Pool, served: &Served<'_>, models: &Models) {
    let model = models.get(&pool.name);
    let members: Vec<u32> = served.members.iter().map(|entry| entry.id.index).collect();
    let workers: Vec<&Worker> = served.members.iter().map(|entry| &*entry.published).collect();
    assert_eq!(*pool.members, *members);
    assert_eq!(*pool.registered, *served.registered);
    assert_eq!((pool.policy, pool.block_seed), (model.policy, model.block_seed));
    let ranges = if matches!(pool.policy, Policy::Bucket(_)) { members.len() } else { 0 };
    assert_eq!(pool.bounds.len(), ranges.saturating_sub(1), "a range of lengths for each member");
    assert!(pool.bounds.is_sorted());
    assert!(Arc::ptr_eq(&pool.rotation, &model.rotation) && Arc::ptr_eq(&pool.stats, &model.stats));
    assert!(Arc::ptr_eq(&pool.board, &model.board) && Arc::ptr_eq(&pool.lengths, &model.lengths));
    assert_eq!(*pool.turns, *turns(&workers));
    assert_eq!(pool.arrivals, pool.board.arrivals(), "all who have arrived are known");
    assert_eq!(pool.board.present() as usize, members.len(), "nobody else is on the board");
    assert!(members.iter().all(|&index| pool.board.cost(index).is_some()), "every member is on the board");
}

fn check_ring(pool: &Pool, served: &Served<'_>) {
    let members: Vec<_> = served.members.iter().map(|entry| ring_member(&entry.published)).collect();
    let ring = pool.policy.ring_layout().map(|layout| Ring::new(layout).changed(&[], &members));
    assert_eq!(pool.ring.as_deref().map(walks), ring.as_ref().map(walks));
}

fn turns(workers: &[&Worker]) -> Vec<u32> {
    let mut classes: BTreeMap<Weight, Vec<u32>> = BTreeMap::new();
    workers.iter().for_each(|worker| classes.entry(worker.weight).or_default().push(worker.id.index));
    if classes.len() > 1 { order(&classes) } else { workers.iter().map(|worker| worker.id.index).collect() }
}

/// How a ring looks from some keys.
fn walks(ring: &Ring) -> (usize, Vec<Vec<u32>>) {
    let walk = |key: u64| ring.clockwise(key.wrapping_mul(u64::MAX / KEYS)).take(STEPS).collect();
    (ring.points(), (0..KEYS).map(walk).collect())
}

fn check_page(shown: &Page, expect: &Page) {
    assert_eq!(
        (shown.status, shown.content_type, &shown.body),
        (expect.status, expect.content_type, &expect.body)
    );
}
