//! Relaying an answer: whole where it can be held, else piece by piece as it comes, no faster than the client reads.

mod pass;
mod stream;

use std::rc::Rc;

use api::endpoint::Endpoint;
use api::error::ApiError;
use api::error::ErrorCode;
use fleet::stats::UpstreamFailure;
use fleet::stats::status_index;
use wire::RequestHead;
use wire::ResponseFraming;
use wire::ResponseHead;
use wire::Version;

use crate::admit;
use crate::answer::answer_error;
use crate::ask::Answered;
use crate::client::Client;
use crate::client::Next;
use crate::dispatch::Setback;
use crate::dispatch::failure_error;
use crate::encode;
use crate::encode::Delimiter;
use crate::finish::End;
use crate::finish::Trace;
use crate::limits;
use crate::limits::HEAD_LIMITS;
use crate::media;
use crate::prefill;
use crate::relay::pass::Broke;
use crate::relay::pass::Held;
use crate::relay::pass::HoldError;
use crate::relay::pass::Opening;
use crate::relay::pass::Passage;
pub(crate) use crate::relay::stream::BodyDecoder;
use crate::relay::stream::Kind;
use crate::relay::stream::Relay;
use crate::respond::Connection;
use crate::resume::Story;
use crate::retry;
use crate::route::Leg;
use crate::state::Shard;
use crate::stop::Stop;

/// What relaying came to.
pub(crate) enum Relayed {
    /// The exchange is over.
    Over(Next),
    /// The worker failed, and the client has not been sent a token: another may take over.
    Again(Setback),
}

/// What the client asked for and is being sent.
pub(crate) struct Downstream<'a, 'h> {
    pub(crate) request: &'a RequestHead<'h>,
    /// What happens to the connection when the request succeeds.
    pub(crate) connection: Connection,
    /// The stream that another worker began.
    pub(crate) begun: Option<Relay>,
    /// The request's story, until the stream begins that it is about.
    pub(crate) story: Option<Story>,
}

/// Relays a worker's answer, whose head has arrived.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    answered: Answered,
    down: &mut Downstream<'_, '_>,
    trace: &mut Trace<'_>,
) -> Relayed {
    let Answered { connection: upstream, buf, head_len, is_fully_sent } = answered;
    let head = match wire::parse_response(&buf[..head_len], down.request.method, &HEAD_LIMITS) {
        Ok(head) if head.status != 101 => head,
        Ok(_) | Err(_) => return again(shard, UpstreamFailure::Protocol, trace),
    };
    shard.stats.upstream_responses_total[status_index(head.status)].add(1);
    let plan = Plan::new(&head, down.request.version, down.connection);
    if plan.kind == Kind::Plain {
        // Bytes have no tokens to wait for.
        client.expect_token_by(0);
    }
    let early = &buf[head_len..];
    if let Some(relay) = down.begun.take_if(|_| head.status != 200 || plan.kind != Kind::Events) {
        let error = no_sequel(shard, leg(trace), head.status);
        return Relayed::Over(fail(shard, client, relay, &error, trace).await);
    }
    let decoder = BodyDecoder::new(head.framing);
    let logprobs = match if head.status == 200 { prefill::logprobs(client).await } else { Ok(None) } {
        Ok(logprobs) => logprobs,
        Err(stop) => {
            drop(upstream);
            return unanswered(shard, client, stop, down, trace).await;
        }
    };
    // What is put together is held, however long it is.
    let way = if logprobs.is_some() && plan.kind == Kind::Plain { Way::Hold } else { plan.way };
    let outcome = match way {
        Way::AtOnce(length) if early.len() >= length => {
            let whole = Whole { head: &head, body: &early[..length], delimiter: plan.delimiter };
            send_whole(shard, client, plan.connection, &whole, trace).await.map(|()| early.len() == length)
        }
        Way::AtOnce(_) | Way::Hold => {
            let mut passage = Passage { shard, client, upstream: &upstream, trace };
            let bytes_max = match logprobs {
                None => limits::RESPONSE_HELD_BYTES_MAX,
                Some(_) => limits::PREFILL_KEPT_BYTES_MAX,
            };
            match passage.hold(decoder, early, bytes_max).await {
                Ok(Held::Whole { mut body, is_exact }) => {
                    if let Some(logprobs) = &logprobs {
                        body = logprobs.merge(&body);
                    }
                    let delimiter = Delimiter::Length(body.len() as u64);
                    let whole = Whole { head: &head, body: &body, delimiter };
                    send_whole(shard, client, plan.connection, &whole, trace).await.map(|()| is_exact)
                }
                Ok(Held::TooLong { body, decoder }) => {
                    let mut relay = Relay::new(decoder, plan.kind, plan.delimiter);
                    let opening = Opening { head: &head, plan: &plan };
                    match passage.stream(&opening, &mut relay, &body, &[]).await {
                        Ok(is_exact) => Ok(is_exact),
                        Err(broke) => {
                            drop(upstream);
                            return broken(shard, client, broke, relay, down, trace).await;
                        }
                    }
                }
                Err(HoldError::Stop(stop)) => {
                    drop(upstream);
                    return unanswered(shard, client, stop, down, trace).await;
                }
                Err(HoldError::Broken) => return again(shard, UpstreamFailure::Body, trace),
            }
        }
        Way::Stream => {
            let mut relay = relay_of(decoder, &plan, head.status, down);
            relay.tell_logprobs(logprobs);
            learn_answer(shard, trace, head.status, early);
            let mut passage = Passage { shard, client, upstream: &upstream, trace };
            let opening = Opening { head: &head, plan: &plan };
            match passage.stream(&opening, &mut relay, &[], early).await {
                Ok(is_exact) => Ok(is_exact),
                Err(broke) => {
                    drop(upstream);
                    return broken(shard, client, broke, relay, down, trace).await;
                }
            }
        }
    };
    let is_reusable = is_fully_sent && head.keep_alive && head.framing != ResponseFraming::UntilClose;
    Relayed::Over(match outcome {
        Ok(is_exact) => {
            let leg = leg(trace);
            answered_whole(shard, leg, head.status);
            if is_exact && is_reusable {
                let now_ms = shard.clock.coarse_ms();
                shard.upstreams.borrow_mut().checkin(leg.worker().id, upstream, now_ms);
            }
            drop(head);
            shard.give_buffer(buf);
            trace.end = End::Complete;
            if plan.connection == Connection::Close { Next::Close } else { Next::KeepAlive }
        }
        Err(None) => Next::Close,
        Err(Some(error)) => {
            // The exchange with the worker ends before anything else.
            drop(upstream);
            answer_error(shard, client, down.connection, &error, trace).await
        }
    })
}

/// A worker was to go on with a stream and answers something else.
fn no_sequel(shard: &Rc<Shard>, leg: &mut Leg, status: u16) -> ApiError {
    leg.judge(shard, retry::outcome_of(status));
    let message = format!("worker {} answered {status} to a stream that had begun", leg.worker().url);
    ApiError::new(ErrorCode::UpstreamProtocol, message)
}

/// What passes a body on: what another worker began, if one has, else what is to follow the request's story.
fn relay_of(decoder: BodyDecoder, plan: &Plan, status: u16, down: &mut Downstream<'_, '_>) -> Relay {
    if let Some(mut relay) = down.begun.take() {
        relay.go_on(decoder);
        return relay;
    }
    let mut relay = Relay::new(decoder, plan.kind, plan.delimiter);
    let is_told = plan.kind == Kind::Events && status == 200;
    relay.follow(down.story.take_if(|_| is_told));
    relay
}

/// The wait ended before anything could be sent.
async fn unanswered(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    stop: Stop,
    down: &Downstream<'_, '_>,
    trace: &mut Trace<'_>,
) -> Relayed {
    match Setback::of_stop(shard, client, leg(trace), stop) {
        Ok(setback) => Relayed::Again(setback),
        Err(Stop::Gone) => Relayed::Over(Next::Close),
        Err(Stop::Reject(error)) => {
            Relayed::Over(answer_error(shard, client, down.connection, &error, trace).await)
        }
    }
}

/// The worker's answer has come whole.
fn answered_whole(shard: &Rc<Shard>, leg: &mut Leg, status: u16) {
    leg.finish(status, || shard.clock.now());
    leg.judge(shard, retry::outcome_of(status));
    let cells = &leg.worker().cells;
    cells.succeed();
    if status < 400 {
        cells.pressure().ease();
    }
}

fn leg<'a>(trace: &'a mut Trace<'_>) -> &'a mut Leg {
    match &mut trace.leg {
        Some(leg) => leg,
        None => unreachable!("an answer came over a leg"),
    }
}

/// The worker failed and the client has been sent nothing.
fn again(shard: &Rc<Shard>, failure: UpstreamFailure, trace: &mut Trace<'_>) -> Relayed {
    Relayed::Again(Setback::of_failure(shard, leg(trace), failure))
}

/// A stream did not reach its end.
async fn broken(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    broke: Broke,
    relay: Relay,
    down: &mut Downstream<'_, '_>,
    trace: &mut Trace<'_>,
) -> Relayed {
    if relay.is_begun() && relay.is_done() && !matches!(broke, Broke::Gone) {
        // All has been said; what the worker still owed is of no use to the client.
        let mut out = Vec::new();
        let mut relay = relay;
        relay.end(b"", &mut out);
        let is_sent = client.send(shard, &out, b"").await.is_ok();
        if is_sent {
            trace.end = End::Complete;
        }
        return Relayed::Over(Next::Close);
    }
    let error = match broke {
        Broke::Gone => return Relayed::Over(Next::Close),
        Broke::Ended(stop) => match Setback::of_stop(shard, client, leg(trace), stop) {
            Ok(setback) if relay.may_move() => return moved(setback, relay, down),
            Ok(setback) => setback.error(),
            Err(Stop::Gone) => return Relayed::Over(Next::Close),
            Err(Stop::Reject(error)) => error,
        },
        Broke::Worker(failure) => {
            let setback = Setback::of_failure(shard, leg(trace), failure);
            if relay.may_move() {
                return moved(setback, relay, down);
            }
            failure_error(failure, leg(trace).worker())
        }
    };
    Relayed::Over(if relay.is_begun() {
        fail(shard, client, relay, &error, trace).await
    } else {
        answer_error(shard, client, down.connection, &error, trace).await
    })
}

/// Another worker may take over from one that failed.
fn moved(setback: Setback, relay: Relay, down: &mut Downstream<'_, '_>) -> Relayed {
    // Whoever takes over before anything was sent tells the story from the beginning.
    if relay.is_begun() {
        down.begun = Some(relay);
    } else {
        down.story = relay.unfollow();
    }
    Relayed::Again(setback)
}

/// Ends a stream whose worker failed when everything had been said.
pub(crate) async fn end(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    down: &mut Downstream<'_, '_>,
    events: &[u8],
    trace: &mut Trace<'_>,
) -> Next {
    let Some(mut relay) = down.begun.take() else { return Next::Close };
    let mut out = Vec::new();
    relay.end(events, &mut out);
    if client.send(shard, &out, b"").await.is_err() {
        return Next::Close;
    }
    trace.end = End::Complete;
    // A body that ends with the connection has no other end.
    let is_over = down.connection == Connection::Close || down.request.version == Version::Http10;
    if is_over { Next::Close } else { Next::KeepAlive }
}

/// Ends a stream that has begun with an error, if its kind has words for it, and with the connection.
pub(crate) async fn fail(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    mut relay: Relay,
    error: &ApiError,
    trace: &mut Trace<'_>,
) -> Next {
    trace.end = End::Broken;
    trace.error = Some(error.code);
    let mut out = Vec::new();
    // Clients of vLLM's production-stack router know a cut stream by its missing end.
    if trace.stack.is_none() && relay.fail(trace.endpoint, error, &mut out) {
        // Whether it arrives or not, the connection ends here.
        let _ = client.send(shard, &out, b"").await;
    }
    Next::Close
}

/// Remembers which worker has the answer that begins with `body`, for a request that continues it.
pub(crate) fn learn_answer(shard: &Shard, trace: &Trace<'_>, status: u16, body: &[u8]) {
    const ID_BEGIN: &[u8] = b"\"resp_";
    if trace.endpoint != Endpoint::Responses || status != 200 {
        return;
    }
    let head = &body[..body.len().min(limits::ANSWER_ID_SEARCH_BYTES_MAX)];
    let Some(begin) = memchr::memmem::find(head, ID_BEGIN) else { return };
    let id = &head[begin + 1..];
    let Some(len) = memchr::memchr(b'"', id).filter(|&len| len <= limits::ANSWER_ID_BYTES_MAX) else {
        return;
    };
    if let Some(leg) = &trace.leg {
        leg.has_answer(&id[..len], &shard.fleet().sticky, shard.clock.coarse_seconds());
    }
}

/// How an answer is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Its length is known and small: it leaves in one piece.
    AtOnce(usize),
    /// JSON of unknown or larger length: held until complete, so that a death of the worker is a clean error.
    Hold,
    /// As it comes.
    Stream,
}

/// What is decided from the head of an answer.
pub(crate) struct Plan {
    way: Way,
    kind: Kind,
    delimiter: Delimiter,
    connection: Connection,
}

impl Plan {
    fn new(head: &ResponseHead<'_>, version: Version, connection: Connection) -> Self {
        let content_type = head.header("content-type");
        let is_json = media::is_json(content_type);
        // Compressed events have no boundaries to be seen: they pass as bytes.
        let is_events =
            content_type.is_some_and(media::is_event_stream) && head.header("content-encoding").is_none();
        let kind = if is_events { Kind::Events } else { Kind::Plain };
        let (way, delimiter) = match (head.framing, kind) {
            (ResponseFraming::None, _) => (Way::AtOnce(0), Delimiter::NoBody),
            (_, Kind::Events) => (Way::Stream, Delimiter::Chunked),
            (ResponseFraming::Length(length), Kind::Plain) => {
                let small = usize::try_from(length).ok().filter(|&n| n <= limits::RESPONSE_HELD_BYTES_MAX);
                let way = match small {
                    Some(length) if is_json || length <= limits::BUFFER_BYTES => Way::AtOnce(length),
                    _ => Way::Stream,
                };
                (way, Delimiter::Length(length))
            }
            (ResponseFraming::Chunked | ResponseFraming::UntilClose, Kind::Plain) => {
                (if is_json { Way::Hold } else { Way::Stream }, Delimiter::Chunked)
            }
        };
        // HTTP/1.0 knows no chunks: there the connection's end is the body's.
        let (delimiter, connection) = if delimiter == Delimiter::Chunked && version == Version::Http10 {
            (Delimiter::Close, Connection::Close)
        } else {
            (delimiter, connection)
        };
        Self { way, kind, delimiter, connection }
    }
}

/// A complete answer.
struct Whole<'a, 'h> {
    head: &'a ResponseHead<'h>,
    body: &'a [u8],
    delimiter: Delimiter,
}

/// Sends a complete answer. An error is what to send instead, or none when the client is gone.
async fn send_whole(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    connection: Connection,
    whole: &Whole<'_, '_>,
    trace: &mut Trace<'_>,
) -> Result<(), Option<ApiError>> {
    admit::begin_answer(client, trace)?;
    if whole.head.status < 400 {
        client.let_prefill_go();
    }
    let mut out = shard.take_buffer();
    let explanation = trace.leg.as_ref().and_then(|leg| leg.explanation.as_deref());
    let cors = trace.config.guard.cors_lines(trace.cors);
    let request_id = &trace.request_id;
    encode::response_head(whole.head, request_id, whole.delimiter, connection, explanation, cors, &mut out);
    learn_answer(shard, trace, whole.head.status, whole.body);
    let mut body = whole.body;
    if body.len() <= limits::BODY_COPIED_BYTES_MAX {
        out.extend_from_slice(body);
        body = b"";
    }
    let now = shard.clock.now();
    if let Some(leg) = &mut trace.leg {
        leg.first_byte(now);
        leg.note_usage(whole.body);
        leg.release();
    }
    trace.status = whole.head.status;
    if trace.status < 400 {
        trace.answer_begun();
    }
    admit::note_answer(trace, whole.body);
    trace.first_byte = Some(now);
    let sent = client.send(shard, &out, body).await;
    shard.give_buffer(out);
    sent.map_err(|()| None)
}
