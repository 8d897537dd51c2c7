//! Admission of a relayed request: its class, its tenant, its wait, and the end of its permit.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use api::error::ApiError;
use api::error::ErrorCode;
use api::peek;
use api::peek::Used;
use fleet::admission::Claim;
use fleet::admission::ClassId;
use fleet::admission::Entry;
use fleet::admission::Gate;
use fleet::admission::Outcome;
use fleet::admission::Permit;
use fleet::admission::Stake;
use fleet::admission::TenantId;
use fleet::admission::Ticket;
use fleet::admission::Verdict;
use wire::RequestHead;

use crate::client::Client;
use crate::exchange::Incoming;
use crate::finish::Trace;
use crate::limits;
use crate::state::Shard;
use crate::stop::Stop;

/// Names the class of a request.
pub(crate) const PRIORITY_HEADER: &str = "x-smg-priority";
/// Bytes that a token of text is taken for.
const BYTES_PER_TOKEN: usize = 4;
/// Tokens that an answer is taken for whose length nothing bounds.
const ANSWER_TOKENS: u32 = 256;

/// This shard's part of the queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Requests of this shard that wait.
    waiting: Cell<u32>,
    /// Whether a task is on its way that looks for due starts.
    is_paced: Cell<bool>,
}

/// Waits until the request may go on. Its permit is in its trace then, and ends with it.
///
/// # Errors
/// The rejection to answer with: no place in the queue, too long a wait, or a gateway that drains; [`Stop::Gone`] when
/// the client left.
pub(crate) async fn admit(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    incoming: &Incoming<'_, '_>,
    trace: &mut Trace<'_>,
) -> Result<(), Stop> {
    let Some(gate) = &shard.gate else { return Ok(()) };
    let class = class(shard, gate, incoming.head);
    trace.tokens = tokens_of(incoming.body.len());
    let claim = || Claim {
        tenant: tenant(shard, gate, incoming.head, trace.tenant.as_deref(), client.origin.peer),
        tokens: estimate(incoming.body),
    };
    let entered_us = now_us(shard);
    let outcomes = &shard.stats.admission.outcomes_total[usize::from(class.0)];
    let result = match gate.enter(class, entered_us, claim) {
        Entry::Admitted(permit) => Ok(permit),
        Entry::Full => Err(queue_full()),
        Entry::Queued(ticket) => {
            let result = wait(shard, gate, class, client, ticket).await;
            let queued_us = now_us(shard) - entered_us;
            trace.queued_us = Some(queued_us);
            if result.is_ok() {
                shard.stats.admission.queue_wait[usize::from(class.0)].record_us(queued_us);
            }
            result
        }
    };
    outcomes[outcome(&result) as usize].add(1);
    let permit = result?;
    client.notice = permit.stake().map(|stake| Box::new(Notice { shard: Rc::clone(shard), stake }));
    trace.permit = Some(permit);
    Ok(())
}

/// Where a request hears that it has to make room for one of a higher class.
pub(crate) struct Notice {
    shard: Rc<Shard>,
    stake: Stake,
}

impl Notice {
    /// Ready with what to answer when the request has to make room.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<ApiError> {
        match &self.shard.gate {
            Some(gate) => gate.poll_preempted(self.stake, cx).map(|()| preempted()),
            None => Poll::Pending,
        }
    }

    fn begin_answer(&self) -> bool {
        self.shard.gate.as_ref().is_none_or(|gate| gate.begin_answer(self.stake))
    }
}

/// The answer begins: whatever comes now, nobody takes the request's place before its end.
///
/// # Errors
/// What to answer instead: the place has been taken already.
pub(crate) fn begin_answer(client: &mut Client<'_>, trace: &Trace<'_>) -> Result<(), ApiError> {
    match client.notice.take() {
        Some(notice) if trace.permit.is_some() && !notice.begin_answer() => Err(preempted()),
        Some(_) | None => Ok(()),
    }
}

/// Ends a request whose place is needed, before it is answered: a client that is slow to read keeps nobody waiting.
/// Its exchange with the worker must be over.
pub(crate) fn make_room(shard: &Shard, trace: &mut Trace<'_>) {
    if let Some(leg) = &mut trace.leg {
        leg.release();
    }
    if let Some(permit) = trace.permit.take() {
        shard.stats.admission.preempted_total[usize::from(permit.class().0)].add(1);
        release(shard, permit, trace.tokens);
    }
}

fn preempted() -> ApiError {
    ApiError::new(ErrorCode::Preempted, "the request had to make room for one of a higher class; try again")
}

/// Gives a permit back, at the end of a request that took `tokens` in all.
pub(crate) fn release(shard: &Shard, permit: Permit, tokens: u32) {
    if let Some(gate) = &shard.gate
        && gate.release(permit, Some(tokens))
    {
        gate.pump(now_us(shard));
    }
}

/// Seconds after which a client that was refused with `code` may try again.
pub(crate) fn retry_after_s(shard: &Shard, code: ErrorCode, trace: &Trace<'_>) -> u32 {
    match (&shard.gate, code) {
        (_, ErrorCode::TenantRateLimited) => trace.retry_after_s,
        (Some(gate), ErrorCode::QueueFull | ErrorCode::QueueTimeout) => gate.retry_after_s(),
        _ => 1,
    }
}

/// Notes what a complete answer has cost: what it says itself, else what its length is taken for.
pub(crate) fn note_answer(trace: &mut Trace<'_>, answer: &[u8]) {
    if trace.permit.is_some() || trace.charge.is_some() {
        trace.tokens = match peek::used(answer) {
            Some(Used::Total(tokens)) => tokens,
            Some(Used::Answer(tokens)) => trace.tokens.saturating_add(tokens),
            None => trace.tokens.saturating_add(tokens_of(answer.len())),
        };
    }
}

/// Tokens that a request with this body is taken to cost, prompt and answer.
pub(crate) fn estimate(body: &[u8]) -> u32 {
    tokens_of(body.len()).saturating_add(peek::answer_tokens_max(body).unwrap_or(ANSWER_TOKENS))
}

/// Tokens that so many bytes of text are taken for.
pub(crate) fn tokens_of(bytes: usize) -> u32 {
    bytes.div_ceil(BYTES_PER_TOKEN).min(u32::MAX as usize) as u32
}

pub(crate) fn now_us(shard: &Shard) -> u64 {
    shard.clock.since_start_us(shard.clock.now())
}

fn queue_full() -> Stop {
    Stop::reject(ErrorCode::QueueFull, "as many requests wait as may; try again later")
}

fn outcome(result: &Result<Permit, Stop>) -> Outcome {
    match result {
        Ok(_) => Outcome::Admitted,
        Err(Stop::Gone) => Outcome::ClientLeft,
        Err(Stop::Reject(error)) => match error.code {
            ErrorCode::QueueFull => Outcome::QueueFull,
            ErrorCode::ShuttingDown => Outcome::ShuttingDown,
            _ => Outcome::QueueTimeout,
        },
    }
}

/// The class that a request asks for, as far as it may.
fn class(shard: &Shard, gate: &Gate, head: &RequestHead<'_>) -> ClassId {
    if !gate.has_classes() {
        return gate.default_class();
    }
    let Some(name) = head.header(PRIORITY_HEADER) else { return gate.default_class() };
    let rules = gate.rules();
    match rules.class_named(name.trim_ascii()) {
        Some(class) if class < rules.class_max => {
            shard.stats.admission.clamped_total.add(1);
            rules.class_max
        }
        Some(class) => class,
        None => {
            shard.stats.admission.unknown_priority_total.add(1);
            rules.default_class
        }
    }
}

/// Whose request it is: whose key it came with, who it says, if that is trusted, whose credentials it carries, or where
/// it came from.
fn tenant(
    shard: &Shard,
    gate: &Gate,
    head: &RequestHead<'_>,
    key_of: Option<&str>,
    peer: IpAddr,
) -> TenantId {
    let named = || shard.config().tenant_header.as_deref().and_then(|name| head.header(name));
    if let Some(tenant) = key_of {
        gate.tenant("key", tenant.as_bytes())
    } else if let Some(name) = named().filter(|name| !name.is_empty()) {
        gate.tenant("header", name)
    } else if let Some(credentials) = head.header("authorization") {
        gate.tenant("auth", credentials)
    } else {
        match peer {
            IpAddr::V4(address) => gate.tenant("ip", &address.octets()),
            // A client has a whole /64 to itself: all of its addresses are one tenant.
            IpAddr::V6(address) => gate.tenant("ip", &address.octets()[..8]),
        }
    }
}

/// A place in the queue: given up when dropped.
struct Place<'a> {
    shard: &'a Shard,
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        let Some(ticket) = &mut self.ticket else { return Poll::Ready(Verdict::Refused) };
        let verdict = std::task::ready!(Pin::new(ticket).poll(cx));
        self.ticket = None;
        Poll::Ready(verdict)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let queue = &self.shard.queue;
        queue.waiting.set(queue.waiting.get() - 1);
        if let Some(ticket) = self.ticket.take()
            && self.gate.leave(ticket)
        {
            self.gate.pump(now_us(self.shard));
        }
    }
}

async fn wait(
    shard: &Rc<Shard>,
    gate: &Gate,
    class: ClassId,
    client: &mut Client<'_>,
    ticket: Ticket,
) -> Result<Permit, Stop> {
    let queue = &shard.queue;
    queue.waiting.set(queue.waiting.get() + 1);
    let mut place = Place { shard, gate, ticket: Some(ticket) };
    keep_pace(shard);
    client.queue_until(shard.clock.deadline_ms(gate.rules().class(class).queue_timeout));
    let verdict = client.beside(poll_fn(|cx| place.poll(cx))).await;
    client.restore_deadline();
    match verdict {
        Ok(Verdict::Admitted { permit, is_promoted }) => {
            if is_promoted {
                shard.stats.admission.promotions_total[usize::from(class.0)].add(1);
            }
            Ok(permit)
        }
        Ok(Verdict::Refused) => Err(queue_full()),
        Err(Stop::Reject(error)) if error.code == ErrorCode::UpstreamTimeout => {
            Err(Stop::reject(ErrorCode::QueueTimeout, "the request waited too long for others to end"))
        }
        Err(stop) => Err(stop),
    }
}

/// Sees to it that starts are handed out as they become due, if requests of this shard wait. Looked after again at
/// every tick: starts may become limited while somebody waits.
pub(crate) fn keep_pace(shard: &Rc<Shard>) {
    let queue = &shard.queue;
    if queue.waiting.get() > 0
        && shard.gate.as_ref().is_some_and(|gate| gate.has_pace())
        && !queue.is_paced.replace(true)
    {
        monoio::spawn(pace(Rc::clone(shard)));
    }
}

/// Hands out starts as they become due, as long as requests of this shard wait.
async fn pace(shard: Rc<Shard>) {
    while let Some(gate) = &shard.gate
        && shard.queue.waiting.get() > 0
    {
        let now = now_us(&shard);
        let pause = gate.due_us().map_or(limits::START_PAUSE_MAX, |due_us| {
            Duration::from_micros(due_us.saturating_sub(now))
                .clamp(limits::START_PAUSE_MIN, limits::START_PAUSE_MAX)
        });
        monoio::time::sleep(pause).await;
        if gate.due_us().is_some_and(|due_us| due_us <= now_us(&shard)) {
            gate.pump(now_us(&shard));
        }
    }
    shard.queue.is_paced.set(false);
}
