//! The prefill half of a pair: a request whose prompt one worker computes and another answers.
//!
//! How the two find each other depends on the engine ([`Handoff`]). SGLang's workers meet in a *bootstrap room*: both
//! get the request at once, each with the same three members added, and the decode worker answers as soon as it has
//! received what was computed; so the answer begins when the decode worker says so, and nobody waits for the end of the
//! prefill worker's own. vLLM's work one after the other: the prefill worker is asked for one token, and what it says in
//! `kv_transfer_params` goes to the decode worker with the request; with Mooncake both are told beforehand.
//!
//! A failure of one half ends the other: until the answer begins, the exchange with the prefill worker is polled beside
//! whatever the client's own waits for ([`Client::beside`](crate::client::Client::beside)), and ends when it is dropped.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use api::error::ApiError;
use api::error::ErrorCode;
use fleet::snapshot::Handoff;
use fleet::snapshot::Worker;
use fleet::stats::UpstreamFailure;
use fleet::stats::status_index;
use serde_json::Value;
use wire::ResponseFraming;

use crate::ask;
use crate::ask::Answered;
use crate::ask::Failure;
use crate::ask::Outgoing;
use crate::client::Client;
use crate::dispatch::Setback;
use crate::limits;
use crate::limits::HEAD_LIMITS;
use crate::logprobs::PromptLogprobs;
use crate::patience::Alone;
use crate::relay::BodyDecoder;
use crate::retry;
use crate::route::Leg;
use crate::route::PrefillLeg;
use crate::rt::socket::Received;
use crate::rt::wait::Readiness;
use crate::rt::wait::Watch;
use crate::state::Shard;
use crate::stop::Stop;

/// The exchange with the prefill worker of a pair, begun and not yet over. Dropped, it ends, and its connection with it.
pub(crate) struct Prefill {
    pub(crate) leg: Rc<RefCell<Leg>>,
    state: State,
    /// Whether the answer has log probabilities of the prompt, which this worker knows.
    wants_logprobs: bool,
}

/// An exchange that comes to the answer's body, if that is wanted.
type Exchange = Pin<Box<dyn Future<Output = Result<Vec<u8>, Setback>>>>;

enum State {
    /// Polled here.
    Running(Exchange),
    /// Polled by who waits for nothing else.
    Awaited,
    Done(Vec<u8>),
    Failed(Option<Setback>),
}

/// Begins the exchange with the prefill worker of a pair, and returns the members to add to the body for the one that
/// decodes.
///
/// # Errors
/// What ends the attempt before anybody decodes.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    outgoing: &Outgoing<'_, '_>,
    prefill: Box<PrefillLeg>,
    request_id: &str,
) -> Result<String, Failure> {
    let PrefillLeg { leg, batch, wants_logprobs } = *prefill;
    let worker = Arc::clone(leg.worker());
    let pair = Pair::of(shard, &worker, batch).map_err(Stop::Reject)?;
    let request = written(shard, outgoing, (&worker, request_id), &pair.prefill).map_err(Stop::Reject)?;
    let leg = Rc::new(RefCell::new(leg));
    let is_kept = pair.is_told || wants_logprobs;
    let exchange = exchange(Rc::clone(shard), Rc::clone(&leg), request, is_kept);
    let state = State::Running(Box::pin(exchange));
    client.prefill = Some(Box::new(Prefill { leg, state, wants_logprobs: wants_logprobs && !pair.is_told }));
    if !pair.is_told {
        return Ok(pair.decode);
    }
    let said = end(client).await?;
    client.prefill = None;
    let is_overwritten = shard.config().has_stack;
    Ok(told(&said, &worker, is_overwritten))
}

/// The log probabilities that the prefill worker has for the answer, if it is to have any: waits for them.
///
/// # Errors
/// What ends the wait, as [`Client::beside`] says it.
pub(crate) async fn logprobs(client: &mut Client<'_>) -> Result<Option<PromptLogprobs>, Stop> {
    if !client.prefill.as_ref().is_some_and(|prefill| prefill.wants_logprobs) {
        return Ok(None);
    }
    end(client).await.map(|said| Some(PromptLogprobs::read(&said)))
}

/// Waits for the end of the prefill worker's answer, and returns its body.
async fn end(client: &mut Client<'_>) -> Result<Vec<u8>, Stop> {
    let Some(prefill) = &mut client.prefill else { return Ok(Vec::new()) };
    let exchange = match std::mem::replace(&mut prefill.state, State::Awaited) {
        State::Running(exchange) => exchange,
        State::Done(said) => return Ok(said),
        State::Awaited | State::Failed(_) => return Ok(Vec::new()),
    };
    let ended = client.beside(exchange).await?;
    let Some(prefill) = &mut client.prefill else { return Ok(Vec::new()) };
    match ended {
        Ok(said) => {
            prefill.state = State::Done(Vec::new());
            Ok(said)
        }
        Err(setback) => {
            let error = setback.error();
            prefill.state = State::Failed(Some(setback));
            Err(Stop::Reject(error))
        }
    }
}

/// The request for the prefill worker, in one piece: it goes on when the client's bytes are gone.
fn written(
    shard: &Shard,
    outgoing: &Outgoing<'_, '_>,
    to: (&Worker, &str),
    members: &str,
) -> Result<Vec<u8>, ApiError> {
    let ask::Written { mut head, body, tail } = ask::write(shard, outgoing, to, members)?;
    head.extend_from_slice(body);
    head.extend_from_slice(&tail);
    Ok(head)
}

// === impl Prefill ===

impl Prefill {
    /// Goes on with the exchange. Ready, once, with what to tell the client if nobody else is asked, when it has failed.
    pub(crate) fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<ApiError> {
        let State::Running(exchange) = &mut self.state else { return Poll::Pending };
        match std::task::ready!(exchange.as_mut().poll(cx)) {
            Ok(said) => {
                self.state = State::Done(said);
                Poll::Pending
            }
            Err(setback) => {
                let error = setback.error();
                self.state = State::Failed(Some(setback));
                Poll::Ready(error)
            }
        }
    }

    /// Whether nothing more is expected of the worker.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_) | State::Failed(_))
    }

    /// How it failed, if it has; told once.
    pub(crate) fn take_setback(&mut self) -> Option<Setback> {
        match &mut self.state {
            State::Failed(setback) => setback.take(),
            State::Running(_) | State::Awaited | State::Done(_) => None,
        }
    }

    /// The answer has begun: what the worker still has to say goes nowhere, but a connection that is read to its end can
    /// be used again.
    #[allow(clippy::boxed_local, reason = "it is kept in a box")]
    pub(crate) fn let_go(self: Box<Self>) {
        if let State::Running(exchange) = self.state {
            monoio::spawn(async move {
                let _ = monoio::time::timeout(limits::PREFILL_LINGER_MAX, exchange).await;
            });
        }
    }
}

/// What is added to the two requests of a pair.
struct Pair {
    /// JSON members for the prefill worker.
    prefill: String,
    /// The same for the decode worker, unless the prefill worker tells them.
    decode: String,
    /// Whether the decode worker is asked when the prefill worker has answered.
    is_told: bool,
}

impl Pair {
    /// # Errors
    /// 400 for more prompts or answers than may meet.
    fn of(shard: &Shard, prefill: &Worker, batch: Option<u32>) -> Result<Self, ApiError> {
        /// One token, whole, whatever the client asked for.
        const ONE_TOKEN: &str = "\"max_tokens\":1,\"max_completion_tokens\":1,\"min_tokens\":0,\"stream\":false,\"stream_options\":null";
        Ok(match &prefill.handoff {
            Handoff::Bootstrap => {
                if batch.is_some_and(|items| items > limits::BOOTSTRAP_ROOMS_MAX) {
                    let most = limits::BOOTSTRAP_ROOMS_MAX;
                    let message =
                        format!("a pair of workers takes at most {most} prompts or answers in a request");
                    return Err(ApiError::new(ErrorCode::InvalidField, message));
                }
                let room = || shard.draw() >> 1;
                let rendezvous = bootstrap(prefill, batch, room);
                let decode = match prefill.rank {
                    Some(rank) => format!("{rendezvous},\"disagg_prefill_dp_rank\":{rank}"),
                    None => rendezvous.clone(),
                };
                Self { prefill: rendezvous, decode, is_told: false }
            }
            Handoff::Nixl => {
                let asked = "\"kv_transfer_params\":{\"do_remote_decode\":true,\"do_remote_prefill\":false,\
                             \"remote_engine_id\":null,\"remote_block_ids\":null,\"remote_host\":null,\
                             \"remote_port\":null}";
                Self { prefill: format!("{ONE_TOKEN},{asked}"), decode: String::new(), is_told: true }
            }
            Handoff::Mooncake { engine_id } => {
                let transfer = format!("\"transfer_id\":\"xfer-{:016x}{:016x}\"", shard.draw(), shard.draw());
                let asked = format!("\"do_remote_decode\":true,\"do_remote_prefill\":false,{transfer}");
                let from = remote(prefill, engine_id);
                let told = format!("\"do_remote_decode\":false,\"do_remote_prefill\":true,{transfer},{from}");
                Self {
                    prefill: format!("{ONE_TOKEN},\"kv_transfer_params\":{{{asked}}}"),
                    decode: format!("\"kv_transfer_params\":{{{told}}}"),
                    is_told: false,
                }
            }
            Handoff::Shared => Self { prefill: ONE_TOKEN.to_owned(), decode: String::new(), is_told: true },
        })
    }
}

/// Where the two workers meet: the prefill worker's host and port, and a room for each prompt or answer.
fn bootstrap(prefill: &Worker, batch: Option<u32>, mut room: impl FnMut() -> u64) -> String {
    let host = bare_host(&prefill.host);
    let port = prefill.bootstrap_port.map_or(Cow::Borrowed("null"), |port| port.to_string().into());
    let Some(items) = batch else {
        return format!(
            "\"bootstrap_host\":\"{host}\",\"bootstrap_port\":{port},\"bootstrap_room\":{}",
            room()
        );
    };
    let items = items as usize;
    let list = |item: &str| vec![item; items].join(",");
    let rooms: Vec<String> = (0..items).map(|_| room().to_string()).collect();
    format!(
        "\"bootstrap_host\":[{}],\"bootstrap_port\":[{}],\"bootstrap_room\":[{}]",
        list(&format!("\"{host}\"")),
        list(&port),
        rooms.join(",")
    )
}

/// Whom a decode worker with Mooncake fetches from.
fn remote(prefill: &Worker, engine_id: &str) -> String {
    /// Where the engine's bootstrap server listens unless it is told otherwise.
    const PORT: u16 = 8998;
    let host = bare_host(&prefill.host);
    let host = if host.contains(':') { Cow::from(format!("[{host}]")) } else { host.into() };
    let port = prefill.bootstrap_port.unwrap_or(PORT);
    // Of several ranks each is an engine of its own.
    let rank = prefill.rank.map_or_else(String::new, |rank| format!("_dp{rank}"));
    let engine_id = Value::from(format!("{engine_id}{rank}"));
    format!("\"remote_engine_id\":{engine_id},\"remote_bootstrap_addr\":\"http://{host}:{port}\"")
}

/// The host of a `Host` header's value: without port, and without the brackets of an IPv6 address.
fn bare_host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    }
}

/// The members for the decode worker that the prefill worker's answer tells. Its host is the one that is dialled here if
/// it says none, or if `is_overwritten`.
fn told(said: &[u8], prefill: &Worker, is_overwritten: bool) -> String {
    const PARAMS: &str = "kv_transfer_params";
    if prefill.handoff != Handoff::Nixl {
        return String::new();
    }
    // Without parameters the decode worker computes the prompt itself, as vLLM's own proxies have it.
    let Ok(Value::Object(mut said)) = serde_json::from_slice(said) else { return String::new() };
    let Some(Value::Object(mut params)) = said.remove(PARAMS) else { return String::new() };
    // Engines that do not know their own address leave it to us.
    let host = params.entry("remote_host").or_insert(Value::Null);
    if host.is_null() || is_overwritten {
        *host = bare_host(&prefill.host).into();
    }
    format!("\"{PARAMS}\":{}", Value::Object(params))
}

/// The whole exchange with a prefill worker. The body of its answer is read, and kept if `is_kept` says so.
async fn exchange(
    shard: Rc<Shard>,
    leg: Rc<RefCell<Leg>>,
    request: Vec<u8>,
    is_kept: bool,
) -> Result<Vec<u8>, Setback> {
    let worker = Arc::clone(leg.borrow().worker());
    let written = ask::Written { head: request, body: b"", tail: Vec::new() };
    let answered = ask::attempt(&shard, &mut Alone, &worker, &written).await;
    shard.give_buffer(written.head);
    let failed = |failure| Setback::of_failure(&shard, &mut leg.borrow_mut(), failure);
    let Answered { connection, buf, head_len, is_fully_sent } = match answered {
        Ok(answered) => answered,
        Err(Failure::Upstream(failure)) => return Err(failed(failure)),
        Err(Failure::Tls(reason)) => return Err(Setback::of_tls(&shard, &mut leg.borrow_mut(), reason)),
        Err(Failure::Stale | Failure::Stop(_)) => return Err(failed(UpstreamFailure::Head)),
    };
    let (bytes, early) = buf.split_at(head_len);
    let head = match wire::parse_response(bytes, "POST", &HEAD_LIMITS) {
        Ok(head) if head.status != 101 => head,
        Ok(_) | Err(_) => return Err(failed(UpstreamFailure::Protocol)),
    };
    shard.stats.upstream_responses_total[status_index(head.status)].add(1);
    let is_kept = is_kept || head.status >= 400;
    let read = read_body(&shard, &connection, BodyDecoder::new(head.framing), early, is_kept).await;
    let is_reusable = is_fully_sent && head.keep_alive && head.framing != ResponseFraming::UntilClose;
    let status = (head.status, retry::retry_after(&head));
    match read {
        // What an error says is not worth a failure of its own.
        read if head.status >= 400 => {
            let said = read.map(|(said, _)| said).unwrap_or_default();
            Err(Setback::of_prefill(&shard, &mut leg.borrow_mut(), status, &said))
        }
        Err(()) => Err(failed(UpstreamFailure::Body)),
        Ok((said, is_exact)) => {
            let mut leg = leg.borrow_mut();
            leg.judge(&shard, retry::outcome_of(head.status));
            leg.prompt_done();
            leg.release();
            worker.cells.succeed();
            worker.cells.pressure().ease();
            if is_exact && is_reusable {
                let now_ms = shard.clock.coarse_ms();
                shard.upstreams.borrow_mut().checkin(worker.id, connection, now_ms);
            }
            Ok(said)
        }
    }
}

/// Reads a body to its end. True beside it when the connection stands exactly behind it.
async fn read_body(
    shard: &Shard,
    connection: &crate::upstream::Connection,
    mut decoder: BodyDecoder,
    early: &[u8],
    is_kept: bool,
) -> Result<(Vec<u8>, bool), ()> {
    let mut body = Vec::new();
    let mut take = |mut input: &[u8]| -> Result<(bool, bool), ()> {
        while let Some(piece) = decoder.next(&mut input).map_err(drop)? {
            if is_kept {
                if body.len() + piece.len() > limits::PREFILL_KEPT_BYTES_MAX {
                    return Err(());
                }
                body.extend_from_slice(piece);
            }
        }
        Ok((decoder.is_done(), input.is_empty()))
    };
    let (mut is_done, mut is_exact) = take(early)?;
    let mut readable = pin!(Watch::new(|| connection.stream.readable()));
    while !is_done {
        poll_fn(|cx| readable.as_mut().poll_ready(cx)).await.map_err(drop)?;
        let mut scratch = shard.scratch.borrow_mut();
        match connection.stream.recv(&mut scratch.inbound) {
            Ok(Received::Bytes(n)) => (is_done, is_exact) = take(&scratch.inbound[..n])?,
            Ok(Received::WouldBlock) => {}
            Ok(Received::End) => {
                return if decoder.may_end() { Ok((body, false)) } else { Err(()) };
            }
            Err(_) => return Err(()),
        }
    }
    Ok((body, is_exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_bare() {
        for (authority, host) in [
            ("a.example:80", "a.example"),
            ("a", "a"),
            ("10.0.0.1:9", "10.0.0.1"),
            ("[::1]:8000", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(bare_host(authority), host);
        }
    }
}
