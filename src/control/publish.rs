//! Makes the published fleet from the registry: worker table, pools and the pages that shards answer by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::error::ErrorCode;
use bytes::Bytes;
use fleet::snapshot::Fleet;
use fleet::snapshot::Page;
use fleet::snapshot::Pool;
use fleet::snapshot::Worker;
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
    /// Time of the start in seconds since 1970.
    pub(crate) started_unix_s: u64,
}

/// The fleet of this moment.
pub(crate) fn fleet(sources: &Sources<'_>) -> Fleet {
    let Sources { registry, models, .. } = *sources;
    let mut members: BTreeMap<&str, Vec<Arc<Worker>>> = BTreeMap::new();
    let mut routable = 0;
    for entry in registry.registered() {
        for model in &entry.models {
            let members = members.entry(model).or_default();
            // Names beyond the bound share one, which a worker may then have twice.
            if entry.is_routable() && members.last().is_none_or(|last| last.id != entry.id) {
                members.push(Arc::clone(&entry.published));
            }
        }
        if entry.is_routable() {
            routable += 1;
        }
    }
    let registered = registry.registered_count();
    let worker = |slot: &Option<Entry>| slot.as_ref().map(|entry| Arc::clone(&entry.published));
    Fleet {
        workers: registry.slots().iter().map(worker).collect(),
        readiness: readiness(routable, registered),
        health_generate: health_generate(routable),
        models: models_page(sources),
        pools: members.into_iter().map(|(name, members)| pool(name, members, models.get(name))).collect(),
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

fn pool(name: &str, members: Vec<Arc<Worker>>, model: &Model) -> Arc<Pool> {
    debug_assert!(members.is_sorted_by_key(|member| member.id.index), "members are ordered by index");
    Arc::new(Pool {
        model: name.into(),
        block_seed: model.block_seed,
        members: members.into(),
        rotation: Arc::clone(&model.rotation),
        stats: Arc::clone(&model.stats),
    })
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
