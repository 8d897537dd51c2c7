//! One request from its first byte to the end of its answer: which endpoint, and who answers.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use api::endpoint::Endpoint;
use api::endpoint::Handler;
use api::endpoint::METHODS;
use api::endpoint::PromptShape;
use api::endpoint::method_index;
use api::error::ApiError;
use api::error::ErrorCode;
use bytes::Bytes;
use fleet::access::Principal;
use fleet::admin::AdminCall;
use fleet::batch::UPLOAD_BYTES_MAX;
use fleet::cell::Phase;
use wire::RequestHead;
use wire::Version;

use crate::admit;
use crate::aliases;
use crate::answer::Own;
use crate::answer::answer;
use crate::answer::answer_error;
use crate::ask::Outgoing;
use crate::batches;
use crate::batches::Asked;
use crate::client::Client;
use crate::client::Next;
use crate::dispatch;
use crate::dispatch::Setback;
use crate::finish::Takeover;
use crate::finish::Trace;
use crate::guard;
use crate::guard::Caller;
use crate::guard::Door;
use crate::http2;
use crate::intake;
use crate::intake::Body;
use crate::intake::BodyPlan;
use crate::limits;
use crate::limits::HEAD_LIMITS;
use crate::media;
use crate::page;
use crate::relay;
use crate::relay::Downstream;
use crate::relay::Relayed;
use crate::respond::Connection;
use crate::resume;
use crate::resume::Sequel;
use crate::resume::Story;
use crate::rt::socket::Received;
use crate::stack;
use crate::state::Shard;
use crate::stop::Stop;
use crate::tenants;

/// The method that asks what may be sent.
pub(crate) const PREFLIGHT: &str = "OPTIONS";
/// Seconds after which a call that control refused for the moment may be made again.
const ADMIN_RETRY_AFTER_S: &str = "1";

/// Reads one request from the connection and answers it.
///
/// Boxed here, outside any async function, so that a connection's own future has no room set aside for it.
pub(crate) fn boxed<'a>(
    shard: &'a Rc<Shard>,
    client: &'a mut Client<'_>,
) -> Pin<Box<dyn Future<Output = Next> + 'a>> {
    Box::pin(run(shard, client))
}

async fn run(shard: &Rc<Shard>, client: &mut Client<'_>) -> Next {
    let mut buf = shard.take_buffer();
    buf.extend_from_slice(&client.early);
    client.begin_exchange();
    let next = serve(shard, client, &mut buf).await;
    shard.stats.received_bytes_total.add(client.take_early_bytes());
    shard.give_buffer(buf);
    next
}

async fn serve(shard: &Rc<Shard>, client: &mut Client<'_>, buf: &mut Vec<u8>) -> Next {
    let head_len = match intake::head(shard, client, buf).await {
        Ok(Some(head_len)) => head_len,
        Ok(None) => return Next::KeepAlive,
        Err(stop) => return refuse_unread(shard, client, stop).await,
    };
    if client.is_fresh && http2::is_preface(buf) {
        client.early = std::mem::take(buf);
        return Next::Http2;
    }
    client.is_fresh = false;
    let started = shard.clock.now();
    let mut body = None;
    let mut trace = None;
    let mut admission = None;
    // The head borrows the buffer that a longer body is read into: it is parsed again after such a read.
    loop {
        let mut head = match wire::parse_request(&buf[..head_len], &HEAD_LIMITS) {
            Ok(head) => head,
            Err(error) => {
                let stop = Stop::Reject(intake::head_error(&error));
                return refuse_unread(shard, client, stop).await;
            }
        };
        let current = trace.get_or_insert_with(|| {
            client.set_deadline(shard.clock.deadline_ms(shard.config().request_timeout));
            begin(shard, client.origin.door, &head, started)
        });
        let plan = BodyPlan {
            framing: head.framing,
            head_len,
            bytes_max: body_bytes_max(shard, current),
            expect_continue: head.expect_continue,
        };
        if body.is_none() {
            body = match intake::body_at_hand(&plan, buf) {
                Ok(body) => body,
                Err(stop) => return refuse(shard, client, trace.take(), stop).await,
            };
        }
        if body.is_none()
            && let Some(error) = not_served(current)
        {
            return refuse(shard, client, trace.take(), Stop::Reject(error)).await;
        }
        if admission.is_none() {
            admission = Some(guard::admit(shard, client, &head, current).await);
        }
        if body.is_none()
            && let Some(Err(error)) = admission
        {
            return refuse(shard, client, trace.take(), Stop::Reject(error)).await;
        }
        if let (Some(Ok(caller)), true) = (&admission, body.is_some() && batches::is_asked(current)) {
            guard::conceal(&current.config.guard, &mut head);
            let asked = Asked::of(&head, caller, current);
            let connection = connection_after(shard, &head);
            drop(head);
            let whole = batches::take_body(buf, head_len, body, &mut client.early);
            return batches::run(shard, client, asked, whole, connection, current).await;
        }
        if let (Some(body), Some(admission)) = (&body, &admission) {
            let (bytes, end) = match body {
                Body::Plain(len) => (&buf[head_len..head_len + len], head_len + len),
                Body::Decoded { bytes, end } => (&bytes[..], *end),
            };
            client.early = buf[end..].to_vec();
            guard::conceal(&current.config.guard, &mut head);
            let incoming = Incoming { head: &head, body: bytes, admission };
            return handle(shard, client, &incoming, current).await;
        }
        drop(head);
        body = match intake::body(shard, client, &plan, buf).await {
            Ok(body) => {
                // The pauses a body may make are over; the exchange has its own time.
                client.restore_deadline();
                Some(body)
            }
            Err(stop) => return refuse(shard, client, trace.take(), stop).await,
        };
    }
}

/// A whole request.
pub(crate) struct Incoming<'a, 'h> {
    pub(crate) head: &'a RequestHead<'h>,
    pub(crate) body: &'a [u8],
    /// Who asks, or why they are not let in.
    admission: &'a Result<Caller, ApiError>,
}

fn begin<'a>(shard: &'a Rc<Shard>, door: Door, head: &RequestHead<'_>, started: Instant) -> Trace<'a> {
    let config = shard.config();
    let resolve = if config.has_stack { Endpoint::resolve_stack } else { Endpoint::resolve };
    let endpoint = config.guard.at_door(door, resolve(head.path()));
    let request_id = shard
        .config()
        .request_id_headers
        .iter()
        .find_map(|name| head.header(name))
        .filter(|id| !id.is_empty() && id.len() <= limits::REQUEST_ID_BYTES_MAX && id.is_ascii())
        .and_then(|id| std::str::from_utf8(id).ok())
        .map_or_else(|| new_request_id(shard, endpoint), str::to_owned);
    let mut trace = Trace::begin(shard, endpoint, METHODS[method_index(head.method)], request_id, started);
    trace.cors = trace.config.guard.cors_block(head);
    trace.span = shard.ports.begin_span(head, || shard.draw());
    trace
}

fn new_request_id(shard: &Shard, endpoint: Endpoint) -> String {
    if shard.config().has_stack { shard.new_uuid() } else { shard.new_request_id(endpoint.id_prefix()) }
}

fn body_bytes_max(shard: &Shard, trace: &Trace<'_>) -> usize {
    match trace.endpoint.handler() {
        // It is answered without credentials, and its body counts for nothing.
        _ if is_preflight(trace) => limits::PREFLIGHT_BODY_BYTES_MAX,
        Handler::Relay(_) => shard.config().payload_bytes_max,
        Handler::Service if trace.endpoint == Endpoint::Files && trace.method == "POST" => {
            shard.config().payload_bytes_max.min(UPLOAD_BYTES_MAX)
        }
        Handler::Page | Handler::Admin | Handler::Service => {
            shard.config().payload_bytes_max.min(limits::ADMIN_BODY_BYTES_MAX)
        }
    }
}

/// Whether a browser asks what may be sent, and there is something to say.
fn is_preflight(trace: &Trace<'_>) -> bool {
    trace.method == PREFLIGHT && trace.stack.is_none()
}

/// Why nobody serves this path or method. Such a request is refused before more of its body is read.
fn not_served(trace: &Trace<'_>) -> Option<ApiError> {
    if is_preflight(trace) {
        return None;
    }
    if trace.endpoint == Endpoint::Unknown {
        return Some(ApiError::new(ErrorCode::RouteNotFound, "no such path"));
    }
    (!trace.endpoint.allows(trace.method)).then(|| {
        let message = format!("{} answers {} only", trace.endpoint.template(), trace.endpoint.methods());
        ApiError::new(ErrorCode::MethodNotAllowed, message)
    })
}

async fn handle(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    incoming: &Incoming<'_, '_>,
    trace: &mut Trace<'_>,
) -> Next {
    let connection = connection_after(shard, incoming.head);
    if let Some(error) = not_served(trace) {
        return answer_error(shard, client, connection, &error, trace).await;
    }
    if is_preflight(trace) {
        return page::preflight(shard, client, connection, trace).await;
    }
    let caller = match incoming.admission {
        Ok(caller) => caller,
        Err(error) => return answer_error(shard, client, connection, error, trace).await,
    };
    trace.tenant.clone_from(&caller.tenant);
    match trace.endpoint.handler() {
        // A call that is asked and let in has gone to its service before.
        Handler::Service => {
            let error = ApiError::new(ErrorCode::BatchesUnavailable, "files and batches are not served now");
            answer_error(shard, client, connection, &error, trace).await
        }
        Handler::Page => page::page(shard, client, connection, trace).await,
        Handler::Admin => admin(shard, client, incoming, caller.principal.as_ref(), connection, trace).await,
        Handler::Relay(shape) => {
            let is_json =
                shape != PromptShape::Opaque || media::is_json(incoming.head.header("content-type"));
            let stack = trace.stack.clone();
            if let Some(error) = stack
                .as_ref()
                .filter(|stack| stack.pairs.is_none())
                .and_then(|_| stack::refusal(trace.endpoint, incoming.body, is_json))
            {
                return answer_error(shard, client, connection, &error, trace).await;
            }
            let body = shard
                .with_snapshot(|snapshot| aliases::resolved(&snapshot.fleet.aliases, incoming.body, is_json));
            if let Err(error) = tenants::charge(shard, client.origin.peer, incoming, shape, trace).await {
                return answer_error(shard, client, connection, &error, trace).await;
            }
            if shard.gate.is_some()
                && let Err(stop) = admit::admit(shard, client, incoming, trace).await
            {
                let Stop::Reject(error) = stop else { return Next::Close };
                // Draining may have begun meanwhile.
                let connection = connection_after(shard, incoming.head);
                return answer_error(shard, client, connection, &error, trace).await;
            }
            let outgoing = Outgoing {
                head: incoming.head,
                body: &body,
                shape,
                is_continuation: false,
                span: trace.span,
                is_json,
            };
            forward(shard, client, &outgoing, connection, trace).await
        }
    }
}

/// What a worker answers; one worker after another until the client has its first token.
async fn forward(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    connection: Connection,
    trace: &mut Trace<'_>,
) -> Next {
    let story = story(shard, trace.endpoint);
    let mut down = Downstream { request: outgoing.head, connection, begun: None, story };
    let mut setback = None;
    // The request for the rest of an answer.
    let mut rest: Option<Vec<u8>> = None;
    loop {
        let body = rest.as_deref().unwrap_or(outgoing.body);
        let asked = Outgoing { body, is_continuation: rest.is_some(), ..*outgoing };
        match dispatch::run(shard, client, &asked, setback, trace).await {
            Ok(answered) => match relay::run(shard, client, answered, &mut down, trace).await {
                Relayed::Over(next) => return next,
                Relayed::Again(failed) => setback = Some(failed),
            },
            Err(Stop::Gone) => return Next::Close,
            Err(Stop::Reject(error)) => {
                return match down.begun {
                    Some(relay) => relay::fail(shard, client, relay, &error, trace).await,
                    None => answer_error(shard, client, connection, &error, trace).await,
                };
            }
        }
        let told = down.begun.as_mut().filter(|relay| relay.events() > 0);
        match told.map_or(Sequel::Repeat, |relay| relay.sequel(outgoing.body)) {
            Sequel::Repeat => {
                trace.takeover = Some(Takeover::Moved);
                rest = None;
            }
            Sequel::None => {
                let error = setback.and_then(Setback::into_error).unwrap_or_else(cannot_go_on);
                let Some(relay) = down.begun.take() else { return Next::Close };
                return relay::fail(shard, client, relay, &error, trace).await;
            }
            Sequel::Ask(body) => {
                trace.takeover = Some(Takeover::Resumed);
                rest = Some(body);
            }
            Sequel::End(events) => return relay::end(shard, client, &mut down, &events, trace).await,
        }
    }
}

/// The story of a stream that may have to go on with another worker.
fn story(shard: &Shard, endpoint: Endpoint) -> Option<Story> {
    let kind = match endpoint {
        Endpoint::ChatCompletions => resume::Kind::Chat,
        Endpoint::Completions => resume::Kind::Completion,
        _ => return None,
    };
    Some(if shard.config().stream_resume { Story::new(kind) } else { Story::preface(kind) })
}

fn cannot_go_on() -> ApiError {
    ApiError::new(ErrorCode::UpstreamBody, "the worker failed and the stream cannot go on")
}

/// What happens to the connection when the request succeeds.
fn connection_after(shard: &Shard, head: &RequestHead<'_>) -> Connection {
    if !head.keep_alive || shard.lifecycle.phase() != Phase::Running {
        Connection::Close
    } else if head.version == Version::Http10 {
        Connection::KeepSaid
    } else {
        Connection::Keep
    }
}

/// What control answers.
async fn admin(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    incoming: &Incoming<'_, '_>,
    principal: Option<&Principal>,
    connection: Connection,
    trace: &mut Trace<'_>,
) -> Next {
    let unavailable = || ApiError::new(ErrorCode::AdminUnavailable, "control is busy; try again");
    let reply = shard.ports.call(|reply| AdminCall {
        method: trace.method.into(),
        path: incoming.head.path().into(),
        query: incoming.head.query().map(Into::into),
        body: Bytes::copy_from_slice(incoming.body),
        request_id: trace.request_id.as_str().into(),
        reply,
    });
    let Some(reply) = reply else {
        return answer_error(shard, client, connection, &unavailable(), trace).await;
    };
    client.set_deadline(shard.clock.deadline_ms(shard.config().admin_timeout));
    let answered = client.beside(reply).await;
    let reply = answered.as_ref().ok().and_then(|reply| reply.as_ref().ok());
    guard::audit::answered(&shard.config().guard, principal, incoming.head, trace, reply);
    match answered {
        Ok(Ok(reply)) => {
            let location = reply.location.as_deref().map(|location| ("location", location));
            let extra = location.or((reply.status == 503).then_some(("retry-after", ADMIN_RETRY_AFTER_S)));
            let own = Own {
                status: reply.status,
                content_type: reply.content_type,
                body: &reply.body,
                error_code: reply.error_code,
                extra: extra.as_slice(),
            };
            answer(shard, client, connection, &own, trace).await
        }
        Ok(Err(_)) | Err(Stop::Reject(_)) => {
            answer_error(shard, client, connection, &unavailable(), trace).await
        }
        Err(Stop::Gone) => Next::Close,
    }
}

/// Answers a request whose body was not read, and closes.
async fn refuse(shard: &Rc<Shard>, client: &mut Client<'_>, trace: Option<Trace<'_>>, stop: Stop) -> Next {
    let (Stop::Reject(error), Some(mut trace)) = (stop, trace) else { return Next::Close };
    answer_error(shard, client, Connection::Close, &error, &mut trace).await;
    // The request is over; what follows is only courtesy.
    drop(trace);
    linger(shard, client).await;
    Next::Close
}

/// Answers bytes that were no request, and closes: where a next request would begin is not known.
async fn refuse_unread(shard: &Rc<Shard>, client: &mut Client<'_>, stop: Stop) -> Next {
    if let Stop::Gone = stop {
        return Next::Close;
    }
    let request_id = shard.new_request_id(Endpoint::Unknown.id_prefix());
    let trace = Trace::begin(shard, Endpoint::Unknown, "OTHER", request_id, shard.clock.now());
    refuse(shard, client, Some(trace), stop).await
}

/// Reads and drops what the client still sends for a moment: closing with unread bytes would reset the connection
/// and could take the answer with it (RFC 9112 §9.6).
async fn linger(shard: &Rc<Shard>, client: &mut Client<'_>) {
    client.stream.shutdown_write();
    client.slot.busy_until(shard.clock.deadline_ms(limits::LINGER_MAX));
    let mut dropped = 0;
    while dropped < limits::LINGER_BYTES_MAX && client.readable().await.is_ok() {
        let read = client.stream.recv(&mut shard.scratch.borrow_mut().inbound);
        match read {
            Ok(Received::Bytes(n)) => dropped += n,
            Ok(Received::WouldBlock) => {}
            Ok(Received::End) | Err(_) => return,
        }
    }
}
