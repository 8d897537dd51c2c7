//! `/workers`: the fleet as a collection, and one worker of it by UUID or URL-encoded URL.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use serde::Serialize;
use uuid::Uuid;

use crate::admin::answer;
use crate::admin::answer::WorkersError;
use crate::admin::body;
use crate::admin::body::BodyError;
use crate::admin::page::PageQuery;
use crate::admin::query;
use crate::control::job::FailedJob;
use crate::control::publish::unix_s;
use crate::control::state::Order;
use crate::control::state::State;
use crate::control::stats::Health;
use crate::control::url::WorkerUrl;
use crate::control::url::shown;
use crate::control::worker::Entry;
use crate::control::worker::Stage;

const ADD_JOB: &str = "AddWorker";

/// One worker as the API shows it, in SGLang's order of fields.
#[derive(Serialize)]
struct WorkerInfo<'a> {
    id: String,
    url: &'a str,
    model_id: &'a str,
    priority: u32,
    cost: f64,
    worker_type: &'static str,
    is_healthy: bool,
    load: u32,
    connection_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap_port: Option<u16>,
    #[serde(flatten)]
    declared: Option<&'a BTreeMap<&'static str, String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
    disable_health_check: bool,
    /// That it gets no requests for being slow, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected: Option<EjectedInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_status: Option<JobStatus<'a>>,
}

#[derive(Serialize)]
struct EjectedInfo {
    measure: &'static str,
    until: u64,
}

#[derive(Serialize)]
struct JobStatus<'a> {
    job_type: &'static str,
    worker_url: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    timestamp: u64,
}

#[derive(Serialize)]
struct WorkerList<'a> {
    workers: Vec<WorkerInfo<'a>>,
    total: usize,
    stats: WorkerCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<u32>,
}

#[derive(Serialize)]
struct WorkerCounts {
    prefill_count: usize,
    decode_count: usize,
    regular_count: usize,
}

/// What a change is answered with.
#[derive(Serialize)]
struct Accepted<'a> {
    status: &'static str,
    worker_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    message: &'static str,
}

pub(crate) fn list(state: &State, query: &str) -> AdminReply {
    let page = match PageQuery::parse(query) {
        Ok(page) => page.of(&state.registry),
        Err(reply) => return reply,
    };
    let started_unix_s = state.config.started_unix_s;
    let workers = page.entries.into_iter().map(|entry| worker_info(entry, started_unix_s)).collect();
    let total = state.registry.registered_count();
    let [regular_count, prefill_count, decode_count] = state.registry.count_roles();
    let stats = WorkerCounts { prefill_count, decode_count, regular_count };
    answer::json(200, &WorkerList { workers, total, stats, next_cursor: page.next_cursor })
}

pub(crate) fn add(state: &mut State, body: &[u8], now: Duration) -> AdminReply {
    let spec = match body::new_worker(body, &state.config) {
        Ok(spec) => spec,
        Err(error) => return bad_request(&error),
    };
    let url = spec.url.text.clone();
    if let Err(error) = state.may_add(&spec.url) {
        return answer::not_added(error, &url);
    }
    let id = state.register(spec, now);
    let uuid = state.registry.get(id).expect("registered just now").uuid;
    let location = format!("/workers/{uuid}");
    let accepted = Accepted {
        status: "accepted",
        worker_id: uuid.to_string(),
        url: Some(&url),
        location: Some(&location),
        message: "Worker addition queued for background processing",
    };
    let reply = answer::json(202, &accepted);
    AdminReply { location: Some(location), ..reply }
}

pub(crate) fn show(state: &State, name: &str, now: Duration) -> AdminReply {
    let name = match parse_name(name) {
        Ok(name) => name,
        Err(reply) => return reply,
    };
    let started_unix_s = state.config.started_unix_s;
    if let Some(entry) = find(state, &name) {
        return answer::json(200, &worker_info(entry, started_unix_s));
    }
    let failed = state.failed_jobs.find(now, |job| match &name {
        Name::Uuid(uuid) => job.uuid == *uuid,
        Name::Url(url) => job.url == url.text,
    });
    failed.map_or_else(|| not_found(&name), |job| answer::json(200, &failed_info(job, started_unix_s)))
}

pub(crate) fn update(state: &mut State, name: &str, body: &[u8], now: Duration) -> AdminReply {
    let (id, uuid) = match find_registered(state, name) {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    let spec = state.registry.get(id).expect("found just now").spec.clone();
    let spec = match body::changed_worker(body, spec) {
        Ok(spec) => spec,
        Err(error) => return bad_request(&error),
    };
    state.update(id, spec, now);
    accepted(uuid, "Worker update queued for background processing")
}

pub(crate) fn remove(state: &mut State, name: &str, now: Duration, orders: &mut Vec<Order>) -> AdminReply {
    let (id, uuid) = match find_registered(state, name) {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    state.remove(id, now, orders);
    accepted(uuid, "Worker removal queued for background processing")
}

/// How a path names a worker.
enum Name {
    Uuid(Uuid),
    Url(WorkerUrl),
}

fn parse_name(segment: &str) -> Result<Name, AdminReply> {
    let text = query::segment(segment).unwrap_or_default();
    if let Ok(uuid) = Uuid::try_parse(&text) {
        return Ok(Name::Uuid(uuid));
    }
    WorkerUrl::parse_unit(&text).map(Name::Url).map_err(|_| {
        let message =
            format!("Invalid worker id {:?}: it must be a UUID or a URL-encoded worker URL", shown(&text));
        answer::workers_error(WorkersError::BadRequest, &message, Some("id"))
    })
}

fn find<'a>(state: &'a State, name: &Name) -> Option<&'a Entry> {
    match name {
        Name::Uuid(uuid) => state.registry.by_uuid(*uuid),
        Name::Url(url) => state.registry.by_url(url),
    }
}

fn find_registered(state: &State, segment: &str) -> Result<(WorkerId, Uuid), AdminReply> {
    let name = parse_name(segment)?;
    find(state, &name).map(|entry| (entry.id, entry.uuid)).ok_or_else(|| not_found(&name))
}

fn not_found(name: &Name) -> AdminReply {
    let message = match name {
        Name::Uuid(uuid) => format!("Worker {uuid} not found"),
        Name::Url(url) => format!("Worker {} not found", url.text),
    };
    answer::workers_error(WorkersError::NotFound, &message, None)
}

fn bad_request(error: &BodyError) -> AdminReply {
    answer::workers_error(WorkersError::BadRequest, &error.message, error.param)
}

fn accepted(uuid: Uuid, message: &'static str) -> AdminReply {
    let worker_id = uuid.to_string();
    answer::json(202, &Accepted { status: "accepted", worker_id, url: None, location: None, message })
}

fn worker_info(entry: &Entry, started_unix_s: u64) -> WorkerInfo<'_> {
    if entry.health() == Health::Pending {
        let is_queued = entry.stage == Stage::Pending { failures: 0 } && !entry.is_under_way;
        let job_status = JobStatus {
            job_type: ADD_JOB,
            worker_url: &entry.spec.url.text,
            status: if is_queued { "pending" } else { "processing" },
            message: None,
            timestamp: unix_s(started_unix_s, entry.since),
        };
        return unknown_info(entry.uuid, job_status);
    }
    let said = entry.metadata.labels.iter().map(|(name, value)| (*name, value.as_str()));
    let given = entry.spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    WorkerInfo {
        id: entry.uuid.to_string(),
        url: &entry.spec.url.text,
        model_id: entry.model(),
        priority: entry.spec.priority,
        cost: entry.spec.cost,
        worker_type: entry.spec.role.name(),
        is_healthy: entry.is_routable(),
        load: entry.cells.load(),
        connection_mode: "HTTP",
        bootstrap_port: entry.spec.bootstrap_port,
        declared: Some(&entry.spec.declared),
        metadata: said.chain(given).collect(),
        disable_health_check: entry.spec.checks.disabled,
        ejected: entry.pacing.ejected().map(|ejected| EjectedInfo {
            measure: ejected.measure.name(),
            until: unix_s(started_unix_s, ejected.until),
        }),
        job_status: None,
    }
}

fn failed_info(job: &FailedJob, started_unix_s: u64) -> WorkerInfo<'_> {
    let job_status = JobStatus {
        job_type: ADD_JOB,
        worker_url: &job.url,
        status: "failed",
        message: Some(&job.message),
        timestamp: unix_s(started_unix_s, job.at),
    };
    unknown_info(job.uuid, job_status)
}

/// A worker of which nothing is known but what became of its registration.
fn unknown_info(uuid: Uuid, job_status: JobStatus<'_>) -> WorkerInfo<'_> {
    WorkerInfo {
        id: uuid.to_string(),
        url: job_status.worker_url,
        model_id: "unknown",
        priority: 0,
        cost: 1.0,
        worker_type: "unknown",
        is_healthy: false,
        load: 0,
        connection_mode: "unknown",
        bootstrap_port: None,
        declared: None,
        metadata: BTreeMap::new(),
        disable_health_check: false,
        ejected: None,
        job_status: Some(job_status),
    }
}
