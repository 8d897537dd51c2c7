//! One client connection: idle until readable, then one exchange after another.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;

use api::error::ErrorCode;
use fleet::cell::Phase;
use monoio::net::TcpStream;

use crate::exchange;
use crate::intake::Stop;
use crate::limits;
use crate::rt::socket;
use crate::rt::socket::Received;
use crate::rt::wait;
use crate::rt::wait::Either;
use crate::rt::wait::Interrupt;
use crate::rt::wait::Readiness;
use crate::rt::wait::Slot;
use crate::rt::wait::Watch;
use crate::rt::wait::Watching;
use crate::rt::wait::readable;
use crate::state::ConnectionPermit;
use crate::state::Shard;

/// The client's side of a connection, as an exchange sees it.
pub(crate) struct Client<'a> {
    pub(crate) stream: &'a TcpStream,
    pub(crate) slot: &'a Slot,
    /// Bytes read behind the last request: the start of a pipelined one.
    pub(crate) early: Vec<u8>,
    /// When the exchange must be over.
    deadline_ms: u64,
    /// Whether the socket is still watched for the client's leaving. Not once more has come early than is kept:
    /// then it stays readable.
    watching: Watching,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another request may follow.
    KeepAlive,
    /// It is closed.
    Close,
}

/// Serves a connection until either side is done with it.
///
/// While it is idle, this future is all it costs: it holds no buffer, and the much larger future of an exchange is
/// boxed and gone between requests.
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, _permit: ConnectionPermit) {
    let slot = shard.slots.register();
    // Epoll must check readiness anew (`relaxed` is false), since reads happen behind the driver's back.
    let mut watch = pin!(Watch::new(|| stream.readable(false)));
    let mut client =
        Client { stream: &stream, slot: &slot, early: Vec::new(), deadline_ms: 0, watching: Watching::Yes };
    loop {
        if client.early.is_empty() {
            slot.idle_until(shard.clock.deadline_ms(shard.config.keep_alive_timeout));
            if readable(&slot, watch.as_mut()).await.is_err() {
                break;
            }
        }
        let next = exchange::boxed(&shard, &mut client, watch.as_mut()).await;
        client.skip_empty_lines();
        if next == Next::Close || shard.lifecycle.phase() != Phase::Running {
            break;
        }
    }
    socket::shutdown_write(&stream);
}

// === impl Client ===

impl Client<'_> {
    /// Takes over for one exchange.
    pub(crate) fn begin_exchange(&mut self) {
        self.early = Vec::new();
        self.deadline_ms = 0;
        self.watching = Watching::Yes;
    }

    /// Sets when the exchange must be over, in coarse time.
    pub(crate) fn set_deadline(&mut self, deadline_ms: u64) {
        self.deadline_ms = deadline_ms;
        self.slot.busy_until(deadline_ms);
    }

    /// Sets an earlier deadline for one step; [`Client::restore_deadline`] ends it.
    pub(crate) fn shorten_deadline(&self, step_deadline_ms: u64) {
        let deadline_ms =
            if self.deadline_ms == 0 { step_deadline_ms } else { step_deadline_ms.min(self.deadline_ms) };
        self.slot.busy_until(deadline_ms);
    }

    /// Goes back to the deadline of the exchange.
    pub(crate) fn restore_deadline(&self) {
        self.slot.busy_until(self.deadline_ms);
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
        match socket::recv_spare(self.stream, &mut self.early) {
            Ok(Received::Bytes(_) | Received::WouldBlock) => Ok(()),
            Ok(Received::End) | Err(_) => Err(Stop::Gone),
        }
    }

    /// Drops empty lines between requests (RFC 9112 §2.2): they are not the start of one.
    fn skip_empty_lines(&mut self) {
        let empty = self.early.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        self.early.drain(..empty);
    }

    /// Runs `operation` while watching the client.
    ///
    /// # Errors
    /// [`Stop::Gone`] when the client leaves; a rejection when the deadline passes or everything ends.
    pub(crate) async fn beside<T>(
        &mut self,
        mut watch: Pin<&mut dyn Readiness>,
        operation: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let mut operation = pin!(operation);
        loop {
            match wait::either(self.slot, operation.as_mut(), watch.as_mut(), self.watching).await {
                Either::Done(done) => return Ok(done),
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
}
