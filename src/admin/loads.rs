//! `/loads`: what engines said last about what they are busy with, from memory.

use std::time::Duration;

use fleet::admin::AdminReply;
use serde::Serialize;

use crate::admin::answer;
use crate::admin::page::PageQuery;
use crate::control::state::State;
use crate::control::worker::Entry;

#[derive(Serialize)]
struct Loads<'a> {
    workers: Vec<Load<'a>>,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<u32>,
}

/// What one engine is busy with. Null is unknown, which is not zero.
#[derive(Serialize)]
struct Load<'a> {
    worker: &'a str,
    running: Option<u32>,
    waiting: Option<u32>,
    tokens: Option<u32>,
    kv_used: Option<f64>,
    age_secs: Option<u64>,
}

pub(crate) fn list(state: &State, query: &str, now: Duration) -> AdminReply {
    let page = match PageQuery::parse(query) {
        Ok(page) => page.of(&state.registry),
        Err(reply) => return reply,
    };
    let workers = page.entries.into_iter().map(|entry| load(entry, now)).collect();
    let total = state.registry.registered_count();
    answer::json(200, &Loads { workers, total, next_cursor: page.next_cursor })
}

fn load(entry: &Entry, now: Duration) -> Load<'_> {
    let load = entry.cells.engine_load();
    Load {
        worker: &entry.spec.url.text,
        running: load.and_then(|load| load.running),
        waiting: load.and_then(|load| load.waiting),
        tokens: load.and_then(|load| load.tokens),
        kv_used: load.and_then(|load| load.kv_used_permille).map(|used| f64::from(used) / 1000.0),
        age_secs: load.map(|load| now.as_secs().saturating_sub(u64::from(load.at_s))),
    }
}
