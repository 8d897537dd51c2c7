//! Makes the published fleet from the registry: worker table, pools and the pages that shards answer by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::error::ErrorCode;
use bytes::Bytes;
use fleet::ring::Layout;
use fleet::ring::Ring;
use fleet::ring::RingMember;
use fleet::rules::Policy;
use fleet::snapshot::Fleet;
use fleet::snapshot::Page;
use fleet::snapshot::Pool;
use fleet::snapshot::Weight;
use fleet::snapshot::Worker;
use fleet::snapshot::WorkerTable;
use fleet::sticky::StickyTable;
use serde::Serialize;

use crate::control::models::Model;
use crate::control::models::Models;
use crate::control::registry::Registry;
use crate::control::stats::FleetView;
use crate::control::stats::WorkerView;
use crate::control::worker::Entry;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a fleet is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) models: &'a Models,
    /// Whom keys belong to.
    pub(crate) sticky: &'a Arc<StickyTable>,
    /// Time of the start in seconds since 1970.
    pub(crate) started_unix_s: u64,
}

/// The fleet of this moment.
pub(crate) fn fleet(sources: &Sources<'_>) -> Fleet {
    let Sources { registry, models, .. } = *sources;
    let mut served: BTreeMap<&str, Served<'_>> = BTreeMap::new();
    let mut routable = 0;
    for entry in registry.registered() {
        for model in &entry.models {
            let served = served.entry(model).or_default();
            // Names beyond the bound share one, which a worker may then have twice.
            if served.registered.last() == Some(&entry.id.index) {
                continue;
            }
            served.registered.push(entry.id.index);
            if entry.is_routable() {
                served.members.push(&entry.published);
            }
        }
        if entry.is_routable() {
            routable += 1;
        }
    }
    let registered = registry.registered().count();
    let mut workers = WorkerTable::default();
    for entry in registry.slots().iter().flatten() {
        workers.set(entry.id.index, Some(Arc::clone(&entry.published)));
    }
    Fleet {
        workers,
        sticky: Arc::clone(sources.sticky),
        readiness: readiness(routable, registered),
        health_generate: health_generate(routable),
        models: models_page(sources),
        pools: served.into_iter().map(|(name, served)| pool(name, served, models.get(name))).collect(),
    }
}

/// The fleet in the words of the metrics page.
pub(crate) fn view(sources: &Sources<'_>) -> FleetView {
    let worker = |entry: &Entry| WorkerView {
        url: entry.spec.url.text.clone(),
        model: entry.model().into(),
        health: entry.health(),
        cells: Arc::clone(&entry.cells),
    };
    FleetView {
        workers: sources.registry.slots().iter().flatten().map(worker).collect(),
        models: sources.models.stats().map(|(name, stats)| (name.into(), Arc::clone(stats))).collect(),
    }
}

/// Who serves a model.
#[derive(Default)]
struct Served<'a> {
    registered: Vec<u32>,
    members: Vec<&'a Arc<Worker>>,
}

fn pool(name: &str, served: Served<'_>, model: &Model) -> Arc<Pool> {
    let members: Arc<[u32]> = served.members.iter().map(|member| member.id.index).collect();
    let weights: Vec<Weight> = served.members.iter().map(|member| member.weight).collect();
    let ring = ring_layout(&model.policy).map(|layout| {
        let members: Vec<RingMember<'_>> = served.members.iter().map(|member| ring_member(member)).collect();
        Arc::new(Ring::new(layout).changed(&[], &members))
    });
    Arc::new(Pool {
        model: name.into(),
        policy: model.policy,
        block_seed: model.block_seed,
        turns: turns(&members, &weights),
        members,
        registered: served.registered.into(),
        ring,
        bounds: Arc::clone(&model.bounds),
        rotation: Arc::clone(&model.rotation),
        board: Arc::clone(&model.board),
        lengths: Arc::clone(&model.lengths),
        stats: Arc::clone(&model.stats),
    })
}

/// The ring that a policy reads, if any.
pub(crate) fn ring_layout(policy: &Policy) -> Option<Layout> {
    match policy {
        Policy::ConsistentHashing | Policy::PrefixHash(_) => Some(Layout::Sglang),
        Policy::Session => Some(Layout::Uhashring),
        Policy::Random
        | Policy::RoundRobin
        | Policy::PowerOfTwo
        | Policy::CacheAware(_)
        | Policy::LeastLoad
        | Policy::Manual(_)
        | Policy::Bucket(_)
        | Policy::PrefixAware(_) => None,
    }
}

pub(crate) fn ring_member(worker: &Worker) -> RingMember<'_> {
    RingMember { index: worker.id.index, url: &worker.url, weight: worker.weight.ratio() }
}

/// An order of turns in which each member has as many as its weight says, spread evenly: the k-th turn of a member of
/// weight w stands at (k + 1/2) / w. The members themselves when all weigh the same.
pub(crate) fn turns(members: &Arc<[u32]>, weights: &[Weight]) -> Arc<[u32]> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Arc::clone(members);
    }
    let least = weights.iter().map(|weight| weight.ratio()).fold(f64::INFINITY, f64::min);
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (&member, weight) in members.iter().zip(weights) {
        let count = (weight.ratio() / least).round().max(1.0);
        turns.extend((0..count as u32).map(|turn| ((f64::from(turn) + 0.5) / count, member)));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, member)| member).collect()
}

fn readiness(healthy: usize, registered: usize) -> Page {
    if healthy == 0 {
        let body = Bytes::from_static(br#"{"status":"not ready","reason":"insufficient healthy workers"}"#);
        return Page { status: 503, content_type: JSON, body };
    }
    let body = format!(r#"{{"status":"ready","healthy_workers":{healthy},"total_workers":{registered}}}"#);
    Page { status: 200, content_type: JSON, body: body.into() }
}

fn health_generate(healthy: usize) -> Page {
    let (status, text) = if healthy == 0 {
        (503, "No routers with healthy workers available")
    } else {
        (200, "At least one router has healthy workers")
    };
    Page { status, content_type: TEXT, body: Bytes::from_static(text.as_bytes()) }
}

/// OpenAI's list, with the fields engines add.
#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelCard<'a>>,
}

#[derive(Serialize)]
struct ModelCard<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    root: &'a str,
    parent: Option<&'a str>,
    max_model_len: Option<u64>,
}

fn models_page(sources: &Sources<'_>) -> Page {
    let mut cards: BTreeMap<&str, ModelCard<'_>> = BTreeMap::new();
    for entry in sources.registry.registered().filter(|entry| entry.is_routable()) {
        for name in &entry.models {
            cards.entry(name).or_insert_with(|| model_card(name, entry, sources.started_unix_s));
        }
    }
    if cards.is_empty() {
        let mut body = Vec::new();
        ApiError::new(ErrorCode::NoWorkers, "No models available").write_json(&mut body);
        return Page { status: 503, content_type: JSON, body: body.into() };
    }
    let list = ModelList { object: "list", data: cards.into_values().collect() };
    let body = serde_json::to_vec(&list).expect("a list of texts and numbers is JSON");
    Page { status: 200, content_type: JSON, body: body.into() }
}

/// A model as its first worker tells of it.
fn model_card<'a>(name: &'a str, entry: &'a Entry, started_unix_s: u64) -> ModelCard<'a> {
    let said = entry.metadata.models.iter().find(|model| model.id == name);
    // A worker that was registered under a name of its own still knows how long its context is.
    let said_or_first = said.or(entry.metadata.models.first());
    ModelCard {
        id: name,
        object: "model",
        created: unix_s(started_unix_s, entry.since),
        owned_by: said.and_then(|model| model.owned_by.as_deref()).unwrap_or("local"),
        root: said
            .and_then(|model| model.root.as_deref())
            .or(entry.metadata.model_path.as_deref())
            .unwrap_or(name),
        parent: said.and_then(|model| model.parent.as_deref()),
        max_model_len: said_or_first.and_then(|model| model.max_model_len),
    }
}

/// A moment of this process in seconds since 1970.
pub(crate) fn unix_s(started_unix_s: u64, now: Duration) -> u64 {
    started_unix_s + now.as_secs()
}
