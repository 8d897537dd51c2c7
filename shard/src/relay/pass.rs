//! Moving a body from a worker's socket to a client's: held until complete, or passed on as it comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use api::error::ApiError;
use api::error::ErrorCode;
use fleet::stats::UpstreamFailure;
use wire::ResponseHead;

use crate::client::Client;
use crate::clock::micros;
use crate::dispatch::note_failure;
use crate::dispatch::note_timeout;
use crate::encode;
use crate::finish::End;
use crate::finish::Trace;
use crate::limits;
use crate::relay::Plan;
use crate::relay::learn_answer;
use crate::relay::leg_worker;
use crate::relay::stream::BodyDecoder;
use crate::relay::stream::Flow;
use crate::relay::stream::Relay;
use crate::rt::socket;
use crate::rt::socket::Received;
use crate::rt::wait::Readiness;
use crate::rt::wait::Watch;
use crate::state::Scratch;
use crate::state::Shard;
use crate::stop::Stop;
use crate::upstream;

/// One answer on its way from a worker to a client.
pub(crate) struct Passage<'a, 'c, 't> {
    pub(crate) shard: &'a Rc<Shard>,
    pub(crate) client: &'a mut Client<'c>,
    pub(crate) watch: Pin<&'a mut dyn Readiness>,
    pub(crate) upstream: &'a upstream::Connection,
    pub(crate) trace: &'a mut Trace<'t>,
}

/// What holding an answer came to.
pub(crate) enum Held {
    /// All of it. `is_exact`: the worker sent nothing beyond it.
    Whole { body: Vec<u8>, is_exact: bool },
    /// More than is held: it goes on as a stream.
    TooLong { body: Vec<u8>, decoder: BodyDecoder },
}

/// Why an answer could not be held to its end.
pub(crate) enum HoldError {
    /// The client's side ended it, or time ran out.
    Stop(Stop),
    /// The worker's answer ended early or makes no sense.
    Broken,
}

impl Passage<'_, '_, '_> {
    /// Reads the body until it is complete or longer than may be held. Nothing goes to the client.
    pub(crate) async fn hold(&mut self, mut decoder: BodyDecoder, early: &[u8]) -> Result<Held, HoldError> {
        let mut body = Vec::new();
        let mut readable = pin!(Watch::new(|| self.upstream.stream.readable(false)));
        let mut is_exact = gather(&mut decoder, early, &mut body)?;
        loop {
            if decoder.is_done() {
                return Ok(Held::Whole { body, is_exact });
            }
            if body.len() > limits::RESPONSE_HELD_BYTES_MAX {
                return Ok(Held::TooLong { body, decoder });
            }
            let ready = poll_fn(|cx| readable.as_mut().poll_ready(cx));
            self.client
                .beside(self.watch.as_mut(), ready)
                .await
                .map_err(HoldError::Stop)?
                .map_err(|_| HoldError::Broken)?;
            let mut scratch = self.shard.scratch.borrow_mut();
            match socket::recv(&self.upstream.stream, &mut scratch.inbound) {
                Ok(Received::Bytes(n)) => is_exact = gather(&mut decoder, &scratch.inbound[..n], &mut body)?,
                Ok(Received::WouldBlock) => {}
                Ok(Received::End) if decoder.may_end() => return Ok(Held::Whole { body, is_exact: false }),
                Ok(Received::End) | Err(_) => return Err(HoldError::Broken),
            }
        }
    }

    /// Sends the head, `decoded` and `early`, then everything as it comes. True when the worker's connection stands
    /// exactly behind the answer.
    ///
    /// # Errors
    /// When the answer did not reach its end; the client has been told if its kind has words for it.
    pub(crate) async fn stream(
        &mut self,
        plan: &Plan,
        decoder: BodyDecoder,
        head: &ResponseHead<'_>,
        decoded: &[u8],
        early: &[u8],
    ) -> Result<bool, ()> {
        let mut relay = Relay::new(decoder, plan.kind, plan.delimiter);
        self.trace.status = head.status;
        let mut out = self.shard.take_buffer();
        let explanation = self.trace.leg.as_ref().and_then(|leg| leg.explanation.as_deref());
        let request_id = &self.trace.request_id;
        encode::response_head(head, request_id, plan.delimiter, plan.connection, explanation, &mut out);
        let first = if decoded.is_empty() { early } else { decoded };
        learn_answer(self.shard, self.trace, head.status, first);
        relay.push_decoded(decoded, &mut out);
        let mut flow = relay.push(early, &mut out);
        if let (Flow::End { .. }, Some(leg)) = (&flow, &mut self.trace.leg) {
            leg.release();
        }
        let sent = self.client.send(self.shard, &out, b"").await;
        self.shard.give_buffer(out);
        sent?;
        let mut pace = Pace::default();
        self.note_progress(&relay, &mut pace);
        let mut readable = pin!(Watch::new(|| self.upstream.stream.readable(false)));
        loop {
            match flow {
                Flow::More => {}
                Flow::End { is_exact } => return Ok(is_exact),
                Flow::Broken => {
                    let worker = leg_worker(self.trace);
                    note_failure(self.shard, worker, UpstreamFailure::Body);
                    let message = format!("worker {} ended the stream early", worker.url);
                    return self.fail(&mut relay, &ApiError::new(ErrorCode::UpstreamBody, message)).await;
                }
            }
            let ready = poll_fn(|cx| readable.as_mut().poll_ready(cx));
            match self.client.beside(self.watch.as_mut(), ready).await {
                Ok(_) => flow = self.pass(&mut relay).await?,
                Err(Stop::Gone) => return Err(()),
                Err(Stop::Reject(error)) => {
                    note_timeout(self.shard, &error);
                    return self.fail(&mut relay, &error).await;
                }
            }
            self.note_progress(&relay, &mut pace);
        }
    }

    /// Reads once from the worker and sends what follows from it.
    async fn pass(&mut self, relay: &mut Relay) -> Result<Flow, ()> {
        let (flow, left) = {
            let mut scratch = self.shard.scratch.borrow_mut();
            let Scratch { inbound, outbound } = &mut *scratch;
            outbound.clear();
            let flow = match socket::recv(&self.upstream.stream, inbound) {
                Ok(Received::Bytes(n)) => {
                    if relay.bytes() == 0 {
                        learn_answer(self.shard, self.trace, self.trace.status, &inbound[..n]);
                    }
                    relay.push(&inbound[..n], outbound)
                }
                Ok(Received::WouldBlock) => return Ok(Flow::More),
                Ok(Received::End) | Err(_) => relay.end_of_input(outbound),
            };
            if let (Flow::End { .. }, Some(leg)) = (&flow, &mut self.trace.leg) {
                leg.release();
            }
            let sent = if outbound.is_empty() {
                0
            } else {
                socket::send(self.client.stream, outbound).map_err(drop)?
            };
            self.shard.stats.sent_bytes_total.add(sent as u64);
            (flow, outbound[sent..].to_vec())
        };
        // What the client has no room for now is all that is kept; the worker is not read again before it is gone.
        self.client.send(self.shard, &left, b"").await?;
        Ok(flow)
    }

    async fn fail(&mut self, relay: &mut Relay, error: &ApiError) -> Result<bool, ()> {
        self.trace.end = End::Broken;
        self.trace.error = Some(error.code);
        let mut out = Vec::new();
        if relay.fail(self.trace.endpoint, error, &mut out) {
            self.client.send(self.shard, &out, b"").await?;
        }
        Err(())
    }

    /// Notes the first byte, and the gap between events.
    fn note_progress(&mut self, relay: &Relay, pace: &mut Pace) {
        if relay.bytes() == 0 {
            return;
        }
        if self.trace.first_byte.is_some() && relay.events() == pace.events {
            return;
        }
        let now = self.shard.clock.now();
        self.trace.first_byte.get_or_insert(now);
        if let Some(leg) = &mut self.trace.leg {
            leg.prompt_done();
        }
        if relay.events() > pace.events {
            if let (Some(last), Some(leg)) = (pace.last, &self.trace.leg) {
                let stats = leg.stats().shard(self.shard.index);
                stats.inter_token[self.trace.endpoint.index()].record_us(micros(last, now));
            }
            let events = (relay.events() - pace.events).min(u64::from(u32::MAX)) as u32;
            self.trace.tokens = self.trace.tokens.saturating_add(events);
            pace.last = Some(now);
            pace.events = relay.events();
        }
    }
}

/// When the last events came.
#[derive(Debug, Default)]
struct Pace {
    events: u64,
    last: Option<Instant>,
}

/// Takes what `input` holds of the body; true when it holds nothing beyond.
fn gather(decoder: &mut BodyDecoder, mut input: &[u8], body: &mut Vec<u8>) -> Result<bool, HoldError> {
    loop {
        match decoder.next(&mut input) {
            Ok(Some(piece)) => body.extend_from_slice(piece),
            Ok(None) => return Ok(input.is_empty()),
            Err(_) => return Err(HoldError::Broken),
        }
    }
}
