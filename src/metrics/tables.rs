//! Which families there are, and which cells each is made from.

use api::endpoint::Endpoint;
use api::endpoint::METHODS;
use api::error::ErrorCode;
use fleet::cell::Counter;
use fleet::stats::ModelShardStats;
use fleet::stats::ModelStats;
use fleet::stats::ShardStats;
use fleet::stats::UpstreamFailure;
use prometheus::proto::MetricFamily;

use crate::control::pace::Measure;
use crate::metrics::Sources;
use crate::metrics::family::Family;

const ROUTER: [(&str, &str); 2] = [("router_type", "http"), ("backend_type", "regular")];
const WORKER: [(&str, &str); 2] = [("worker_type", "regular"), ("connection_mode", "http")];

impl Sources {
    pub(super) fn sum(&self, of: impl Fn(&ShardStats) -> &Counter) -> f64 {
        self.shards.iter().map(|shard| of(shard).get()).sum::<u64>() as f64
    }
}

/// Layer 1: what clients see.
pub(crate) fn http(sources: &Sources) -> Vec<MetricFamily> {
    let mut requests = Family::counter("smg_http_requests_total", "Requests by method and route.");
    let mut durations =
        Family::histogram("smg_http_request_duration_seconds", "Head of the request to end of the response.");
    for &endpoint in Endpoint::ALL {
        for (at, method) in METHODS.iter().enumerate() {
            let row = endpoint.index() * METHODS.len() + at;
            let labels = [("method", *method), ("path", endpoint.template())];
            let count = sources.sum(|shard| &shard.requests_total[row]);
            if count > 0.0 {
                requests.add(&labels, count);
            }
            durations.add_histogram(&labels, sources.shards.iter().map(|shard| &shard.request_duration[row]));
        }
    }
    vec![
        requests.build(),
        durations.build(),
        responses(sources),
        total("smg_http_connections_active", "Client connections open.", Kind::Gauge, sources, |shard| {
            &shard.connections_active
        }),
        total("smg_http_requests_active", "Requests in flight.", Kind::Gauge, sources, |shard| {
            &shard.requests_active
        }),
        total(
            "smg_http_client_aborts_total",
            "Clients that left before their answer was complete.",
            Kind::Counter,
            sources,
            |shard| &shard.client_aborts_total,
        ),
        total(
            "smg_http_broken_responses_total",
            "Responses that a worker broke off after their first byte.",
            Kind::Counter,
            sources,
            |shard| &shard.broken_responses_total,
        ),
        total("smg_http_received_bytes_total", "Bytes from clients.", Kind::Counter, sources, |shard| {
            &shard.received_bytes_total
        }),
        total("smg_http_sent_bytes_total", "Bytes to clients.", Kind::Counter, sources, |shard| {
            &shard.sent_bytes_total
        }),
    ]
}

/// How often settings were read again.
pub(crate) fn reloads(sources: &Sources) -> MetricFamily {
    let mut family = Family::counter("ringway_reloads_total", "Settings read again (SIGHUP), by result.");
    family.add(&[("result", "done")], sources.reloads.done.get() as f64);
    family.add(&[("result", "refused")], sources.reloads.refused.get() as f64);
    family.build()
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

fn total(
    name: &str,
    help: &str,
    kind: Kind,
    sources: &Sources,
    of: impl Fn(&ShardStats) -> &Counter,
) -> MetricFamily {
    let family = match kind {
        Kind::Counter => Family::counter(name, help),
        Kind::Gauge => Family::gauge(name, help),
    };
    family.with(&[], sources.sum(of)).build()
}

/// Responses by status; those the gateway made itself also by error code.
fn responses(sources: &Sources) -> MetricFamily {
    let mut family = Family::counter("smg_http_responses_total", "Responses by status and own error code.");
    let statuses = sources.shards.first().map_or(0, |shard| shard.responses_total.len());
    for status in 0..statuses {
        let mut relayed = sources.sum(|shard| &shard.responses_total[status]);
        if relayed == 0.0 {
            continue;
        }
        let status_text = status.to_string();
        for code in ErrorCode::ALL.iter().filter(|code| usize::from(code.status()) == status) {
            let own = sources.sum(|shard| &shard.errors_total[code.index()]);
            relayed -= own;
            if own > 0.0 {
                family.add(&[("status_code", &status_text), ("error_code", code.code())], own);
            }
        }
        family.add(&[("status_code", &status_text), ("error_code", "")], relayed.max(0.0));
    }
    family.build()
}

/// Layer 2: what routing does, by model.
pub(crate) fn router(sources: &Sources) -> Vec<MetricFamily> {
    let models = sources.control.models.load();
    let mut requests = Family::counter("smg_router_requests_total", "Routed requests.");
    let mut durations = Family::histogram("smg_router_request_duration_seconds", "Routed requests, whole.");
    let mut ttft = Family::histogram(
        "smg_router_ttft_seconds",
        "Head of the request to the first byte of the response body, as relayed.",
    );
    let mut gaps =
        Family::histogram("smg_router_tpot_seconds", "Gap between two events of one stream, as relayed.");
    let mut selections =
        Family::counter("smg_worker_selection_total", "Workers chosen, by model and policy.");
    for shown in models.iter() {
        let (model, stats) = (&*shown.name, &*shown.stats);
        routed(stats, model, &mut requests);
        for &endpoint in Endpoint::ALL {
            let at = endpoint.index();
            let mode = ("connection_mode", "http");
            let labels = [ROUTER[0], ROUTER[1], mode, ("model", model), ("endpoint", endpoint.label())];
            durations.add_histogram(&labels, parts(stats, |part| &part.duration[at]));
            let labels = [ROUTER[0], ROUTER[1], ("model", model), ("endpoint", endpoint.label())];
            ttft.add_histogram(&labels, parts(stats, |part| &part.ttft[at]));
            gaps.add_histogram(&labels, parts(stats, |part| &part.inter_token[at]));
        }
        let chosen = stats.shards().iter().map(|part| part.selections_total.get()).sum::<u64>();
        if chosen > 0 {
            let labels = [WORKER[0], WORKER[1], ("model", model), ("policy", shown.policy)];
            selections.add(&labels, chosen as f64);
        }
    }
    let mut upstream =
        Family::counter("smg_router_upstream_responses_total", "Answers of workers by status.");
    let statuses = sources.shards.first().map_or(0, |shard| shard.upstream_responses_total.len());
    for status in 0..statuses {
        let count = sources.sum(|shard| &shard.upstream_responses_total[status]);
        if count > 0.0 {
            upstream.add(&[ROUTER[0], ("status_code", &status.to_string()), ("error_code", "")], count);
        }
    }
    vec![
        requests.build(),
        errors(sources),
        durations.build(),
        ttft.build(),
        gaps.build(),
        selections.build(),
        upstream.build(),
    ]
}

fn parts<'a>(
    stats: &'a ModelStats,
    of: impl Fn(&'a ModelShardStats) -> &'a fleet::cell::Histogram,
) -> impl Iterator<Item = &'a fleet::cell::Histogram> {
    stats.shards().iter().map(of)
}

fn routed(stats: &ModelStats, model: &str, family: &mut Family) {
    for &endpoint in Endpoint::ALL {
        for (is_stream, streaming) in ["false", "true"].into_iter().enumerate() {
            let count = stats
                .shards()
                .iter()
                .map(|part| part.requests_total[endpoint.index()][is_stream].get())
                .sum::<u64>();
            if count > 0 {
                let labels = [
                    ROUTER[0],
                    ROUTER[1],
                    ("connection_mode", "http"),
                    ("model", model),
                    ("endpoint", endpoint.label()),
                    ("streaming", streaming),
                ];
                family.add(&labels, count as f64);
            }
        }
    }
}

/// Requests that routing could not serve, in the SGLang gateway's kinds.
fn errors(sources: &Sources) -> MetricFamily {
    let kind = |code: ErrorCode| match code {
        ErrorCode::NoWorkers | ErrorCode::ShuttingDown | ErrorCode::Preempted => "no_workers",
        ErrorCode::UpstreamTimeout => "timeout",
        ErrorCode::UpstreamConnect
        | ErrorCode::UpstreamClosed
        | ErrorCode::UpstreamProtocol
        | ErrorCode::UpstreamBody => "backend_error",
        ErrorCode::AdminUnavailable => "internal_error",
        _ => "validation_error",
    };
    let mut counts: std::collections::BTreeMap<&str, f64> = std::collections::BTreeMap::new();
    // Who was not admitted was not routed; other counters tell of them.
    let is_routed = |code: &&ErrorCode| {
        !matches!(code, ErrorCode::QueueFull | ErrorCode::QueueTimeout | ErrorCode::TenantRateLimited)
    };
    for &code in ErrorCode::ALL.iter().filter(is_routed) {
        *counts.entry(kind(code)).or_default() += sources.sum(|shard| &shard.errors_total[code.index()]);
    }
    let mut family =
        Family::counter("smg_router_request_errors_total", "Requests answered with an own error.");
    for (kind, count) in counts {
        family.add(&[ROUTER[0], ROUTER[1], ("error_type", kind)], count);
    }
    family.build()
}

/// Layer 3: workers.
pub(crate) fn workers(sources: &Sources) -> Vec<MetricFamily> {
    let fleet = sources.fleet();
    let mut is_member = vec![false; fleet.workers.index_end() as usize];
    let members = fleet.pools.iter().flat_map(|pool| pool.members.iter());
    members.for_each(|&index| is_member[index as usize] = true);
    let mut active = Family::gauge("smg_worker_requests_active", "Requests in flight at a worker.");
    let mut health = Family::gauge("smg_worker_health", "1 when the worker gets requests.");
    let mut failures =
        Family::gauge("smg_worker_failures_in_a_row", "Transport failures since the last success.");
    for worker in fleet.workers.iter() {
        let labels = [("worker", &*worker.url)];
        active.add(&labels, f64::from(worker.cells.load()));
        health.add(&labels, f64::from(u8::from(is_member[worker.id.index as usize])));
        failures.add(&labels, f64::from(worker.cells.failures_in_a_row()));
    }
    let mut pool_size = Family::gauge("smg_worker_pool_size", "Workers that get requests, by model.");
    for pool in &fleet.pools {
        let labels = [WORKER[0], WORKER[1], ("model", &*pool.name.model)];
        pool_size.add(&labels, pool.members.len() as f64);
    }
    let control = &sources.control;
    let checks = Family::counter("smg_worker_health_checks_total", "Health checks by result.")
        .with(&[WORKER[0], ("result", "success")], control.health_checks_passed_total.get() as f64)
        .with(&[WORKER[0], ("result", "error")], control.health_checks_failed_total.get() as f64);
    let mut errors = Family::counter("smg_worker_errors_total", "Failed exchanges with workers, by phase.");
    for failure in UpstreamFailure::ALL {
        let count = sources.sum(|shard| &shard.upstream_failures_total[failure as usize]);
        if count > 0.0 {
            errors.add(&[WORKER[0], WORKER[1], ("error_type", failure.name())], count);
        }
    }
    let polls = Family::counter("smg_worker_polls_total", "Polls of engines' loads by result.")
        .with(&[WORKER[0], ("result", "success")], control.polls_passed_total.get() as f64)
        .with(&[WORKER[0], ("result", "error")], control.polls_failed_total.get() as f64);
    let restarts = Family::counter("smg_worker_restarts_total", "Engines found to have restarted.")
        .with(&[WORKER[0]], control.worker_restarts_total.get() as f64);
    let removed = Family::counter("smg_worker_removals_total", "Workers removed, by reason.")
        .with(&[("reason", "failing")], control.workers_removed_failing_total.get() as f64)
        .with(
            &[("reason", "requested")],
            control.workers_removed_total.get().saturating_sub(control.workers_removed_failing_total.get())
                as f64,
        );
    let mut ejections =
        Family::counter("smg_worker_ejections_total", "Workers ejected for being slow, by measure.");
    for measure in Measure::ALL {
        let count = control.ejections_total[measure as usize].get() as f64;
        ejections.add(&[WORKER[0], ("measure", measure.name())], count);
    }
    let ejected = Family::gauge("smg_workers_ejected", "Workers that get no requests for being slow.")
        .with(&[WORKER[0]], control.workers_ejected.get() as f64);
    vec![
        active.build(),
        health.build(),
        failures.build(),
        pool_size.build(),
        ejections.build(),
        ejected.build(),
        checks.build(),
        errors.build(),
        removed.build(),
        polls.build(),
        restarts.build(),
    ]
}

/// What engines say they are busy with. An engine that does not tell is left out.
pub(crate) fn engines(sources: &Sources) -> Vec<MetricFamily> {
    let fleet = sources.fleet();
    let mut running = Family::gauge("smg_engine_running_requests", "Requests that an engine computes.");
    let mut waiting = Family::gauge("smg_engine_waiting_requests", "Requests that wait at an engine.");
    let mut tokens = Family::gauge("smg_engine_tokens", "Tokens in use at an engine.");
    let mut usage = Family::gauge("smg_engine_token_usage", "Taken share of an engine's KV cache.");
    for worker in fleet.workers.iter() {
        let Some(load) = worker.cells.engine_load() else { continue };
        let labels = [("worker", &*worker.url)];
        let known = [(&mut running, load.running), (&mut waiting, load.waiting), (&mut tokens, load.tokens)];
        for (family, number) in known {
            if let Some(number) = number {
                family.add(&labels, f64::from(number));
            }
        }
        if let Some(used) = load.kv_used_permille {
            usage.add(&labels, f64::from(used) / 1000.0);
        }
    }
    vec![running.build(), waiting.build(), tokens.build(), usage.build()]
}

/// What the prefix tree knows, and what it is worth.
pub(crate) fn prefix(sources: &Sources) -> Vec<MetricFamily> {
    let control = &sources.control;
    let gauge =
        |name: &str, help: &str, value: u64| Family::gauge(name, help).with(&[], value as f64).build();
    let queried = sources.sum(|shard| &shard.prefix_blocks_total);
    let matched = sources.sum(|shard| &shard.prefix_blocks_matched_total);
    let counter = |name: &str, help: &str, value: f64| Family::counter(name, help).with(&[], value).build();
    vec![
        gauge("smg_prefix_tree_bytes", "Memory of the prefix tree.", control.tree_bytes.get()),
        gauge("smg_prefix_tree_nodes", "Nodes of the prefix tree.", control.tree_nodes.get()),
        gauge(
            "smg_prefix_tree_blocks",
            "Distinct prompt blocks in the prefix tree.",
            control.tree_blocks.get(),
        ),
        counter(
            "smg_prefix_tree_evicted_blocks_total",
            "Blocks dropped to stay within the bounds.",
            control.tree_evicted_blocks_total.get() as f64,
        ),
        counter("smg_prefix_blocks_total", "Prompt blocks looked up.", queried),
        counter(
            "smg_prefix_blocks_matched_total",
            "Of these, blocks the chosen worker was known to hold.",
            matched,
        ),
        Family::gauge("smg_prefix_hit_rate", "Matched over looked up, since the start.")
            .with(&[], if queried > 0.0 { matched / queried } else { 0.0 })
            .build(),
        counter("smg_snapshots_total", "Snapshots published.", control.publications_total.get() as f64),
    ]
}

/// What each shard carries.
pub(crate) fn shards(sources: &Sources) -> Vec<MetricFamily> {
    type Column = (&'static str, &'static str, Kind, fn(&ShardStats) -> &Counter);
    const COLUMNS: [Column; 10] = [
        ("smg_shard_connections_active", "Client connections open.", Kind::Gauge, |s| &s.connections_active),
        ("smg_shard_requests_active", "Requests in flight.", Kind::Gauge, |s| &s.requests_active),
        ("smg_shard_upstream_idle", "Idle connections to workers.", Kind::Gauge, |s| &s.upstream_idle),
        ("smg_shard_connections_total", "Client connections accepted.", Kind::Counter, |s| {
            &s.connections_total
        }),
        ("smg_shard_connections_refused_total", "Client connections over the cap.", Kind::Counter, |s| {
            &s.connections_refused_total
        }),
        ("smg_shard_http2_streams_total", "Requests that came over HTTP/2.", Kind::Counter, |s| {
            &s.http2_streams_total
        }),
        (
            "smg_shard_connections_over_address_total",
            "Client connections over the cap of their address.",
            Kind::Counter,
            |s| &s.connections_over_address_total,
        ),
        ("smg_shard_upstream_connects_total", "New connections to workers.", Kind::Counter, |s| {
            &s.upstream_connects_total
        }),
        ("smg_shard_upstream_reuses_total", "Requests over kept connections.", Kind::Counter, |s| {
            &s.upstream_reuses_total
        }),
        ("smg_shard_reports_dropped_total", "Report batches control had no room for.", Kind::Counter, |s| {
            &s.reports_dropped_total
        }),
    ];
    COLUMNS
        .iter()
        .map(|(name, help, kind, of)| {
            let mut family = match kind {
                Kind::Counter => Family::counter(name, help),
                Kind::Gauge => Family::gauge(name, help),
            };
            for (index, shard) in sources.shards.iter().enumerate() {
                family.add(&[("shard", &index.to_string())], of(shard).get() as f64);
            }
            family.build()
        })
        .collect()
}
