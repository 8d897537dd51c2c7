//! Families of what happens when workers fail: retries and circuit breakers.

use api::endpoint::Endpoint;
use api::endpoint::Handler;
use fleet::breaker::Circuit;
use fleet::cell::Counter;
use fleet::stats::ShardStats;
use prometheus::proto::MetricFamily;

use crate::metrics::Sources;
use crate::metrics::family::Family;

const WORKER_TYPE: (&str, &str) = ("worker_type", "regular");

/// Retries, by endpoint.
pub(crate) fn retries(sources: &Sources) -> Vec<MetricFamily> {
    let by_endpoint = |name: &str, help: &str, of: fn(&ShardStats) -> &[Counter]| {
        let mut family = Family::counter(name, help);
        let relayed = |endpoint: &&Endpoint| matches!(endpoint.handler(), Handler::Relay(_));
        for &endpoint in Endpoint::ALL.iter().filter(relayed) {
            let count = sources.sum(|shard| &of(shard)[endpoint.index()]);
            family.add(&[WORKER_TYPE, ("endpoint", endpoint.label())], count);
        }
        family.build()
    };
    let counter = |name: &str, help: &str, of: fn(&ShardStats) -> &Counter| {
        Family::counter(name, help).with(&[], sources.sum(of)).build()
    };
    let mut pauses =
        Family::counter("smg_worker_retry_backoff_seconds_sum", "Pauses before attempts, added up.");
    let mut paused = Family::counter("smg_worker_retry_backoff_seconds_count", "Pauses before attempts.");
    let attempts = sources.shards.first().map_or(0, |shard| shard.backoffs.len());
    for at in 0..attempts {
        let count = sources.sum(|shard| &shard.backoffs[at].count);
        if count > 0.0 {
            let label = (at + 1).to_string();
            let labels = [("attempt", &*label)];
            paused.add(&labels, count);
            pauses.add(&labels, sources.sum(|shard| &shard.backoffs[at].sum_us) / 1e6);
        }
    }
    vec![
        by_endpoint("smg_worker_retries_total", "Attempts beyond a request's first.", |shard| {
            &shard.retries_total
        }),
        by_endpoint(
            "smg_worker_retries_exhausted_total",
            "Requests given up after the last attempt allowed.",
            |shard| &shard.retries_exhausted_total,
        ),
        counter(
            "smg_worker_retries_denied_total",
            "Retries not made because the budget was spent.",
            |shard| &shard.retries_denied_total,
        ),
        counter(
            "smg_http_streams_moved_total",
            "Answers that another worker took over before a token had been sent.",
            |shard| &shard.streams_moved_total,
        ),
        counter(
            "smg_http_streams_resumed_total",
            "Streams that another worker took over after that.",
            |shard| &shard.streams_resumed_total,
        ),
        counter("smg_spans_dropped_total", "Spans not exported because too many waited.", |shard| {
            &shard.spans_dropped_total
        }),
        pauses.build(),
        paused.build(),
    ]
}

/// Circuit breakers, by worker.
pub(crate) fn breakers(sources: &Sources) -> Vec<MetricFamily> {
    let fleet = sources.fleet();
    let mut state = Family::gauge("smg_worker_cb_state", "Circuit breaker: 0 closed, 1 open, 2 half-open.");
    let mut failures =
        Family::gauge("smg_worker_cb_consecutive_failures", "Failures in a row of a closed breaker.");
    let mut successes =
        Family::gauge("smg_worker_cb_consecutive_successes", "Good probes of a half-open breaker.");
    let mut transitions = Family::counter("smg_worker_cb_transitions_total", "Moves of circuit breakers.");
    let mut outcomes = Family::counter("smg_worker_cb_outcomes_total", "How requests to a worker ended.");
    for worker in fleet.workers.iter() {
        let url = ("worker", &*worker.url);
        let breaker = worker.cells.breaker();
        let (circuit, count) = (breaker.circuit(), f64::from(breaker.count()));
        state.add(&[url], f64::from(circuit as u8));
        failures.add(&[url], if circuit == Circuit::Closed { count } else { 0.0 });
        successes.add(&[url], if circuit == Circuit::HalfOpen { count } else { 0.0 });
        for (made, times) in worker.cells.outcomes().transitions().filter(|(_, times)| *times > 0) {
            transitions.add(&[url, ("from", made.from.name()), ("to", made.to.name())], times as f64);
        }
        outcomes.add(&[url, ("outcome", "success")], worker.cells.outcomes().successes() as f64);
        outcomes.add(&[url, ("outcome", "failure")], worker.cells.outcomes().failures() as f64);
    }
    vec![state.build(), failures.build(), successes.build(), transitions.build(), outcomes.build()]
}
