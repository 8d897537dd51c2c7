//! The client's side of an exchange: what it sends early, whether it is still there, and what it is sent.

use std::future::Future;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use api::error::ErrorCode;

use crate::admit::Notice;
use crate::guard::Door;
use crate::limits;
use crate::patience::Patience;
use crate::prefill::Prefill;
use crate::rt::socket::Received;
use crate::rt::socket::Socket;
use crate::rt::wait;
use crate::rt::wait::Either;
use crate::rt::wait::Interrupt;
use crate::rt::wait::Readiness;
use crate::rt::wait::Slot;
use crate::rt::wait::Watching;
use crate::state::Shard;
use crate::stop::Stop;

/// The client's side of a connection, as an exchange sees it.
pub(crate) struct Client<'a> {
    pub(crate) stream: &'a Socket,
    /// Whether there is something to receive from it, or nothing more will come.
    watch: Pin<&'a mut dyn Readiness>,
    pub(crate) origin: &'a Origin,
    pub(crate) slot: &'a Slot,
    /// Nothing has been asked on this connection yet: it may still turn out to speak HTTP/2.
    pub(crate) is_fresh: bool,
    /// Bytes read behind the last request: the start of a pipelined one.
    pub(crate) early: Vec<u8>,
    /// How many of them came while an answer was being made.
    early_bytes: u32,
    /// When the exchange must be over.
    deadline_ms: u64,
    /// When the worker must have sent the next token; 0 for whenever.
    token_deadline_ms: u64,
    /// Where it hears that a higher class needs its place, as long as it may. Boxed: connections that sit idle, or whose
    /// requests have no class, have no room set aside for it.
    pub(crate) notice: Option<Box<Notice>>,
    /// The computation of the prompt by another worker than the one that answers, until the answer begins. Boxed for the
    /// same reason.
    pub(crate) prefill: Option<Box<Prefill>>,
    /// Whether the socket is still watched for the client's leaving. Not once more has come early than is kept:
    /// then it stays readable.
    watching: Watching,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its address; IPv4 as such on a listener for both.
    pub(crate) peer: IpAddr,
    /// The listener.
    pub(crate) door: Door,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another request may follow.
    KeepAlive,
    /// It is closed.
    Close,
    /// The connection speaks HTTP/2; what it has said is in `early`.
    Http2,
}

// === impl Client ===

impl<'a> Client<'a> {
    /// A client about whom nothing is known yet.
    pub(crate) fn new(
        stream: &'a Socket,
        watch: Pin<&'a mut dyn Readiness>,
        origin: &'a Origin,
        slot: &'a Slot,
    ) -> Self {
        Self {
            stream,
            watch,
            origin,
            slot,
            is_fresh: true,
            early: Vec::new(),
            early_bytes: 0,
            deadline_ms: 0,
            token_deadline_ms: 0,
            notice: None,
            prefill: None,
            watching: Watching::Yes,
        }
    }

    /// Takes over for one exchange.
    pub(crate) fn begin_exchange(&mut self) {
        self.early = Vec::new();
        self.deadline_ms = 0;
        self.token_deadline_ms = 0;
        self.notice = None;
        self.prefill = None;
        self.watching = Watching::Yes;
    }

    /// Sets when the exchange must be over, in coarse time.
    pub(crate) fn set_deadline(&mut self, deadline_ms: u64) {
        self.deadline_ms = deadline_ms;
        self.slot.busy_until(deadline_ms);
    }

    /// Sets an earlier deadline for one step; [`Client::restore_deadline`] ends it.
    pub(crate) fn shorten_deadline(&self, step_deadline_ms: u64) {
        self.slot.busy_until(self.earlier(step_deadline_ms));
    }

    /// The same for a step that draining ends as well: a wait for admission.
    pub(crate) fn queue_until(&self, step_deadline_ms: u64) {
        self.slot.idle_until(self.earlier(step_deadline_ms));
    }

    fn earlier(&self, deadline_ms: u64) -> u64 {
        if self.deadline_ms == 0 { deadline_ms } else { deadline_ms.min(self.deadline_ms) }
    }

    /// Goes back to the deadline of the exchange, or of the next token.
    pub(crate) fn restore_deadline(&self) {
        let deadline_ms = match (self.deadline_ms, self.token_deadline_ms) {
            (0, only) | (only, 0) => only,
            (exchange, token) => exchange.min(token),
        };
        self.slot.busy_until(deadline_ms);
    }

    /// Has the wait for the worker end at `deadline_ms` if no token has come by then; 0 for no such deadline.
    pub(crate) fn expect_token_by(&mut self, deadline_ms: u64) {
        self.token_deadline_ms = deadline_ms;
        self.restore_deadline();
    }

    /// Whether the next token is overdue at `now_ms`, and the exchange itself is not.
    pub(crate) fn is_stalled(&self, now_ms: u64) -> bool {
        self.token_deadline_ms != 0 && now_ms >= self.token_deadline_ms && !self.is_overdue(now_ms)
    }

    /// Whether the exchange itself has run out of time at `now_ms`.
    pub(crate) fn is_overdue(&self, now_ms: u64) -> bool {
        self.deadline_ms != 0 && now_ms >= self.deadline_ms
    }

    /// Takes what the client sent while its answer is still being made, so that its leaving is still seen behind it.
    fn take_early(&mut self) -> Result<(), Stop> {
        if self.early.len() >= limits::BUFFER_BYTES {
            self.watching = Watching::No;
            return Ok(());
        }
        self.early.reserve(limits::BUFFER_BYTES);
        match self.stream.recv_spare(&mut self.early) {
            Ok(Received::Bytes(n)) => {
                self.early_bytes = self.early_bytes.saturating_add(n as u32);
                Ok(())
            }
            Ok(Received::WouldBlock) => Ok(()),
            Ok(Received::End) | Err(_) => Err(Stop::Gone),
        }
    }

    /// Bytes taken early and not yet counted.
    pub(crate) fn take_early_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.early_bytes).into()
    }

    /// Drops empty lines between requests (RFC 9112 §2.2): they are not the start of one.
    pub(crate) fn skip_empty_lines(&mut self) {
        let empty = self.early.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        self.early.drain(..empty);
    }

    /// Waits until there is something to read from it, or nothing more will come.
    ///
    /// Nothing but a reference is held meanwhile: idle connections wait here.
    pub(crate) fn readable(&mut self) -> impl Future<Output = Result<(), Interrupt>> {
        poll_fn(|cx| wait::poll_readable(self.slot, self.watch.as_mut(), cx))
    }

    /// Runs `operation` while watching the client, and whoever computes the prompt.
    ///
    /// # Errors
    /// [`Stop::Gone`] when the client leaves; a rejection when the deadline passes, everything ends, a higher class needs
    /// the request's place, or the prompt is not computed.
    pub(crate) async fn beside<T>(&mut self, operation: impl Future<Output = T>) -> Result<T, Stop> {
        let mut operation = pin!(operation);
        loop {
            let either = {
                let (notice, prefill) = (self.notice.as_deref(), &mut self.prefill);
                let operation = pin!(poll_fn(|cx| {
                    // Before the operation: the failure of one often shows as the failure of the other.
                    if let Some(Poll::Ready(error)) = prefill.as_mut().map(|prefill| prefill.poll_failed(cx))
                    {
                        return Poll::Ready(Err(error));
                    }
                    match (operation.as_mut().poll(cx), notice) {
                        (Poll::Ready(done), _) => Poll::Ready(Ok(done)),
                        (Poll::Pending, Some(notice)) => notice.poll(cx).map(Err),
                        (Poll::Pending, None) => Poll::Pending,
                    }
                }));
                wait::either(self.slot, operation, self.watch.as_mut(), self.watching).await
            };
            match either {
                Either::Done(done) => return done.map_err(Stop::Reject),
                Either::Other => self.take_early()?,
                Either::Interrupted(Interrupt::Deadline) => {
                    return Err(Stop::reject(
                        ErrorCode::UpstreamTimeout,
                        "the worker did not finish within the request timeout",
                    ));
                }
                Either::Interrupted(Interrupt::Ended) => {
                    return Err(Stop::reject(ErrorCode::ShuttingDown, "the gateway is shutting down"));
                }
                Either::Interrupted(Interrupt::Broken) => return Err(Stop::Gone),
            }
        }
    }

    /// Sends both pieces to the client, waiting for room where there is none: a slow client slows its worker. What it
    /// sends meanwhile is early.
    ///
    /// # Errors
    /// When the client is gone, also if it only leaves while it is waited for, or takes nothing for the body timeout.
    pub(crate) async fn send(
        &mut self,
        shard: &Shard,
        mut first: &[u8],
        mut second: &[u8],
    ) -> Result<(), ()> {
        let mut is_waiting = false;
        shard.stats.sent_bytes_total.add((first.len() + second.len()) as u64);
        while !first.is_empty() || !second.is_empty() {
            let pushed =
                if second.is_empty() { self.stream.send(first) } else { self.stream.send_two(first, second) };
            match pushed.map_err(drop)? {
                0 => {
                    is_waiting = true;
                    self.shorten_deadline(shard.clock.deadline_ms(shard.config().body_timeout));
                    let stream = self.stream;
                    self.beside(stream.writable()).await.map_err(drop)?.map_err(drop)?;
                }
                n if n < first.len() => first = &first[n..],
                n => {
                    second = &second[n - first.len()..];
                    first = b"";
                }
            }
        }
        if is_waiting {
            self.restore_deadline();
        }
        Ok(())
    }

    /// The answer begins: whoever computed its prompt may end in peace.
    pub(crate) fn let_prefill_go(&mut self) {
        self.prefill.take().into_iter().for_each(Prefill::let_go);
    }
}

impl Patience for Client<'_> {
    fn beside<T>(&mut self, operation: impl Future<Output = T>) -> impl Future<Output = Result<T, Stop>> {
        self.beside(operation)
    }

    async fn within<T>(
        &mut self,
        shard: &Shard,
        time: Duration,
        operation: impl Future<Output = T>,
    ) -> Result<Option<T>, Stop> {
        self.shorten_deadline(shard.clock.deadline_ms(time));
        let done = self.beside(operation).await;
        self.restore_deadline();
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Stop::Reject(error))
                if error.code == ErrorCode::UpstreamTimeout && !self.is_overdue(shard.clock.coarse_ms()) =>
            {
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }
}
