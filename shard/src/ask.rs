//! One exchange with one worker over one connection: the request out, the head of the answer in.
//!
//! Both at once: a worker may speak before it has everything, with an interim answer to be passed over or with its
//! final one, after which it may read no further or close. Whatever it managed to say is its answer; only silence is
//! a failure.

use std::future::Future;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use api::endpoint::PromptShape;
use api::error::ApiError;
use api::error::ErrorCode;
use fleet::snapshot::Worker;
use fleet::stats::UpstreamFailure;
use otlp::SpanContext;
use wire::RequestHead;

use crate::dial::connect;
use crate::encode;
use crate::limits;
use crate::patience::Patience;
use crate::rt::socket::Received;
use crate::rt::wait::Readiness;
use crate::rt::wait::Watch;
use crate::splice;
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
    /// Whether the body asks for the rest of an answer.
    pub(crate) is_continuation: bool,
    /// Where it stands in a trace.
    pub(crate) span: Option<SpanContext>,
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
pub(crate) enum Failure {
    /// The client's side ended it.
    Stop(Stop),
    /// The worker's side did.
    Upstream(UpstreamFailure),
    /// There is no TLS with the worker, for this reason.
    Tls(&'static str),
    /// A kept connection turned out to be closed; nothing of an answer had come.
    Stale,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// A request in the form in which one worker gets it.
pub(crate) struct Written<'a> {
    /// Its head, with a body that is short.
    pub(crate) head: Vec<u8>,
    /// The client's body, as far as it goes out as it came and is not with the head.
    pub(crate) body: &'a [u8],
    /// What was added to it.
    pub(crate) tail: Vec<u8>,
}

/// Writes the request for `worker`, with `members` added to its body: JSON members with commas between, or nothing.
///
/// # Errors
/// 400 for a body that nothing can be added to.
pub(crate) fn write<'a>(
    shard: &Shard,
    outgoing: &Outgoing<'a, '_>,
    (worker, request_id): (&Worker, &str),
    members: &str,
) -> Result<Written<'a>, ApiError> {
    let mut tail = Vec::new();
    let mut body = body_for(worker, outgoing, members, &mut tail)?;
    let mut head = shard.take_buffer();
    let span = outgoing.span.as_ref();
    // Clients of the production-stack's router show engines their own.
    let key = worker.authorization.as_ref().filter(|_| !shard.config().has_stack);
    encode::request_head(outgoing.head, (worker, key), request_id, span, body.len() + tail.len(), &mut head);
    if body.len() <= limits::BODY_COPIED_BYTES_MAX {
        head.extend_from_slice(body);
        head.append(&mut tail);
        body = b"";
    }
    Ok(Written { head, body, tail })
}

/// Sends the request over one connection and reads the head of the answer.
pub(crate) async fn ask(
    shard: &Shard,
    waiting: &mut impl Patience,
    written: &Written<'_>,
    connection: Connection,
) -> Result<Answered, Failure> {
    let pieces = [&written.head[..], written.body, &written.tail];
    let mut request = Request { pieces, sent: 0, is_broken: false };
    let mut answer =
        Answer { bytes: shard.take_buffer(), searched: 0, interim_left: limits::INTERIM_RESPONSES_MAX };
    let head_len = converse(waiting, &connection, &mut request, &mut answer).await?;
    let is_fully_sent = request.is_sent();
    Ok(Answered { connection, buf: answer.bytes, head_len, is_fully_sent })
}

/// One attempt at one worker: over a kept connection if there is one, and once more over a fresh one if that had
/// been closed meanwhile.
pub(crate) async fn attempt(
    shard: &Rc<Shard>,
    waiting: &mut impl Patience,
    worker: &Worker,
    written: &Written<'_>,
) -> Result<Answered, Failure> {
    let kept = shard.upstreams.borrow_mut().checkout(worker, shard.clock.coarse_ms());
    if let Some(connection) = kept {
        shard.stats.upstream_reuses_total.add(1);
        match ask(shard, waiting, written, connection).await {
            Err(Failure::Stale) => {}
            done => return done,
        }
    }
    let connection = connect(shard, waiting, worker).await?;
    ask(shard, waiting, written, connection).await
}

/// What of the client's body goes to the worker as it is, with `tail` behind it.
///
/// # Errors
/// 400 for a body that nothing can be added to.
fn body_for<'a>(
    worker: &Worker,
    outgoing: &Outgoing<'a, '_>,
    members: &str,
    tail: &mut Vec<u8>,
) -> Result<&'a [u8], ApiError> {
    let body = outgoing.body;
    // Where nothing can be added, the engine chooses a rank by itself.
    let rank = worker.rank.filter(|_| outgoing.is_json && !body.is_empty());
    let rank = rank.map(|rank| format!("\"data_parallel_rank\":{rank}"));
    let added = match (rank, members) {
        (None, "") => return Ok(body),
        (Some(rank), "") => rank,
        (None, members) => members.to_owned(),
        (Some(rank), members) => format!("{rank},{members}"),
    };
    splice::append(body, added.as_bytes(), tail).ok_or_else(|| {
        ApiError::new(ErrorCode::RankNotInserted, "the body does not end as a JSON object does")
    })
}

/// What happened while waiting for the worker.
enum Event {
    Writable(std::io::Result<()>),
    Readable,
}

async fn converse(
    waiting: &mut impl Patience,
    connection: &Connection,
    request: &mut Request<'_>,
    answer: &mut Answer,
) -> Result<usize, Failure> {
    let mut readable = pin!(Watch::new(|| connection.stream.readable()));
    loop {
        request.push(connection);
        // A connection that broke is read once more: the answer may have come before the break.
        if !request.is_broken {
            let is_stuck = !request.is_sent();
            let mut writable = pin!(connection.stream.writable());
            let event = poll_fn(|cx| {
                if is_stuck && let Poll::Ready(result) = writable.as_mut().poll(cx) {
                    return Poll::Ready(Event::Writable(result));
                }
                readable.as_mut().poll_ready(cx).map(|_| Event::Readable)
            });
            match waiting.beside(event).await? {
                Event::Writable(Ok(())) => continue,
                Event::Writable(Err(_)) => request.is_broken = true,
                Event::Readable => {}
            }
        }
        if let Some(head_len) = answer.read(connection, request.is_broken)? {
            return Ok(head_len);
        }
    }
}

/// A request on its way out.
struct Request<'a> {
    /// Head, body and what was added to it; the last two are empty if all is in the first.
    pieces: [&'a [u8]; 3],
    sent: usize,
    /// The connection takes no more.
    is_broken: bool,
}

impl Request<'_> {
    fn is_sent(&self) -> bool {
        self.sent == self.pieces.iter().map(|piece| piece.len()).sum::<usize>()
    }

    /// Sends what the socket takes now.
    fn push(&mut self, connection: &Connection) {
        while !self.is_broken && !self.is_sent() {
            let mut sent = self.sent;
            let rest = self.pieces.map(|piece| {
                let of_it = sent.min(piece.len());
                sent -= of_it;
                &piece[of_it..]
            });
            let pushed = match rest {
                [piece, [], []] | [[], piece, []] | [[], [], piece] => connection.stream.send(piece),
                [[], first, second] | [first, second, []] => connection.stream.send_two(first, second),
                pieces => connection.stream.send_pieces(&pieces.map(IoSlice::new)),
            };
            match pushed {
                Ok(0) => return,
                Ok(n) => self.sent += n,
                Err(_) => self.is_broken = true,
            }
        }
    }
}

/// An answer on its way in.
struct Answer {
    bytes: Vec<u8>,
    /// Leading bytes in which no end of a head was found.
    searched: usize,
    /// Interim answers (1xx) that may still come.
    interim_left: u32,
}

impl Answer {
    /// Reads once; the length of the final head when it is complete. `is_last` says that nothing more can come.
    fn read(&mut self, connection: &Connection, is_last: bool) -> Result<Option<usize>, Failure> {
        self.bytes.reserve(limits::BUFFER_BYTES / 2);
        match connection.stream.recv_spare(&mut self.bytes) {
            Ok(Received::Bytes(_)) => {}
            Ok(Received::WouldBlock) if !is_last => return Ok(None),
            failed @ (Ok(Received::WouldBlock | Received::End) | Err(_)) => {
                // An HTTP/2 worker that broke off a request has looked at it, unlike one that refused it.
                let is_broken_off =
                    failed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionAborted);
                let is_untouched = !is_broken_off
                    && self.bytes.is_empty()
                    && self.interim_left == limits::INTERIM_RESPONSES_MAX;
                return Err(match (is_untouched && connection.is_reused, is_last) {
                    (true, _) => Failure::Stale,
                    (false, true) => Failure::Upstream(UpstreamFailure::Send),
                    (false, false) => Failure::Upstream(UpstreamFailure::Head),
                });
            }
        }
        while let Some(end) = wire::head_end(&self.bytes, self.searched) {
            if !is_interim(&self.bytes[..end]) {
                return Ok(Some(end));
            }
            self.interim_left =
                self.interim_left.checked_sub(1).ok_or(Failure::Upstream(UpstreamFailure::Protocol))?;
            self.bytes.drain(..end);
            self.searched = 0;
        }
        self.searched = self.bytes.len();
        if self.searched > limits::HEAD_BYTES_MAX {
            return Err(Failure::Upstream(UpstreamFailure::Protocol));
        }
        Ok(None)
    }
}

/// Whether a head is an interim answer (RFC 9110 §15.2) other than a switch of protocols.
fn is_interim(head: &[u8]) -> bool {
    const VERSION_BYTES: usize = b"HTTP/1.1 ".len();
    head.starts_with(b"HTTP/1.")
        && head.get(VERSION_BYTES) == Some(&b'1')
        && head.get(VERSION_BYTES..VERSION_BYTES + 3) != Some(b"101")
}
