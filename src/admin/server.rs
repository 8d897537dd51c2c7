//! `/get_server_info`: what the gateway is, and what its workers are.

use std::time::Duration;

use fleet::admin::AdminReply;
use serde::Serialize;

use crate::admin::answer;
use crate::admin::page::PageQuery;
use crate::control::state::State;
use crate::control::worker::Entry;

#[derive(Serialize)]
struct ServerInfo<'a> {
    router_manager: bool,
    routers_count: usize,
    workers_count: usize,
    version: &'a str,
    /// In the word of SGLang's engines: a gateway before this one speaks HTTP/2 to it.
    enable_http2: bool,
    policy: &'a str,
    shards: usize,
    uptime_secs: u64,
    /// Left out where the fleet is not everybody's to see: this page is.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WorkerSummary<'a>>>,
}

#[derive(Serialize)]
struct WorkerSummary<'a> {
    url: &'a str,
    model_id: &'a str,
    is_healthy: bool,
    engine: &'static str,
    version: Option<&'a str>,
}

pub(crate) fn info(state: &State, now: Duration) -> AdminReply {
    // As many as a page has; the rest stand in `/workers`.
    let summaries = || PageQuery::FIRST.of(&state.registry).entries.into_iter().map(summary).collect();
    let workers = (!state.config.hides_workers).then(summaries);
    answer::json(
        200,
        &ServerInfo {
            router_manager: true,
            routers_count: 1,
            workers_count: state.registry.registered_count(),
            version: state.config.version,
            enable_http2: true,
            policy: state.config.rules.default.name(),
            shards: state.config.shards,
            uptime_secs: now.as_secs(),
            workers,
        },
    )
}

fn summary(entry: &Entry) -> WorkerSummary<'_> {
    WorkerSummary {
        url: &entry.spec.url.text,
        model_id: entry.model(),
        is_healthy: entry.is_routable(),
        engine: entry.metadata.dialect.name(),
        version: entry.metadata.version.as_deref(),
    }
}
