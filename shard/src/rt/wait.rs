//! Waiting: for a socket, with a deadline, and for what else may end the wait.
//!
//! Every connection has one [`Slot`]: its deadline and its waker. The shard's tick looks through the slots, so a
//! deadline costs a store instead of a timer, and draining can wake whoever sits idle.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use pin_project_lite::pin_project;

/// A socket's readiness, as something that can be polled again and again.
///
/// The pending operation outlives a wait that ended for another reason, so a socket that is watched all along costs
/// one operation per event and no cancellation.
pub(crate) trait Readiness {
    /// Ready when the socket may be read; the next call waits anew.
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

pin_project! {
    /// The [`Readiness`] of one socket: makes the wait operation when first polled, keeps it until it is done.
    pub(crate) struct Watch<M, F> {
        make: M,
        #[pin]
        pending: Option<F>,
    }
}

impl<M: Fn() -> F, F: Future<Output = io::Result<()>>> Watch<M, F> {
    pub(crate) fn new(make: M) -> Self {
        Self { make, pending: None }
    }
}

impl<M: Fn() -> F, F: Future<Output = io::Result<()>>> Readiness for Watch<M, F> {
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        if this.pending.is_none() {
            this.pending.set(Some((this.make)()));
        }
        match this.pending.as_mut().as_pin_mut() {
            Some(pending) => {
                let ready = std::task::ready!(pending.poll(cx));
                this.pending.set(None);
                Poll::Ready(ready)
            }
            None => Poll::Pending,
        }
    }
}

/// Why a wait ended without the socket being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The slot's deadline passed.
    Deadline,
    /// The shard drains and the connection was idle, or the process stops at once.
    Ended,
    /// The socket is broken.
    Broken,
}

/// A connection's place in the tick: when to wake it, and how.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Coarse time at which the wait ends; 0 for never.
    deadline_ms: Cell<u64>,
    is_idle: Cell<bool>,
    interrupt: Cell<Option<Interrupt>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    /// Marks the connection busy until `deadline_ms`.
    ///
    /// A sweep that came for it while it was idle has come too late: a request is there.
    pub(crate) fn busy_until(&self, deadline_ms: u64) {
        if self.is_idle.replace(false) {
            self.interrupt.set(None);
        }
        self.deadline_ms.set(deadline_ms);
    }

    /// Marks the connection idle: draining closes it.
    pub(crate) fn idle_until(&self, deadline_ms: u64) {
        self.is_idle.set(true);
        self.deadline_ms.set(deadline_ms);
    }

    fn poll_interrupt(&self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if let Some(interrupt) = self.interrupt.take() {
            return Poll::Ready(interrupt);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the current wait, or the next one, with `interrupt`.
    pub(crate) fn interrupt(&self, interrupt: Interrupt) {
        self.interrupt.set(Some(interrupt));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Forgets a deadline that passed just as the wait ended for a better reason.
    pub(crate) fn settle(&self) {
        if self.interrupt.get() == Some(Interrupt::Deadline) {
            self.interrupt.set(None);
        }
    }
}

/// The slots of a shard's connections.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: RefCell<Vec<Rc<Slot>>>,
}

/// What the tick has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// Waits whose deadline passed.
    Expired,
    /// Also every idle connection.
    Idle,
    /// Every connection.
    All,
}

impl Slots {
    /// A new slot. It is forgotten when its connection has dropped it.
    pub(crate) fn register(&self) -> Rc<Slot> {
        let slot = Rc::new(Slot::default());
        self.slots.borrow_mut().push(Rc::clone(&slot));
        slot
    }

    /// Wakes whoever `sweep` says at coarse time `now_ms`, and forgets slots of closed connections.
    pub(crate) fn sweep(&self, now_ms: u64, sweep: Sweep) {
        // Waking only queues a task, so no connection runs, or registers, under this borrow.
        self.slots.borrow_mut().retain(|slot| {
            if Rc::strong_count(slot) == 1 {
                return false;
            }
            let deadline_ms = slot.deadline_ms.get();
            if sweep == Sweep::All || (sweep == Sweep::Idle && slot.is_idle.get()) {
                slot.interrupt(Interrupt::Ended);
            } else if deadline_ms != 0 && now_ms >= deadline_ms {
                slot.interrupt(Interrupt::Deadline);
            }
            true
        });
    }
}

/// Lets everybody else on this shard have a turn.
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ready when the socket may be read.
pub(crate) fn poll_readable(
    slot: &Slot,
    watch: Pin<&mut dyn Readiness>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Interrupt>> {
    if let Poll::Ready(ready) = watch.poll_ready(cx) {
        slot.settle();
        return Poll::Ready(ready.map_err(|_| Interrupt::Broken));
    }
    slot.poll_interrupt(cx).map(Err)
}

/// Waits until `operation` is done.
pub(crate) async fn complete<T>(
    slot: &Slot,
    operation: impl Future<Output = io::Result<T>>,
) -> Result<io::Result<T>, Interrupt> {
    let mut operation = std::pin::pin!(operation);
    poll_fn(|cx| {
        if let Poll::Ready(done) = operation.as_mut().poll(cx) {
            slot.settle();
            return Poll::Ready(Ok(done));
        }
        slot.poll_interrupt(cx).map(Err)
    })
    .await
}

/// Waits for `operation` while watching a second socket; whichever comes first.
pub(crate) async fn either<T>(
    slot: &Slot,
    mut operation: Pin<&mut impl Future<Output = T>>,
    mut other: Pin<&mut dyn Readiness>,
    watching: Watching,
) -> Either<T> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = operation.as_mut().poll(cx) {
            slot.settle();
            return Poll::Ready(Either::Done(done));
        }
        if watching == Watching::Yes && other.as_mut().poll_ready(cx).is_ready() {
            return Poll::Ready(Either::Other);
        }
        slot.poll_interrupt(cx).map(Either::Interrupted)
    })
    .await
}

/// Whether [`either`] looks at the second socket at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watching {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// How [`either`] ended.
#[derive(Debug)]
pub(crate) enum Either<T> {
    /// The operation is done.
    Done(T),
    /// The second socket became readable.
    Other,
    /// Neither.
    Interrupted(Interrupt),
}
