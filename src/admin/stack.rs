//! `/engines`, `/sleep`, `/wake_up`, `/is_sleeping`: the engines of vLLM's production-stack router, and their sleep.

use bytes::Bytes;
use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::admin::Answer;
use crate::admin::answer;
use crate::admin::query;
use crate::control::event::Failure;
use crate::control::publish::unix_s;
use crate::control::state::State;
use crate::control::stats::Health;
use crate::control::task::Question;
use crate::control::worker::Entry;

#[derive(Serialize)]
struct Engine<'a> {
    engine_id: String,
    serving_models: Vec<&'a str>,
    created: u64,
}

/// Engines that serve, or would if they did not sleep.
pub(crate) fn engines(state: &State) -> AdminReply {
    let is_there = |entry: &&Entry| entry.health() == Health::Ready;
    let there = state.registry.registered().filter(is_there);
    let engines: Vec<Engine<'_>> = there
        .map(|entry| Engine {
            engine_id: entry.uuid.to_string(),
            serving_models: entry.pools.iter().map(|pool| &*pool.model).collect(),
            created: unix_s(state.config.started_unix_s, entry.since),
        })
        .collect();
    answer::json(200, &engines)
}

/// A question to the engine that the query names.
pub(crate) fn ask(state: &State, question: Question, query: &str) -> Answer {
    let refused = |message: String| answer::json(400, &json!({ "error": message })).into();
    let Some(id) = query::parameter(query, "id") else {
        return refused("Invalid request: missing target Engine Id.".to_owned());
    };
    let engine = uuid::Uuid::try_parse(&id).ok().and_then(|uuid| state.registry.by_uuid(uuid));
    match engine {
        Some(entry) => Answer::WhenAsked(question, vec![entry.id]),
        None => refused(format!("Engine with Id {id} not found.")),
    }
}

/// What of a query is meant for the engine: all but its id.
pub(crate) fn for_engine(query: &str) -> Box<str> {
    let pairs: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("id=")).collect();
    pairs.join("&").into()
}

/// Takes in what an engine said of its sleep, and passes it on.
pub(crate) fn answered(
    state: &mut State,
    question: Question,
    worker: Option<WorkerId>,
    said: Option<&Result<Bytes, Failure>>,
) -> AdminReply {
    let body = match said {
        Some(Ok(body)) => body,
        Some(Err(failure)) => return not_done(&failure.to_string()),
        None => return not_done("nobody was asked"),
    };
    let value = serde_json::from_slice::<Value>(body).ok();
    let is_asleep = match question {
        Question::Sleep(_) => Some(true),
        Question::WakeUp(_) => Some(false),
        _ => value.as_ref().and_then(|value| value.get("is_sleeping")?.as_bool()),
    };
    if let (Some(worker), Some(is_asleep)) = (worker, is_asleep) {
        state.set_asleep(worker, is_asleep);
    }
    match value {
        Some(_) => answer::raw_json(200, body.clone()),
        None => answer::json(200, &json!({ "status": "success" })),
    }
}

fn not_done(why: &str) -> AdminReply {
    answer::json(502, &json!({ "error": format!("The engine did not do it: {why}.") }))
}
