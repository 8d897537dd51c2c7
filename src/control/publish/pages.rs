//! The pages that shards answer by themselves: readiness and the list of models.

use api::error::ApiError;
use api::error::ErrorCode;
use bytes::Bytes;
use fleet::snapshot::Page;
use serde::Serialize;

use crate::control::publish::unix_s;
use crate::control::worker::Entry;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Every page as it was last made.
#[derive(Debug)]
pub(super) struct Pages {
    readiness: Page,
    /// Whether the process is about to end.
    pub(super) is_draining: bool,
    pub(super) health_generate: Page,
    pub(super) models: Page,
    /// Whether models are shown as vLLM's production-stack router shows them.
    is_stack: bool,
    /// Routable and registered workers that the first two tell of.
    counts: (usize, usize),
}

/// A model in OpenAI's list, with the fields engines add, as its first member tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Card {
    id: Box<str>,
    object: &'static str,
    created: u64,
    owned_by: Box<str>,
    root: Box<str>,
    parent: Option<Box<str>>,
    max_model_len: Option<u64>,
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<&'a Card>,
}

// === impl Pages ===

impl Pages {
    /// The pages of an empty fleet.
    pub(super) fn new(is_stack: bool) -> Self {
        Self {
            readiness: readiness(0, 0),
            is_draining: false,
            health_generate: health_generate(0),
            models: if is_stack { stack_models(&[]) } else { models(Vec::new()) },
            is_stack,
            counts: (0, 0),
        }
    }

    pub(super) fn readiness(&self) -> Page {
        if !self.is_draining {
            return self.readiness.clone();
        }
        let body = Bytes::from_static(br#"{"status":"not ready","reason":"draining"}"#);
        Page { status: 503, content_type: JSON, body }
    }

    pub(super) fn set_counts(&mut self, routable: usize, registered: usize) {
        if self.counts != (routable, registered) {
            self.counts = (routable, registered);
            self.readiness = readiness(routable, registered);
            self.health_generate = health_generate(routable);
        }
    }

    pub(super) fn set_models<'a>(&mut self, cards: impl Iterator<Item = &'a Card>) {
        let cards: Vec<&Card> = cards.collect();
        self.models = if self.is_stack { stack_models(&cards) } else { models(cards) };
    }
}

// === impl Card ===

impl Card {
    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn of(name: &str, entry: &Entry, started_unix_s: u64) -> Self {
        let said = entry.metadata.models.iter().find(|model| model.id == name);
        // A worker that was registered under a name of its own still knows how long its context is.
        let said_or_first = said.or(entry.metadata.models.first());
        Self {
            id: name.into(),
            object: "model",
            created: unix_s(started_unix_s, entry.since),
            owned_by: said.and_then(|model| model.owned_by.as_deref()).unwrap_or("local").into(),
            root: said
                .and_then(|model| model.root.as_deref())
                .or(entry.metadata.model_path.as_deref())
                .unwrap_or(name)
                .into(),
            parent: said.and_then(|model| model.parent.as_deref()).map(Into::into),
            max_model_len: said_or_first.and_then(|model| model.max_model_len),
        }
    }
}

/// The list as vLLM's production-stack router gives it; it may be empty.
fn stack_models(cards: &[&Card]) -> Page {
    let card = |card: &&Card| {
        serde_json::json!({
            "id": card.id,
            "object": "model",
            "created": card.created,
            "owned_by": "vllm",
            "root": null,
            "parent": null,
        })
    };
    let data: Vec<_> = cards.iter().map(card).collect();
    let body = serde_json::json!({ "object": "list", "data": data }).to_string();
    Page { status: 200, content_type: JSON, body: body.into() }
}

pub(super) fn readiness(healthy: usize, registered: usize) -> Page {
    if healthy == 0 {
        let body = Bytes::from_static(br#"{"status":"not ready","reason":"insufficient healthy workers"}"#);
        return Page { status: 503, content_type: JSON, body };
    }
    let body = format!(r#"{{"status":"ready","healthy_workers":{healthy},"total_workers":{registered}}}"#);
    Page { status: 200, content_type: JSON, body: body.into() }
}

pub(super) fn health_generate(healthy: usize) -> Page {
    let (status, text) = if healthy == 0 {
        (503, "No routers with healthy workers available")
    } else {
        (200, "At least one router has healthy workers")
    };
    Page { status, content_type: TEXT, body: Bytes::from_static(text.as_bytes()) }
}

pub(super) fn models(cards: Vec<&Card>) -> Page {
    if cards.is_empty() {
        let mut body = Vec::new();
        ApiError::new(ErrorCode::NoWorkers, "No models available").write_json(&mut body);
        return Page { status: 503, content_type: JSON, body: body.into() };
    }
    let list = ModelList { object: "list", data: cards };
    let body = serde_json::to_vec(&list).expect("a list of texts and numbers is JSON");
    Page { status: 200, content_type: JSON, body: body.into() }
}
