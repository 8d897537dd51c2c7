//! `/add_worker`, `/remove_worker`, `/list_workers`: the admin API of SGLang's first router, in its words.

use std::time::Duration;

use fleet::admin::AdminReply;
use fleet::secret::Secret;
use serde::Serialize;

use crate::admin::Answer;
use crate::admin::answer;
use crate::admin::page::PageQuery;
use crate::admin::query;
use crate::control::state::Order;
use crate::control::state::State;
use crate::control::state::members::AddError;
use crate::control::state::start::is_key;
use crate::control::url::UrlError;
use crate::control::url::WorkerUrl;
use crate::control::url::shown;
use crate::control::worker::Checks;
use crate::control::worker::Entry;
use crate::control::worker::WorkerSpec;

const URL_REQUIRED: &str = "Worker URL required. Provide 'url' query parameter";

#[derive(Serialize)]
struct Urls<'a> {
    urls: Vec<&'a str>,
    /// Given with a page that is not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<u32>,
}

/// Adds a worker; the answer waits until it is healthy.
pub(crate) fn add(state: &mut State, query: &str, now: Duration) -> Answer {
    let url = match worker_url(query, WorkerUrl::parse) {
        Ok(url) => url,
        Err(reply) => return reply.into(),
    };
    if let Err(error) = state.config.destinations.check(&url) {
        return unusable(&url.text, error).into();
    }
    let api_key = query::parameter(query, "api_key");
    if api_key.as_deref().is_some_and(|key| !is_key(key)) {
        return refused("api_key must be printable ASCII without spaces".to_owned()).into();
    }
    match state.may_add(&url) {
        Ok(()) => {}
        Err(AddError::Duplicate) => return refused(format!("Worker {} already exists", url.text)).into(),
        Err(error @ (AddError::Full | AddError::ShuttingDown)) => {
            return answer::not_added(error, &url.text).into();
        }
    }
    let api_key = api_key.map(Secret::from);
    let spec = WorkerSpec { api_key, ..WorkerSpec::new(url, Checks::from(&state.config.health)) };
    Answer::WhenHealthy(state.register(spec, now))
}

/// Removes a worker, if there is one with this URL.
pub(crate) fn remove(state: &mut State, query: &str, now: Duration, orders: &mut Vec<Order>) -> AdminReply {
    let url = match worker_url(query, WorkerUrl::parse_unit) {
        Ok(url) => url,
        Err(reply) => return reply,
    };
    if let Some(id) = state.registry.by_url(&url).map(|entry| entry.id) {
        state.remove(id, now, orders);
    }
    answer::text(format!("Successfully removed worker: {}", url.text))
}

pub(crate) fn list(state: &State, query: &str) -> AdminReply {
    let page = match PageQuery::parse(query) {
        Ok(page) => page.of(&state.registry),
        Err(reply) => return reply,
    };
    // Its first versions knew a worker no more once it had failed.
    let is_known = |entry: &&&Entry| !entry.is_lost();
    let urls = page.entries.iter().filter(is_known).map(|entry| &*entry.spec.url.text).collect();
    let total = page.next_cursor.map(|_| state.registry.registered_count());
    answer::json(200, &Urls { urls, total, next_cursor: page.next_cursor })
}

/// The answer to who waited for a worker that is healthy now.
pub(crate) fn added(url: &str) -> AdminReply {
    answer::text(format!("Successfully added worker: {url}"))
}

/// The answer to who waited for a worker that somebody removed.
pub(crate) fn removed_while_waiting(url: &str) -> AdminReply {
    refused(format!("Worker {url} was removed before it became healthy"))
}

pub(crate) fn refused(text: String) -> AdminReply {
    answer::text_error(text)
}

fn unusable(url: &str, error: UrlError) -> AdminReply {
    refused(format!("Worker URL {:?} cannot be used: {error}", shown(url)))
}

fn worker_url(query: &str, parse: fn(&str) -> Result<WorkerUrl, UrlError>) -> Result<WorkerUrl, AdminReply> {
    let url = query::parameter(query, "url").ok_or_else(|| refused(URL_REQUIRED.to_owned()))?;
    parse(&url).map_err(|error| unusable(&url, error))
}
