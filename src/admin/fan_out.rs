//! `/flush_cache`, `/get_loads`, `/get_model_info`: calls that workers answer, put together into one answer.

use bytes::Bytes;
use engine::metadata::Metadata;
use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::admin::Answer;
use crate::admin::answer;
use crate::control::event::Failure;
use crate::control::state::State;
use crate::control::stats::Health;
use crate::control::task::Question;

/// What a load that a worker does not tell is shown as.
const LOAD_UNKNOWN: i64 = -1;

/// One of those who are asked.
#[derive(Debug)]
pub(crate) struct Unit {
    /// As it is shown.
    pub(crate) url: Box<str>,
    /// Which of the ranks behind its address.
    pub(crate) rank: Option<u16>,
}

/// What workers said, or why they said nothing.
type Answers = [Result<Bytes, Failure>];

#[derive(Serialize)]
struct Flushed<'a> {
    status: &'static str,
    message: String,
    workers_flushed: usize,
    total_http_workers: usize,
    total_workers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    successful: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Vec<NotFlushed<'a>>>,
}

#[derive(Serialize)]
struct NotFlushed<'a> {
    worker: &'a str,
    error: String,
}

#[derive(Serialize)]
struct Loads<'a> {
    workers: Vec<Load<'a>>,
}

#[derive(Serialize)]
struct Load<'a> {
    worker: &'a str,
    /// Tokens in use, or [`LOAD_UNKNOWN`].
    load: i64,
}

#[derive(Serialize)]
struct ModelInfo<'a> {
    model_path: &'a str,
    tokenizer_path: &'a str,
    is_generation: bool,
}

pub(crate) fn flush_cache(state: &State) -> Answer {
    let mut workers = reachable(state);
    // All ranks behind an address flush together.
    let is_further = |id| state.registry.get(id).is_some_and(|entry| entry.spec.url.is_further_rank());
    workers.retain(|&id| !is_further(id));
    if workers.is_empty() {
        return flushed(&[], &[], state.registry.registered_count()).into();
    }
    Answer::WhenAsked(Question::FlushCache, workers)
}

pub(crate) fn get_loads(state: &State) -> Answer {
    let workers = reachable(state);
    if workers.is_empty() { loads(&[], &[]).into() } else { Answer::WhenAsked(Question::Load, workers) }
}

pub(crate) fn get_model_info(state: &State) -> Answer {
    match state.registry.registered().find(|entry| entry.is_routable()) {
        Some(entry) => Answer::WhenAsked(Question::ModelInfo, vec![entry.id]),
        None => answer::no_workers().into(),
    }
}

/// Workers that were reached before: one that never answered has nothing to tell, and no cache to flush.
fn reachable(state: &State) -> Vec<WorkerId> {
    state
        .registry
        .registered()
        .filter(|entry| entry.health() != Health::Pending)
        .map(|entry| entry.id)
        .collect()
}

pub(crate) fn flushed(units: &[Unit], answers: &Answers, total_workers: usize) -> AdminReply {
    let asked = || units.iter().map(|unit| &*unit.url).zip(answers);
    let successful: Vec<&str> = asked().filter(|(_, answer)| answer.is_ok()).map(|(url, _)| url).collect();
    let failed: Vec<NotFlushed<'_>> = asked()
        .filter_map(|(worker, answer)| Some(NotFlushed { worker, error: answer.as_ref().err()?.to_string() }))
        .collect();
    let workers_flushed = successful.len();
    let is_complete = failed.is_empty();
    let message = match (units.len(), is_complete) {
        (0, _) => "No HTTP workers available for cache flush".to_owned(),
        (_, true) => format!("Successfully flushed cache on all {workers_flushed} HTTP workers"),
        (_, false) => format!("Cache flush: {workers_flushed} succeeded, {} failed", failed.len()),
    };
    let body = Flushed {
        status: if is_complete { "success" } else { "partial_success" },
        message,
        workers_flushed,
        total_http_workers: units.len(),
        total_workers,
        successful: (!is_complete).then_some(successful),
        failed: (!is_complete).then_some(failed),
    };
    answer::json(if is_complete { 200 } else { 206 }, &body)
}

pub(crate) fn loads(units: &[Unit], answers: &Answers) -> AdminReply {
    let load = |unit: &Unit, answer: &Result<Bytes, Failure>| {
        let tokens = engine::load::tokens(answer.as_ref().ok()?, unit.rank)?;
        i64::try_from(tokens).ok()
    };
    let show = |unit, tokens: Option<i64>| Load { worker: unit, load: tokens.unwrap_or(LOAD_UNKNOWN) };
    let asked = units.iter().zip(answers);
    let workers = asked.map(|(unit, answer)| show(&*unit.url, load(unit, answer))).collect();
    answer::json(200, &Loads { workers })
}

/// What the worker said, or what is known of it when it has no such endpoint.
pub(crate) fn model_info(said: Option<&Result<Bytes, Failure>>, metadata: Option<&Metadata>) -> AdminReply {
    if let Some(Ok(body)) = said
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    {
        return answer::raw_json(200, body.clone());
    }
    let Some(metadata) = metadata else { return answer::no_workers() };
    let names = metadata.model_names();
    let model_path = metadata.model_path.as_deref().or(names.first().copied()).unwrap_or("unknown");
    let tokenizer_path = metadata.tokenizer_path.as_deref().unwrap_or(model_path);
    let is_generation = metadata.is_generation.unwrap_or(true);
    answer::json(200, &ModelInfo { model_path, tokenizer_path, is_generation })
}
