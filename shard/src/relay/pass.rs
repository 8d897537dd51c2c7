//! Moving a body from a worker's socket to a client's: held until complete, or passed on as it comes.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use fleet::stats::UpstreamFailure;
use wire::ResponseHead;

use crate::admit;
use crate::client::Client;
use crate::clock::micros;
use crate::encode;
use crate::finish::Trace;
use crate::relay::Plan;
use crate::relay::learn_answer;
use crate::relay::stream::BodyDecoder;
use crate::relay::stream::Flow;
use crate::relay::stream::Kind;
use crate::relay::stream::Relay;
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

/// An answer's head and what was decided from it.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a, 'h> {
    pub(crate) head: &'a ResponseHead<'h>,
    pub(crate) plan: &'a Plan,
}

/// Why a stream did not reach its end.
pub(crate) enum Broke {
    /// The client is gone.
    Gone,
    /// Time ran out, everything ends, or the prompt is not computed.
    Ended(Stop),
    /// The worker failed.
    Worker(UpstreamFailure),
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
    pub(crate) async fn hold(
        &mut self,
        mut decoder: BodyDecoder,
        early: &[u8],
        bytes_max: usize,
    ) -> Result<Held, HoldError> {
        let mut body = Vec::new();
        let mut readable = pin!(Watch::new(|| self.upstream.stream.readable()));
        let mut is_exact = gather(&mut decoder, early, &mut body)?;
        loop {
            if decoder.is_done() {
                return Ok(Held::Whole { body, is_exact });
            }
            if body.len() > bytes_max {
                return Ok(Held::TooLong { body, decoder });
            }
            let ready = poll_fn(|cx| readable.as_mut().poll_ready(cx));
            self.client.beside(ready).await.map_err(HoldError::Stop)?.map_err(|_| HoldError::Broken)?;
            let mut scratch = self.shard.scratch.borrow_mut();
            match self.upstream.stream.recv(&mut scratch.inbound) {
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
    /// The head of an event stream waits for the first event, so that a worker which dies or stalls before it is
    /// replaced unseen.
    pub(crate) async fn stream(
        &mut self,
        opening: &Opening<'_, '_>,
        relay: &mut Relay,
        decoded: &[u8],
        early: &[u8],
    ) -> Result<bool, Broke> {
        let mut out = self.shard.take_buffer();
        // What another worker has told is no progress of this one.
        let mut pace = Pace { events: relay.events(), last: None, is_held_up: false };
        let mut flow =
            self.take_in(opening, relay, &mut out, |relay, out| match relay.push_decoded(decoded, out) {
                Flow::More => relay.push(early, out),
                ended => ended,
            })?;
        if !relay.is_begun() && opening.plan.kind == Kind::Plain {
            // Bytes have no clean way to be replaced: their head goes at once.
            self.open(opening, relay, &mut out)?;
        }
        let sent = self.client.send(self.shard, &out, b"").await;
        self.shard.give_buffer(out);
        sent.map_err(|()| Broke::Gone)?;
        self.note_progress(relay, &mut pace);
        let mut readable = pin!(Watch::new(|| self.upstream.stream.readable()));
        loop {
            match flow {
                Flow::More => {}
                Flow::End { is_exact } => return Ok(is_exact),
                Flow::Broken => return Err(Broke::Worker(UpstreamFailure::Body)),
            }
            let ready = poll_fn(|cx| readable.as_mut().poll_ready(cx));
            match self.client.beside(ready).await {
                Ok(_) => flow = self.pass(opening, relay, &mut pace).await?,
                Err(stop) => return Err(Broke::Ended(stop)),
            }
            self.note_progress(relay, &mut pace);
        }
    }

    /// Takes bytes of the body in by `push`, behind the head if that has not gone yet. Nothing is in `out` afterwards
    /// if the client has nothing to get.
    fn take_in(
        &mut self,
        opening: &Opening<'_, '_>,
        relay: &mut Relay,
        out: &mut Vec<u8>,
        push: impl FnOnce(&mut Relay, &mut Vec<u8>) -> Flow,
    ) -> Result<Flow, Broke> {
        let flow = if relay.is_begun() {
            push(relay, out)
        } else {
            let mut body = self.shard.take_buffer();
            let flow = push(relay, &mut body);
            if !body.is_empty() || matches!(flow, Flow::End { .. }) {
                self.open(opening, relay, out)?;
                out.extend_from_slice(&body);
            }
            self.shard.give_buffer(body);
            flow
        };
        if let (Flow::End { .. }, Some(leg)) = (&flow, &mut self.trace.leg) {
            leg.release();
        }
        Ok(flow)
    }

    /// Writes the head of the answer, unless the request has to make room for another.
    fn open(&mut self, opening: &Opening<'_, '_>, relay: &mut Relay, out: &mut Vec<u8>) -> Result<(), Broke> {
        admit::begin_answer(self.client, self.trace).map_err(|error| Broke::Ended(Stop::Reject(error)))?;
        self.client.let_prefill_go();
        let Opening { head, plan } = opening;
        let explanation = self.trace.leg.as_ref().and_then(|leg| leg.explanation.as_deref());
        encode::response_head(
            head,
            &self.trace.request_id,
            plan.delimiter,
            plan.connection,
            explanation,
            self.trace.config.guard.cors_lines(self.trace.cors),
            out,
        );
        self.trace.status = head.status;
        relay.begin();
        Ok(())
    }

    /// Reads once from the worker and sends what follows from it.
    async fn pass(
        &mut self,
        opening: &Opening<'_, '_>,
        relay: &mut Relay,
        pace: &mut Pace,
    ) -> Result<Flow, Broke> {
        let (flow, left) = {
            let shard = Rc::clone(self.shard);
            let mut scratch = shard.scratch.borrow_mut();
            let Scratch { inbound, outbound } = &mut *scratch;
            outbound.clear();
            let flow = match self.upstream.stream.recv(inbound) {
                Ok(Received::Bytes(n)) => {
                    if relay.bytes() == 0 {
                        learn_answer(self.shard, self.trace, opening.head.status, &inbound[..n]);
                    }
                    self.take_in(opening, relay, outbound, |relay, out| relay.push(&inbound[..n], out))?
                }
                Ok(Received::WouldBlock) => return Ok(Flow::More),
                Ok(Received::End) => {
                    self.take_in(opening, relay, outbound, |relay, out| relay.end_of_input(out))?
                }
                // A body that ends with the connection does not end with its break.
                Err(_) if relay.is_done() => {
                    self.take_in(opening, relay, outbound, |relay, out| relay.end_of_input(out))?
                }
                Err(_) => Flow::Broken,
            };
            let sent = if outbound.is_empty() {
                0
            } else {
                self.client.stream.send(outbound).map_err(|_| Broke::Gone)?
            };
            self.shard.stats.sent_bytes_total.add(sent as u64);
            (flow, outbound[sent..].to_vec())
        };
        if !left.is_empty() {
            // What the client has no room for now is all that is kept; the worker is not read again before it is gone.
            self.client.send(self.shard, &left, b"").await.map_err(|()| Broke::Gone)?;
            // That the client is slow is no fault of the worker.
            pace.is_held_up = true;
            self.expect_token(relay);
        }
        Ok(flow)
    }

    /// Gives the worker its time for the next token.
    fn expect_token(&mut self, relay: &Relay) {
        if relay.events() > 0
            && let Some(timeout) = self.shard.config().inter_token_timeout
        {
            self.client.expect_token_by(self.shard.clock.deadline_ms(timeout));
        }
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
            leg.first_byte(now);
        }
        if relay.is_plain() && self.trace.status < 400 {
            self.trace.answer_begun();
        }
        if relay.events() > pace.events {
            let events = (relay.events() - pace.events).min(u64::from(u32::MAX)) as u32;
            let is_telling = !std::mem::take(&mut pace.is_held_up) && self.trace.status < 300;
            match (pace.last, &mut self.trace.leg) {
                (Some(last), Some(leg)) => {
                    let gap_us = micros(last, now);
                    let stats = leg.stats().shard(self.shard.index);
                    stats.inter_token[self.trace.endpoint.index()].record_us(gap_us);
                    if is_telling {
                        leg.more_tokens(events, gap_us);
                    }
                }
                (None, Some(leg)) if is_telling => leg.first_token(now),
                (_, _) => {}
            }
            if pace.last.is_none() {
                self.trace.answer_begun();
            }
            self.trace.tokens = self.trace.tokens.saturating_add(events);
            pace.last = Some(now);
            pace.events = relay.events();
            // The first token's deadline is over in any case.
            self.client.expect_token_by(0);
            self.expect_token(relay);
        }
    }
}

/// When the last events came.
#[derive(Debug)]
struct Pace {
    events: u64,
    last: Option<Instant>,
    /// The client was slow since, so the next gap is not the worker's.
    is_held_up: bool,
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
