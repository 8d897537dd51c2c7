//! Attempts: sends a request to the chosen worker and waits for the head of its answer; tries another worker as long
//! as the client has not been sent a token.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::error::ErrorCode;
use fleet::breaker::Outcome;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Role;
use fleet::snapshot::Worker;
use fleet::stats::BACKOFFS_TOLD_APART;
use fleet::stats::UpstreamFailure;
use fleet::stats::status_index;
use tracing::debug;
use wire::ResponseFraming;

use crate::ask;
use crate::ask::Answered;
use crate::ask::Failure;
use crate::ask::Outgoing;
use crate::client::Client;
use crate::finish::Trace;
use crate::limits;
use crate::limits::HEAD_LIMITS;
use crate::port::Ports;
use crate::prefill;
use crate::retry;
use crate::retry::Failed;
use crate::retry::GiveUp;
use crate::route;
use crate::route::Input;
use crate::route::Leg;
use crate::route::PrefillLeg;
use crate::route::Route;
use crate::stack;
use crate::state::Shard;
use crate::stop::Stop;

/// An attempt that did not serve the client, and may be followed by another.
#[derive(Debug)]
pub(crate) struct Setback {
    /// Whose fault it is.
    worker: WorkerId,
    cause: Cause,
    /// How long the worker asks to be left alone.
    retry_after: Duration,
}

#[derive(Debug)]
enum Cause {
    /// The worker failed; this is what the client is told if nobody else is asked. `is_unreached`: the request did not
    /// get as far as to it.
    Failed { is_unreached: bool, error: ApiError },
    /// The request is at fault: nobody else is asked.
    Refused(ApiError),
    /// It answered with a status that another worker may do better than; if none is asked, the client gets the answer.
    Answered(Box<Answered>),
}

/// Finds a worker that begins to answer. `setback` is what became of the attempt before, if this is not the first.
///
/// # Errors
/// The rejection to answer with, after the last attempt; [`Stop::Gone`] when the client left.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    mut setback: Option<Setback>,
    trace: &mut Trace<'_>,
) -> Result<Answered, Stop> {
    loop {
        let Route { leg, prefill, session } = match setback {
            None => {
                shard.retry_budget.deposit();
                first(shard, client, outgoing, trace).await?
            }
            Some(setback) => match another(shard, client, outgoing, &setback, trace).await? {
                Some(route) => {
                    setback.part(shard, trace);
                    route
                }
                None => return setback.outcome(),
            },
        };
        if trace.attempts.made() > 0 {
            shard.stats.retries_total[trace.endpoint.index()].add(1);
        }
        trace.attempts.begin();
        trace.routed.get_or_insert(leg.chosen);
        if shard.config().has_stack {
            log_choice(trace, &leg, prefill.as_deref(), session.as_deref());
        }
        // The previous attempt's leg ends here, and with it its count in that worker's load.
        let leg = trace.leg.insert(leg);
        let first_token = shard.config().first_token_timeout.filter(|_| leg.is_stream);
        client.expect_token_by(first_token.map_or(0, |timeout| shard.clock.deadline_ms(timeout)));
        trace.prefill = prefill.as_ref().map(|prefill| Arc::clone(prefill.leg.worker()));
        let attempt = attempt(shard, client, outgoing, (leg.worker(), prefill), &trace.request_id);
        setback = Some(match attempt.await {
            Ok(answered) => {
                trace.upstream_head.get_or_insert_with(|| shard.clock.now());
                match Setback::of_answer(shard, leg, answered) {
                    Ok(answered) => return Ok(answered),
                    Err(setback) => setback,
                }
            }
            Err(Failure::Stop(stop)) => match Setback::of_stop(shard, client, leg, stop) {
                Ok(setback) => setback,
                Err(stop) => return Err(stop),
            },
            Err(Failure::Upstream(failure)) => Setback::of_failure(shard, leg, failure),
            Err(Failure::Tls(reason)) => Setback::of_tls(shard, leg, reason),
            // A fresh connection is never stale; if it were, the worker would have closed it early.
            Err(Failure::Stale) => Setback::of_failure(shard, leg, UpstreamFailure::Head),
        });
    }
}

/// Says who was chosen, as clients of vLLM's production-stack router look for it.
fn log_choice(trace: &Trace<'_>, leg: &Leg, prefill: Option<&PrefillLeg>, session: Option<&str>) {
    if !tracing::enabled!(target: stack::LOG_TARGET, tracing::Level::INFO) {
        return;
    }
    let say = |leg: &Leg| {
        let took = leg.chosen.saturating_duration_since(trace.started());
        stack::log_choice(&trace.request_id, session, leg.worker(), took.as_secs_f64());
    };
    prefill.into_iter().for_each(|prefill| say(&prefill.leg));
    say(leg);
}

/// Chooses a worker that this request has not been to.
fn choose(shard: &Rc<Shard>, outgoing: &Outgoing<'_, '_>, trace: &Trace<'_>) -> Result<Route, ApiError> {
    let input = Input {
        endpoint: trace.endpoint,
        head: outgoing.head,
        shape: outgoing.shape,
        is_json: outgoing.is_json,
        body: outgoing.body,
        is_continuation: outgoing.is_continuation,
        excluded: trace.attempts.tried(),
    };
    let mut route = route::choose(shard, &input)?;
    let is_repeat = trace.attempts.is_second_round();
    route.leg.is_repeat = is_repeat;
    if let Some(prefill) = &mut route.prefill {
        prefill.leg.is_repeat = is_repeat;
    }
    Ok(route)
}

/// Chooses whom to ask first. Where all workers of a model are replaced at once there is a moment in which those that this
/// shard knows are gone and it does not know the others: it looks again then.
async fn first(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    trace: &Trace<'_>,
) -> Result<Route, Stop> {
    let mut looks_left = if shard.config().has_stack { limits::LOOKS_AGAIN_MAX } else { 0 };
    loop {
        match choose(shard, outgoing, trace) {
            Err(error) if error.code == ErrorCode::NoWorkers && looks_left > 0 => {
                looks_left -= 1;
                client.beside(monoio::time::sleep(limits::LOOK_AGAIN_PAUSE)).await?;
            }
            chosen => return chosen.map_err(Stop::Reject),
        }
    }
}

/// Chooses whom to ask after a setback, when it is time to; none if the request is given up.
async fn another(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    setback: &Setback,
    trace: &mut Trace<'_>,
) -> Result<Option<Route>, Stop> {
    client.expect_token_by(0);
    // Nobody waits for the prompt any more.
    client.prefill = None;
    if matches!(setback.cause, Cause::Refused(_)) {
        return Ok(None);
    }
    let config = shard.config();
    let rules = &config.retry;
    let Some(leg) = &mut trace.leg else { return Ok(None) };
    let (failed, worker) = (setback.failed(), setback.worker);
    let budget = (&*shard.retry_budget, shard.clock.coarse_ms());
    let pause = match trace.attempts.failed(worker, failed, rules, budget, shard.chance()) {
        Ok(pause) => pause,
        Err(why) => {
            match why {
                GiveUp::Exhausted => shard.stats.retries_exhausted_total[trace.endpoint.index()].add(1),
                GiveUp::Denied => shard.stats.retries_denied_total.add(1),
                GiveUp::TooLong | GiveUp::Nobody => {}
            }
            return Ok(None);
        }
    };
    leg.release();
    let mut pause = Ok(pause);
    while let Ok(time) = pause {
        rest(shard, client, time, trace.attempts.made()).await?;
        if let Ok(route) = choose(shard, outgoing, trace) {
            return Ok(Some(route));
        }
        pause = trace.attempts.nobody_else(failed, rules);
    }
    Ok(None)
}

/// Lets time pass before the next attempt.
async fn rest(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    pause: Duration,
    attempts: u32,
) -> Result<(), Stop> {
    if pause.is_zero() {
        return Ok(());
    }
    let backoffs = &shard.stats.backoffs[(attempts as usize - 1).min(BACKOFFS_TOLD_APART - 1)];
    backoffs.count.add(1);
    backoffs.sum_us.add(pause.as_micros() as u64);
    client.beside(monoio::time::sleep(pause)).await
}

// === impl Setback ===

impl Setback {
    /// Counts what a worker did wrong.
    pub(crate) fn of_failure(shard: &Rc<Shard>, leg: &mut Leg, failure: UpstreamFailure) -> Self {
        note_failure(shard, leg, failure);
        leg.fail(failure, shard.clock.now());
        debug!(worker = %leg.worker().url, failure = failure.name(), "attempt failed");
        use UpstreamFailure::Connect;
        use UpstreamFailure::ConnectTimeout;
        use UpstreamFailure::Local;
        let is_unreached = matches!(failure, Connect | ConnectTimeout | Local);
        let cause = Cause::Failed { is_unreached, error: failure_error(failure, leg.worker()) };
        Self { worker: leg.worker().id, cause, retry_after: Duration::ZERO }
    }

    /// The attempt's wait ended: because a worker let it wait too long or the prefill worker failed, or for a reason that
    /// ends the request, which is given back.
    pub(crate) fn of_stop(
        shard: &Rc<Shard>,
        client: &mut Client<'_>,
        leg: &mut Leg,
        stop: Stop,
    ) -> Result<Self, Stop> {
        let Stop::Reject(error) = &stop else { return Err(stop) };
        if let Some(setback) = client.prefill.as_mut().and_then(|prefill| prefill.take_setback()) {
            return Ok(setback);
        }
        if error.code != ErrorCode::UpstreamTimeout {
            return Err(stop);
        }
        // Who lets whom wait: as long as the prompt is not computed, nobody can answer.
        let prefill = client.prefill.take().filter(|prefill| !prefill.is_done());
        let mut prefill_leg = prefill.as_ref().map(|prefill| prefill.leg.borrow_mut());
        let leg = prefill_leg.as_deref_mut().unwrap_or(leg);
        if client.is_stalled(shard.clock.coarse_ms()) {
            return Ok(Self::of_failure(shard, leg, UpstreamFailure::Stall));
        }
        note_timeout(shard, leg, error);
        Err(stop)
    }

    /// Counts a prefill worker that answered with an error, of which `said` is what it said.
    pub(crate) fn of_prefill(
        shard: &Rc<Shard>,
        leg: &mut Leg,
        (status, retry_after): (u16, Option<Duration>),
        said: &[u8],
    ) -> Self {
        leg.judge(shard, retry::outcome_of(status));
        let retry_after = retry_after.unwrap_or_default();
        let config = shard.config();
        if retry::is_back_pressure(status) && !config.retry.is_plain {
            leg.press(shard, retry_after);
        }
        let code = match status {
            400 => ErrorCode::PrefillBadRequest,
            404 => ErrorCode::PrefillNotFound,
            500 => ErrorCode::PrefillInternalError,
            502 => ErrorCode::PrefillBadGateway,
            503 => ErrorCode::PrefillUnavailable,
            _ => ErrorCode::PrefillError,
        };
        let said = String::from_utf8_lossy(&said[..said.len().min(limits::PREFILL_ERROR_SHOWN_BYTES_MAX)]);
        let error =
            ApiError::new(code, format!("prefill worker {} answered {status}: {said}", leg.worker().url));
        let stack = if config.has_stack { shard.fleet().stack.clone() } else { None };
        let error = match &stack {
            None => error,
            // The engine's own words, under its own status.
            Some(stack) => ApiError {
                message: stack::prefill_error(stack.pairs, &said).into(),
                worker_status: Some(status),
                ..error
            },
        };
        let cause = if retry::is_retryable(status) && stack.is_none() {
            Cause::Failed { is_unreached: false, error }
        } else {
            Cause::Refused(error)
        };
        Self { worker: leg.worker().id, cause, retry_after }
    }

    /// Counts a worker that there is no TLS with, and says why.
    pub(crate) fn of_tls(shard: &Rc<Shard>, leg: &mut Leg, reason: &str) -> Self {
        let mut setback = Self::of_failure(shard, leg, UpstreamFailure::Tls);
        if let Cause::Failed { error, .. } = &mut setback.cause {
            error.message = format!("{}: {reason}", error.message).into();
        }
        setback
    }

    /// Looks whether an answer is one to try another worker for; else gives it back.
    fn of_answer(shard: &Rc<Shard>, leg: &mut Leg, answered: Answered) -> Result<Answered, Self> {
        let bytes = &answered.buf[..answered.head_len];
        // The usual answer is not parsed twice.
        if bytes.get(STATUS_AT) == Some(b"200") || shard.config().retry.is_plain {
            return Ok(answered);
        }
        let status_and_pause = match wire::parse_response(bytes, "POST", &HEAD_LIMITS) {
            Ok(head) if retry::is_retryable(head.status) => Some((head.status, retry::retry_after(&head))),
            Ok(_) | Err(_) => None,
        };
        let Some((status, retry_after)) = status_and_pause else { return Ok(answered) };
        leg.judge(shard, retry::outcome_of(status));
        debug!(worker = %leg.worker().url, status, "attempt answered with an error");
        let retry_after = retry_after.unwrap_or_default();
        if retry::is_back_pressure(status) {
            leg.press(shard, retry_after);
        }
        Err(Self { worker: leg.worker().id, cause: Cause::Answered(Box::new(answered)), retry_after })
    }

    fn failed(&self) -> Failed {
        let is_unreached = matches!(self.cause, Cause::Failed { is_unreached: true, .. });
        Failed { is_unreached, retry_after: self.retry_after }
    }

    /// Another worker is asked: keeps the connection of this one if its answer has come whole.
    fn part(self, shard: &Shard, trace: &Trace<'_>) {
        let (Cause::Answered(answered), Some(leg)) = (self.cause, &trace.leg) else { return };
        let Answered { connection, buf, head_len, is_fully_sent } = *answered;
        let (bytes, body) = buf.split_at(head_len);
        let Ok(head) = wire::parse_response(bytes, "POST", &HEAD_LIMITS) else { return };
        let is_whole = match head.framing {
            ResponseFraming::None => body.is_empty(),
            ResponseFraming::Length(length) => body.len() as u64 == length,
            ResponseFraming::Chunked | ResponseFraming::UntilClose => false,
        };
        shard.stats.upstream_responses_total[status_index(head.status)].add(1);
        if is_whole && is_fully_sent && head.keep_alive {
            shard.upstreams.borrow_mut().checkin(leg.worker().id, connection, shard.clock.coarse_ms());
        }
    }

    /// What went wrong, in words.
    pub(crate) fn error(&self) -> ApiError {
        match &self.cause {
            Cause::Failed { error, .. } | Cause::Refused(error) => error.clone(),
            Cause::Answered(_) => {
                ApiError::new(ErrorCode::UpstreamClosed, "the worker answered with an error")
            }
        }
    }

    /// What went wrong, unless the worker has said it itself.
    pub(crate) fn into_error(self) -> Option<ApiError> {
        match self.cause {
            Cause::Failed { error, .. } | Cause::Refused(error) => Some(error),
            Cause::Answered(_) => None,
        }
    }

    /// What the client gets if nobody else is asked.
    fn outcome(self) -> Result<Answered, Stop> {
        match self.cause {
            Cause::Failed { error, .. } | Cause::Refused(error) => Err(Stop::Reject(error)),
            Cause::Answered(answered) => Ok(*answered),
        }
    }
}

/// Where the status stands in `HTTP/1.1 200 OK`.
const STATUS_AT: std::ops::Range<usize> = 9..12;

/// Counts what a worker did wrong, and tells control of a worker that cannot be connected to.
///
/// Only failed connects count towards removal, one a request: a connection that breaks may be the request's fault, and
/// no request may empty the fleet. A worker that has died refuses connections soon enough.
pub(crate) fn note_failure(shard: &Rc<Shard>, leg: &mut Leg, failure: UpstreamFailure) {
    shard.stats.upstream_failures_total[failure as usize].add(1);
    let is_ours = failure == UpstreamFailure::Local;
    leg.judge(shard, if is_ours { Outcome::Neutral } else { Outcome::Failure });
    if matches!(failure, UpstreamFailure::Connect | UpstreamFailure::ConnectTimeout) && !leg.is_repeat {
        leg.worker().cells.fail();
        Ports::report(shard, Report::Failing { worker: leg.worker().id });
    }
}

/// Counts an exchange that ran out of time, if that is what `error` says.
pub(crate) fn note_timeout(shard: &Rc<Shard>, leg: &mut Leg, error: &ApiError) {
    if error.code != ErrorCode::UpstreamTimeout {
        return;
    }
    shard.stats.upstream_failures_total[UpstreamFailure::Timeout as usize].add(1);
    // The time was the whole request's: others may have had most of it, or the client, who reads slowly.
    let had = shard.clock.now().saturating_duration_since(leg.chosen);
    let is_to_blame = !leg.has_begun() && had >= shard.config().request_timeout / 2;
    leg.judge(shard, if is_to_blame { Outcome::Failure } else { Outcome::Neutral });
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
        UpstreamFailure::Stall => (ErrorCode::UpstreamTimeout, format!("worker {url} sent no token in time")),
        UpstreamFailure::Body => (ErrorCode::UpstreamBody, format!("the answer of worker {url} ended early")),
    };
    // Of a pair it is told which of the two it was, as in SGLang's gateway.
    let code = match (worker.role, code.status()) {
        (Role::Prefill, 502) => ErrorCode::PrefillServerError,
        (Role::Decode, 502) => ErrorCode::DecodeServerError,
        _ => code,
    };
    ApiError::new(code, message)
}

/// One attempt at one worker, beside the one that computes the prompt, if that is another.
async fn attempt(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    (worker, prefill): (&Worker, Option<Box<PrefillLeg>>),
    request_id: &str,
) -> Result<Answered, Failure> {
    let members = match prefill {
        None => String::new(),
        Some(prefill) => prefill::begin(shard, client, outgoing, prefill, request_id).await?,
    };
    let written = ask::write(shard, outgoing, (worker, request_id), &members).map_err(Stop::Reject)?;
    let answered = ask::attempt(shard, client, worker, &written).await;
    shard.give_buffer(written.head);
    answered
}
