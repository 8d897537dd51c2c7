//! The engine's shell: gives the scheduler the time, and wakes the requests it starts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderMap;

use crate::clock;
use crate::config::EngineConfig;
use crate::fault::FaultPlan;
use crate::scheduler::{Admission, Refusal, RequestId, Scheduler, Submission};
use crate::stats::StatsCell;
use crate::token::mix;

/// What the engine shows to the threads that hold its handle.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) stats: StatsCell,
    pub(crate) faults: ArcSwap<FaultPlan>,
}

/// One engine; it lives in one thread.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: EngineConfig,
    /// The port it really listens on.
    pub(crate) port: u16,
    /// When it started, in seconds since 1970.
    pub(crate) started_unix_s: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) last: RefCell<Option<LastRequest>>,
    scheduler: RefCell<Scheduler>,
    waiters: RefCell<HashMap<RequestId, Waiter>>,
    draws: Cell<u64>,
    answers: Cell<u64>,
}

/// The last POST, for tests that compare what was sent with what arrived.
#[derive(Debug)]
pub(crate) struct LastRequest {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug, Default)]
struct Waiter {
    admission: Option<Admission>,
    waker: Option<Waker>,
}

/// A request's place, in the queue or beside it. Dropped before it finished, the request is aborted.
#[derive(Debug)]
pub(crate) struct Ticket {
    engine: Rc<Engine>,
    id: RequestId,
    finished: bool,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(config: EngineConfig, port: u16, shared: Arc<Shared>) -> Engine {
        Engine {
            scheduler: RefCell::new(Scheduler::new(config.clone())),
            draws: Cell::new(config.seed),
            config,
            port,
            started_unix_s: clock::unix_s(),
            shared,
            last: RefCell::default(),
            waiters: RefCell::default(),
            answers: Cell::new(0),
        }
    }

    pub(crate) fn submit(self: &Rc<Self>, submission: Submission) -> Result<Ticket, Refusal> {
        let submitted = self.with_scheduler(|scheduler| scheduler.submit(submission, clock::now()));
        let (id, admission) = submitted?;
        self.waiters.borrow_mut().insert(id, Waiter { admission, waker: None });
        Ok(Ticket { engine: Rc::clone(self), id, finished: false })
    }

    /// Runs `act` on the scheduler, then shows the counters it left.
    pub(crate) fn with_scheduler<T>(&self, act: impl FnOnce(&mut Scheduler) -> T) -> T {
        let mut scheduler = self.scheduler.borrow_mut();
        let result = act(&mut scheduler);
        self.shared.stats.store(scheduler.stats());
        result
    }

    /// The next number from 0 to 1 of the seeded stream.
    pub(crate) fn draw(&self) -> f64 {
        self.draws.set(self.draws.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        (mix(self.draws.get(), 1) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number no other answer of this engine has.
    pub(crate) fn answer_number(&self) -> u64 {
        self.answers.set(self.answers.get() + 1);
        self.answers.get()
    }

    fn admit(&self, started: Option<(RequestId, Admission)>) {
        let Some((id, admission)) = started else { return };
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiter) = waiters.get_mut(&id) else { return };
        waiter.admission = Some(admission);
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
    }
}

// === impl Ticket ===

impl Ticket {
    /// Waits for a place.
    pub(crate) async fn admitted(&self) -> Admission {
        poll_fn(|context| {
            let mut waiters = self.engine.waiters.borrow_mut();
            let waiter = waiters.entry(self.id).or_default();
            if let Some(admission) = waiter.admission {
                return Poll::Ready(admission);
            }
            waiter.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub(crate) fn first_token(&self) {
        self.engine.with_scheduler(|scheduler| scheduler.first_token(self.id));
    }

    pub(crate) fn finish(mut self, answer: &[u32]) {
        self.finished = true;
        let now = clock::now();
        let started = self.engine.with_scheduler(|scheduler| scheduler.finish(self.id, answer, now));
        self.engine.admit(started);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.engine.waiters.borrow_mut().remove(&self.id);
        if !self.finished {
            let now = clock::now();
            let started = self.engine.with_scheduler(|scheduler| scheduler.abort(self.id, now));
            self.engine.admit(started);
        }
    }
}
