//! Attempts: sends a request to the chosen worker and waits for the head of its answer; tries another worker as long
//! as the client has not been sent a byte.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use api::endpoint::PromptShape;
use api::error::ApiError;
use api::error::ErrorCode;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Worker;
use fleet::stats::UpstreamFailure;
use monoio::net::TcpStream;
use smallvec::SmallVec;
use tracing::debug;
use wire::RequestHead;

use crate::client::Client;
use crate::encode;
use crate::finish::Trace;
use crate::limits;
use crate::port::Ports;
use crate::route;
use crate::route::Input;
use crate::rt::socket;
use crate::rt::socket::Received;
use crate::rt::wait::Readiness;
use crate::rt::wait::Watch;
use crate::state::Shard;
use crate::stop::Stop;
use crate::upstream::Connection;

/// A request as it goes to a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a, 'h> {
    pub(crate) head: &'a RequestHead<'h>,
    pub(crate) body: &'a [u8],
    pub(crate) shape: PromptShape,
    pub(crate) is_json: bool,
}

/// A worker's answer so far: its complete head, and what came with it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) connection: Connection,
    pub(crate) buf: Vec<u8>,
    pub(crate) head_len: usize,
    /// Whether the worker got the whole request; if not, its connection is good for nothing more.
    pub(crate) is_fully_sent: bool,
}

/// Why an attempt failed.
enum Failure {
    /// The client's side ended it.
    Stop(Stop),
    /// The worker's side did.
    Upstream(UpstreamFailure),
    /// A kept connection turned out to be closed; nothing of an answer had come.
    Stale,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

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
            shape: outgoing.shape,
            is_json: outgoing.is_json,
            body: outgoing.body,
            excluded: &excluded,
        };
        let leg =
            route::choose(shard, &input).map_err(|error| Stop::Reject(last_error.take().unwrap_or(error)))?;
        trace.attempts += 1;
        trace.routed.get_or_insert_with(|| shard.clock.now());
        // The previous attempt's leg ends here, and with it its count in that worker's load.
        let leg = trace.leg.insert(leg);
        let failure =
            match attempt(shard, client, watch.as_mut(), outgoing, leg.worker(), &trace.request_id).await {
                Ok(answered) => {
                    trace.upstream_head = Some(shard.clock.now());
                    return Ok(answered);
                }
                Err(Failure::Stop(stop)) => {
                    note_stop(shard, &stop);
                    return Err(stop);
                }
                Err(Failure::Upstream(failure)) => failure,
                // A fresh connection is never stale; if it were, the worker would have closed it early.
                Err(Failure::Stale) => UpstreamFailure::Head,
            };
        note_failure(shard, leg.worker(), failure);
        debug!(worker = %leg.worker().url, failure = failure.name(), attempt = trace.attempts, "attempt failed");
        last_error = Some(failure_error(failure, leg.worker()));
        excluded.push(leg.worker().id);
        if trace.attempts >= shard.config.total_retries_max {
            shard.stats.retries_exhausted_total.add(1);
            return Err(Stop::Reject(
                last_error.take().unwrap_or_else(|| failure_error(failure, leg.worker())),
            ));
        }
        shard.stats.retries_total.add(1);
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

/// Counts an exchange that ran out of time.
pub(crate) fn note_stop(shard: &Shard, stop: &Stop) {
    if let Stop::Reject(error) = stop
        && error.code == ErrorCode::UpstreamTimeout
    {
        shard.stats.upstream_failures_total[UpstreamFailure::Timeout as usize].add(1);
    }
}

pub(crate) fn failure_error(failure: UpstreamFailure, worker: &Worker) -> ApiError {
    let url = &worker.url;
    let (code, message) = match failure {
        UpstreamFailure::Connect => (ErrorCode::UpstreamConnect, format!("cannot connect to worker {url}")),
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
    let kept = shard.upstreams.borrow_mut().checkout(worker);
    if let Some(connection) = kept {
        shard.stats.upstream_reuses_total.add(1);
        match ask(shard, client, watch.as_mut(), outgoing, worker, request_id, connection).await {
            Err(Failure::Stale) => {}
            done => return done,
        }
    }
    let connection = connect(shard, client, watch.as_mut(), &worker.addresses).await?;
    ask(shard, client, watch, outgoing, worker, request_id, connection).await
}

async fn connect(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    addresses: &[SocketAddr],
) -> Result<Connection, Failure> {
    let mut failure = UpstreamFailure::Connect;
    for &address in addresses.iter().take(limits::ADDRESSES_TRIED_MAX) {
        client.shorten_deadline(shard.clock.deadline_ms(shard.config.connect_timeout));
        shard.stats.upstream_connects_total.add(1);
        let connected = client.beside(watch.as_mut(), TcpStream::connect_addr(address)).await;
        client.restore_deadline();
        match connected {
            Ok(Ok(stream)) => {
                // Only latency is lost if this fails.
                let _ = stream.set_nodelay(true);
                return Ok(Connection { stream, address, is_reused: false });
            }
            Ok(Err(error)) => debug!(%address, %error, "cannot connect"),
            Err(Stop::Reject(error))
                if error.code == ErrorCode::UpstreamTimeout
                    && !client.is_overdue(shard.clock.coarse_ms()) =>
            {
                failure = UpstreamFailure::ConnectTimeout;
            }
            Err(stop) => return Err(Failure::Stop(stop)),
        }
    }
    Err(Failure::Upstream(failure))
}

/// Sends the request over one connection and reads the head of the answer.
async fn ask(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    outgoing: &Outgoing<'_, '_>,
    worker: &Worker,
    request_id: &str,
    connection: Connection,
) -> Result<Answered, Failure> {
    let mut buf = shard.take_buffer();
    encode::request_head(outgoing.head, worker, request_id, outgoing.body.len(), &mut buf);
    let mut body = outgoing.body;
    if body.len() <= limits::BODY_COPIED_BYTES_MAX {
        buf.extend_from_slice(body);
        body = b"";
    }
    let (sent, head_len) = {
        let mut readable = pin!(Watch::new(|| connection.stream.readable(false)));
        let sent = push(client, watch.as_mut(), &connection, readable.as_mut(), &buf, body).await?;
        buf.clear();
        // A worker may answer from the head alone and close, or read no further: whatever it managed to say is its
        // answer, and only its silence is a failure.
        (sent, answer_head(client, watch, &connection, readable, &mut buf).await)
    };
    match head_len {
        Ok(head_len) => Ok(Answered { connection, buf, head_len, is_fully_sent: sent == Sent::All }),
        Err(Failure::Upstream(UpstreamFailure::Head)) if sent == Sent::Broken => {
            Err(Failure::Upstream(UpstreamFailure::Send))
        }
        Err(failure) => Err(failure),
    }
}

/// How far a request went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// All of it.
    All,
    /// Not all: the worker spoke first.
    Interrupted,
    /// Not all: the connection broke.
    Broken,
}

/// What a full socket became.
enum Room {
    Writable(std::io::Result<()>),
    Readable,
}

/// Sends head and body, until the worker speaks.
async fn push(
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    connection: &Connection,
    mut readable: Pin<&mut dyn Readiness>,
    head: &[u8],
    body: &[u8],
) -> Result<Sent, Stop> {
    let mut sent = 0;
    while sent < head.len() + body.len() {
        let (head_left, body_left) =
            if sent < head.len() { (&head[sent..], body) } else { (&b""[..], &body[sent - head.len()..]) };
        let pushed = if body_left.is_empty() {
            socket::send(&connection.stream, head_left)
        } else {
            socket::send_two(&connection.stream, head_left, body_left)
        };
        match pushed {
            Ok(0) => {}
            Ok(n) => {
                sent += n;
                continue;
            }
            Err(_) => return Ok(Sent::Broken),
        }
        let mut writable = pin!(connection.stream.writable(false));
        let room = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = writable.as_mut().poll(cx) {
                return Poll::Ready(Room::Writable(result));
            }
            readable.as_mut().poll_ready(cx).map(|_| Room::Readable)
        });
        match client.beside(watch.as_mut(), room).await? {
            Room::Writable(Ok(())) => {}
            Room::Writable(Err(_)) => return Ok(Sent::Broken),
            Room::Readable if matches!(socket::peek(&connection.stream), Ok(Received::WouldBlock)) => {}
            Room::Readable => return Ok(Sent::Interrupted),
        }
    }
    Ok(Sent::All)
}

/// Reads until `buf` holds the head of the final answer; interim ones (1xx) are dropped.
async fn answer_head(
    client: &mut Client<'_>,
    mut watch: Pin<&mut dyn Readiness>,
    connection: &Connection,
    mut readable: Pin<&mut dyn Readiness>,
    buf: &mut Vec<u8>,
) -> Result<usize, Failure> {
    let mut searched = 0;
    let mut interim_left = limits::INTERIM_RESPONSES_MAX;
    // Whatever woke `push` is there already.
    let mut try_read = true;
    loop {
        if !std::mem::take(&mut try_read) {
            let ready = std::future::poll_fn(|cx| readable.as_mut().poll_ready(cx));
            client
                .beside(watch.as_mut(), ready)
                .await?
                .map_err(|_| Failure::Upstream(UpstreamFailure::Head))?;
        }
        buf.reserve(limits::BUFFER_BYTES / 2);
        match socket::recv_spare(&connection.stream, buf) {
            Ok(Received::Bytes(_)) => {}
            Ok(Received::WouldBlock) => continue,
            Ok(Received::End) | Err(_)
                if interim_left == limits::INTERIM_RESPONSES_MAX
                    && buf.is_empty()
                    && connection.is_reused =>
            {
                return Err(Failure::Stale);
            }
            Ok(Received::End) | Err(_) => return Err(Failure::Upstream(UpstreamFailure::Head)),
        }
        while let Some(end) = wire::head_end(buf, searched) {
            if !is_interim(&buf[..end]) {
                return Ok(end);
            }
            interim_left = interim_left.checked_sub(1).ok_or(Failure::Upstream(UpstreamFailure::Protocol))?;
            buf.drain(..end);
            searched = 0;
        }
        searched = buf.len();
        if searched > limits::HEAD_BYTES_MAX {
            return Err(Failure::Upstream(UpstreamFailure::Protocol));
        }
    }
}

/// Whether a head is an interim answer (RFC 9110 §15.2) other than a switch of protocols.
fn is_interim(head: &[u8]) -> bool {
    const VERSION_BYTES: usize = b"HTTP/1.1 ".len();
    head.starts_with(b"HTTP/1.")
        && head.get(VERSION_BYTES) == Some(&b'1')
        && head.get(VERSION_BYTES..VERSION_BYTES + 3) != Some(b"101")
}
