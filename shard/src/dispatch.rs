//! Attempts: sends a request to the chosen worker and waits for the head of its answer; tries another worker as long
//! as the client has not been sent a byte.

use std::pin::Pin;
use std::rc::Rc;

use api::error::ApiError;
use api::error::ErrorCode;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Worker;
use fleet::stats::UpstreamFailure;
use smallvec::SmallVec;
use tracing::debug;

use crate::ask::Answered;
use crate::ask::Failure;
use crate::ask::Outgoing;
use crate::ask::ask;
use crate::client::Client;
use crate::dial::connect;
use crate::finish::Trace;
use crate::port::Ports;
use crate::route;
use crate::route::Input;
use crate::rt::wait::Readiness;
use crate::state::Shard;
use crate::stop::Stop;

/// Finds a worker that begins to answer.
///
/// # Errors
/// The rejection to answer with, after the last attempt; [`Stop::Gone`] when the client left.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    outgoing: &Outgoing<'_, '_>,
    trace: &mut Trace<'_>,
) -> Result<Answered, Stop> {
    let mut excluded = SmallVec::<[WorkerId; 8]>::new();
    let mut last_error = None;
    loop {
        let input = Input {
            head: outgoing.head,
            shape: outgoing.shape,
            is_json: outgoing.is_json,
            body: outgoing.body,
            excluded: &excluded,
        };
        let leg =
            route::choose(shard, &input).map_err(|error| Stop::Reject(last_error.take().unwrap_or(error)))?;
        if trace.attempts > 0 {
            shard.stats.retries_total.add(1);
        }
        trace.attempts += 1;
        trace.routed.get_or_insert(leg.chosen);
        // The previous attempt's leg ends here, and with it its count in that worker's load.
        let leg = trace.leg.insert(leg);
        let mut refusal = None;
        let failure =
            match attempt(shard, client, watch.as_mut(), outgoing, leg.worker(), &trace.request_id).await {
                Ok(answered) => {
                    trace.upstream_head = Some(shard.clock.now());
                    return Ok(answered);
                }
                Err(Failure::Stop(stop)) => {
                    if let Stop::Reject(error) = &stop {
                        note_timeout(shard, error);
                    }
                    return Err(stop);
                }
                Err(Failure::Upstream(failure)) => failure,
                Err(Failure::Tls(reason)) => {
                    refusal = Some(reason);
                    UpstreamFailure::Tls
                }
                // A fresh connection is never stale; if it were, the worker would have closed it early.
                Err(Failure::Stale) => UpstreamFailure::Head,
            };
        note_failure(shard, leg.worker(), failure);
        debug!(worker = %leg.worker().url, failure = failure.name(), attempt = trace.attempts, "attempt failed");
        let mut error = failure_error(failure, leg.worker());
        if let Some(reason) = refusal {
            error.message = format!("{}: {reason}", error.message).into();
        }
        if trace.attempts >= shard.config.total_retries_max {
            shard.stats.retries_exhausted_total.add(1);
            return Err(Stop::Reject(error));
        }
        excluded.push(leg.worker().id);
        last_error = Some(error);
    }
}

/// Counts a worker's transport failure, and tells control of a worker that cannot be connected to.
///
/// Only such failures count towards removal: a connection that breaks may be the request's fault, and no request may
/// empty the fleet. A worker that has died refuses connections soon enough.
pub(crate) fn note_failure(shard: &Rc<Shard>, worker: &Worker, failure: UpstreamFailure) {
    shard.stats.upstream_failures_total[failure as usize].add(1);
    if matches!(failure, UpstreamFailure::Connect | UpstreamFailure::ConnectTimeout) {
        worker.cells.fail();
        Ports::report(shard, Report::Failing { worker: worker.id });
    }
}

/// Counts an exchange that ran out of time, if that is what `error` says.
pub(crate) fn note_timeout(shard: &Shard, error: &ApiError) {
    if error.code == ErrorCode::UpstreamTimeout {
        shard.stats.upstream_failures_total[UpstreamFailure::Timeout as usize].add(1);
    }
}

pub(crate) fn failure_error(failure: UpstreamFailure, worker: &Worker) -> ApiError {
    let url = &worker.url;
    let (code, message) = match failure {
        UpstreamFailure::Connect => (ErrorCode::UpstreamConnect, format!("cannot connect to worker {url}")),
        UpstreamFailure::Local => {
            (ErrorCode::UpstreamConnect, format!("no means left to connect to worker {url}"))
        }
        UpstreamFailure::Tls => (ErrorCode::UpstreamConnect, format!("no TLS connection to worker {url}")),
        UpstreamFailure::ConnectTimeout => {
            (ErrorCode::UpstreamTimeout, format!("connecting to worker {url} took too long"))
        }
        UpstreamFailure::Send | UpstreamFailure::Head => {
            (ErrorCode::UpstreamClosed, format!("worker {url} closed the connection before it answered"))
        }
        UpstreamFailure::Protocol => {
            (ErrorCode::UpstreamProtocol, format!("worker {url} did not answer in HTTP/1.1"))
        }
        UpstreamFailure::Timeout => {
            (ErrorCode::UpstreamTimeout, format!("worker {url} did not answer within the request timeout"))
        }
        UpstreamFailure::Body => (ErrorCode::UpstreamBody, format!("the answer of worker {url} ended early")),
    };
    ApiError::new(code, message)
}

/// One attempt at one worker: over a kept connection if there is one, and once more over a fresh one if that had
/// been closed meanwhile.
async fn attempt(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    outgoing: &Outgoing<'_, '_>,
    worker: &Worker,
    request_id: &str,
) -> Result<Answered, Failure> {
    let kept = shard.upstreams.borrow_mut().checkout(worker, shard.clock.coarse_ms());
    if let Some(connection) = kept {
        shard.stats.upstream_reuses_total.add(1);
        match ask(shard, client, watch.as_mut(), outgoing, (worker, request_id), connection).await {
            Err(Failure::Stale) => {}
            done => return done,
        }
    }
    let connection = connect(shard, client, watch.as_mut(), worker).await?;
    ask(shard, client, watch, outgoing, (worker, request_id), connection).await
}
