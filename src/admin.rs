//! The admin API: turns a request that shards handed over into a change of the fleet and an answer.
//!
//! Paths, fields and texts are SGLang Model Gateway's, of its present and of its first versions, so that scripts
//! written for either keep working. Errors have the one shape of all endpoints.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod decisions;
pub(crate) mod fan_out;
pub(crate) mod legacy;
pub(crate) mod loads;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod server;
pub(crate) mod stack;
pub(crate) mod workers;

use std::time::Duration;

use api::endpoint::Endpoint;
use fleet::admin::AdminCall;
use fleet::admin::AdminReply;
use fleet::id::WorkerId;

use crate::control::state::Order;
use crate::control::state::State;
use crate::control::task::Question;

/// How a call is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Now.
    Now(AdminReply),
    /// When this new worker is healthy or given up.
    WhenHealthy(WorkerId),
    /// When these workers have said something.
    WhenAsked(Question, Vec<WorkerId>),
    /// When the loop has the metrics page.
    Metrics,
}

impl From<AdminReply> for Answer {
    fn from(reply: AdminReply) -> Self {
        Self::Now(reply)
    }
}

/// Carries out one call.
pub(crate) fn handle(state: &mut State, call: AdminCall, now: Duration, orders: &mut Vec<Order>) {
    let AdminCall { method, path, query, body, request_id, reply: to } = call;
    let endpoint =
        if state.config.stack.is_some() { Endpoint::resolve_stack(&path) } else { Endpoint::resolve(&path) };
    // A path may name a worker by a URL that nobody should see.
    tracing::debug!(%method, path = endpoint.template(), %request_id, "admin call");
    let query = query.as_deref().unwrap_or_default();
    let name = path.strip_prefix("/workers/").unwrap_or_default();
    let answer = match (endpoint, &*method) {
        (endpoint, method) if changes_fleet(endpoint, method) && !state.may_change() => {
            answer::handing_over().into()
        }
        (Endpoint::Workers, "GET") => workers::list(state, query).into(),
        (Endpoint::Workers, "POST") => workers::add(state, &body, now).into(),
        (Endpoint::Worker, "GET") => workers::show(state, name, now).into(),
        (Endpoint::Worker, "PUT") => workers::update(state, name, &body, now).into(),
        (Endpoint::Worker, "DELETE") => workers::remove(state, name, now, orders).into(),
        (Endpoint::AddWorker, "POST") => legacy::add(state, query, now),
        (Endpoint::RemoveWorker, "POST") => legacy::remove(state, query, now, orders).into(),
        (Endpoint::ListWorkers, "GET") => legacy::list(state, query).into(),
        (Endpoint::FlushCache, "POST") => fan_out::flush_cache(state),
        (Endpoint::GetLoads, "GET") => fan_out::get_loads(state),
        (Endpoint::Loads, "GET") => loads::list(state, query, now).into(),
        (Endpoint::GetModelInfo, "GET") => fan_out::get_model_info(state),
        (Endpoint::GetServerInfo, "GET") => server::info(state, now).into(),
        (Endpoint::DebugDecisions, "GET") => decisions::list(state, query).into(),
        (Endpoint::Engines, "GET") => stack::engines(state).into(),
        (Endpoint::Sleep, "POST") => stack::ask(state, Question::Sleep(stack::for_engine(query)), query),
        (Endpoint::WakeUp, "POST") => stack::ask(state, Question::WakeUp(stack::for_engine(query)), query),
        (Endpoint::IsSleeping, "GET") => stack::ask(state, Question::IsSleeping, query),
        (Endpoint::Metrics, "GET") => Answer::Metrics,
        _ => answer::not_found(&path).into(),
    };
    match answer {
        Answer::Now(reply) => orders.push(Order::Reply { to, reply }),
        Answer::WhenHealthy(worker) => state.answer_when_healthy(worker, to),
        Answer::WhenAsked(question, workers) => state.ask(question, workers, to, orders),
        Answer::Metrics => orders.push(Order::Metrics { to }),
    }
}

/// Whether such a call changes which workers there are, or what is said of them.
fn changes_fleet(endpoint: Endpoint, method: &str) -> bool {
    let is_about_workers = matches!(
        endpoint,
        Endpoint::Workers | Endpoint::Worker | Endpoint::AddWorker | Endpoint::RemoveWorker
    );
    is_about_workers && method != "GET"
}

#[cfg(test)]
mod tests;
