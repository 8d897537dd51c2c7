//! The services thread: a tokio runtime for everything that takes a socket and is not on the request path.
//!
//! It carries out control's [`Task`]s, turns signals into events, and runs what else the process needs (the metrics
//! listener) beside them.
//!
//! Invariants
//! - Nothing here blocks: an inbox of control that is full is tried again.
//! - Checks, polls and calls have lanes of their own, so that workers which do not answer delay no admin call, and
//!   polls no check.

mod client;
mod describe;
#[cfg(test)]
pub(crate) mod fake_worker;
pub(crate) mod jwks;
mod limits;
mod poll;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError as TaskError;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tracing::info;

use crate::control::destination::Destinations;
use crate::control::event::Event;
use crate::control::event::Probe;
use crate::control::limits::CALLS_PARALLEL_MAX;
use crate::control::limits::CHECKS_QUEUED_MAX;
use crate::control::limits::POLLS_QUEUED_MAX;
use crate::control::poll::Polled;
use crate::control::task::Task;
use crate::services::client::Client;
use crate::tls;

/// Something else to run on this thread for as long as it lives.
pub type ExtraTask = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The way to the services thread. It ends when the handle is dropped.
#[derive(Debug)]
pub struct ServicesHandle {
    checks: mpsc::Sender<Task>,
    polls: mpsc::Sender<Task>,
    calls: mpsc::Sender<Task>,
    /// Dropping it ends the thread, whatever is under way there.
    _alive: oneshot::Sender<()>,
}

// === impl ServicesHandle ===

impl ServicesHandle {
    /// Hands a task over.
    ///
    /// # Errors
    /// Gives the task back when there is no room for it, or nobody left to carry it out.
    pub fn send(&self, task: Task) -> Result<(), Task> {
        let lane = match task {
            Task::Probe { .. } | Task::Describe { .. } => &self.checks,
            Task::Poll { .. } => &self.polls,
            Task::Call { .. } => &self.calls,
        };
        lane.try_send(task).map_err(|error| match error {
            TaskError::Full(task) | TaskError::Closed(task) => task,
        })
    }
}

/// The services thread, about to be started.
#[derive(Debug)]
pub struct Services {
    runtime: Runtime,
    /// What tells the process to end.
    ends: [Signal; 2],
}

// === impl Services ===

impl Services {
    /// What the thread needs. From now on the process is ended by its own code alone when it is told to.
    ///
    /// # Errors
    /// When the runtime cannot be made, or signals cannot be caught.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ends = {
            let _entered = runtime.enter();
            [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
        };
        Ok(Self { runtime, ends })
    }

    /// Catches a signal from now on, for a task of the thread: one that comes before the task's first turn neither ends
    /// the process nor is lost.
    ///
    /// # Errors
    /// When it cannot be caught.
    pub fn catch(&self, kind: SignalKind) -> io::Result<Signal> {
        let _entered = self.runtime.enter();
        signal(kind)
    }

    /// Starts the thread, which goes to workers at `destinations` only, and to those with TLS by `tls`. What becomes of
    /// tasks, and signals, go to `results`.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn spawn(
        self,
        results: Sender<Event>,
        destinations: Destinations,
        tls: &tls::Client,
        extra: Vec<ExtraTask>,
    ) -> io::Result<(ServicesHandle, JoinHandle<()>)> {
        let Self { runtime, ends } = self;
        let (checks, checks_inbox) = mpsc::channel(CHECKS_QUEUED_MAX);
        let (polls, polls_inbox) = mpsc::channel(POLLS_QUEUED_MAX);
        let (calls, calls_inbox) = mpsc::channel(CALLS_PARALLEL_MAX);
        let (alive, ended) = oneshot::channel::<()>();
        let client = Client::try_new(destinations, tls).map_err(io::Error::other)?;
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                for task in extra {
                    tokio::task::spawn_local(task());
                }
                for signal in ends {
                    tokio::task::spawn_local(watch(signal, results.clone()));
                }
                let client = Rc::new(client);
                let lane =
                    |inbox, parallel_max| Lane { inbox, parallel_max, results: results.clone() }.run(&client);
                let lanes = async {
                    tokio::join!(
                        lane(checks_inbox, limits::CHECKS_PARALLEL_MAX),
                        lane(polls_inbox, limits::POLLS_PARALLEL_MAX),
                        lane(calls_inbox, CALLS_PARALLEL_MAX),
                    )
                };
                tokio::select! {
                    _ = ended => {}
                    _ = lanes => {}
                }
            });
            // A look-up that hangs must not hold the process up.
            runtime.shutdown_background();
        })?;
        Ok((ServicesHandle { checks, polls, calls, _alive: alive }, thread))
    }
}

/// Tells control about every signal.
async fn watch(mut signal: Signal, results: Sender<Event>) {
    while signal.recv().await.is_some() {
        info!("told to end");
        deliver(Event::Terminate, &results).await;
    }
}

/// Tasks of one kind, so many at once.
struct Lane {
    inbox: mpsc::Receiver<Task>,
    parallel_max: usize,
    results: Sender<Event>,
}

impl Lane {
    /// Carries out tasks until nobody can send any more.
    async fn run(mut self, client: &Rc<Client>) {
        let permits = Arc::new(Semaphore::new(self.parallel_max));
        // The permit comes first: what has none waits in the inbox, whose length is bounded.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let Some(task) = self.inbox.recv().await else { return };
            let (client, results) = (Rc::clone(client), self.results.clone());
            tokio::task::spawn_local(async move {
                let event = carry_out(task, &client).await;
                deliver(event, &results).await;
                drop(permit);
            });
        }
    }
}

async fn carry_out(task: Task, client: &Client) -> Event {
    match task {
        Task::Probe { worker, target, ask, lookup, timeout } => {
            let probe = tokio::time::timeout(timeout, client.probe(&target, &ask, lookup));
            Event::Probed { worker, probe: probe.await.unwrap_or_else(|_| Probe::timed_out()) }
        }
        Task::Describe { worker, target } => {
            let metadata = describe::describe(client, &target).await;
            Event::Described { worker, metadata: Box::new(metadata) }
        }
        Task::Poll { worker, target, endpoints } => {
            let polled = tokio::time::timeout(limits::POLL_TIMEOUT, poll::poll(client, &target, endpoints));
            let polled = polled.await.unwrap_or_else(|_| Polled::failed(endpoints));
            Event::Polled { worker, polled: Box::new(polled) }
        }
        Task::Call { ticket, question, targets } => {
            Event::Called { ticket, answers: client.ask_all(&question, &targets).await }
        }
    }
}

/// Brings an event to control, however long its inbox is full.
pub(crate) async fn deliver(mut event: Event, results: &Sender<Event>) {
    loop {
        match results.try_send(event) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(back)) => event = back,
        }
        tokio::time::sleep(limits::DELIVERY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
