//! The control loop: waits for events, applies them, publishes once, then carries out the orders.
//!
//! It sleeps when nothing happens. While reports flow it looks at them once per
//! [`PUBLISH_INTERVAL`](crate::control::limits::PUBLISH_INTERVAL), so its cost does not grow with the request rate;
//! admin calls and results of services wake it at once.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use crossbeam_channel::Select;
use crossbeam_channel::TryRecvError;
use crossbeam_channel::never;
use fleet::admin::AdminCall;
use fleet::cell::Lifecycle;
use fleet::cell::Phase;
use fleet::report::Report;
use fleet::snapshot::Snapshot;
use fleet::stats::ShardStats;
use tracing::debug;

use crate::admin::answer;
use crate::control::event::Event;
use crate::control::limits;
use crate::control::state::Order;
use crate::control::state::State;
use crate::services::ServicesHandle;

/// The roads between control and the other threads.
#[derive(Debug)]
pub struct Doors {
    /// From shards: what they noticed.
    pub reports: Receiver<Vec<Report>>,
    /// From shards: what only control can answer.
    pub admin: Receiver<AdminCall>,
    /// From services: what became of tasks, and signals.
    pub results: Receiver<Event>,
    /// To services.
    pub services: ServicesHandle,
    /// Where shards find what to route by.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where shards find whether to go on.
    pub lifecycle: Arc<Lifecycle>,
    /// The metrics page, where shards hand over requests for it.
    pub metrics: Option<MetricsPage>,
    /// The counters of every shard, to know when the last request has ended.
    pub shard_stats: Vec<Arc<ShardStats>>,
}

/// Makes the metrics page.
#[derive(Clone)]
pub struct MetricsPage(pub Arc<dyn Fn() -> String + Send + Sync>);

impl std::fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsPage")
    }
}

/// Starts the control thread. It ends when the process has drained, or was told to stop.
///
/// `start` is what shards count their time from.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(state: State, doors: Doors, start: Instant) -> io::Result<JoinHandle<()>> {
    let control =
        Control { state, doors, start, events: Vec::new(), orders: Vec::new(), reports_due: Duration::ZERO };
    std::thread::Builder::new().name("control".to_owned()).spawn(move || control.run())
}

struct Control {
    state: State,
    doors: Doors,
    start: Instant,
    /// What this turn takes in; kept for its capacity.
    events: Vec<Event>,
    orders: Vec<Order>,
    /// Reports are left alone until then.
    reports_due: Duration,
}

// === impl Control ===

impl Control {
    fn run(mut self) {
        while self.doors.lifecycle.phase() != Phase::Stopping {
            self.wait();
            self.turn();
        }
        debug!("control has ended");
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Blocks until there is something to do.
    fn wait(&self) {
        let now = self.now();
        let mut select = Select::new();
        select.recv(&self.doors.admin);
        select.recv(&self.doors.results);
        let mut deadline = self.state.next_deadline();
        if now >= self.reports_due {
            select.recv(&self.doors.reports);
        } else {
            deadline = Some(deadline.map_or(self.reports_due, |deadline| deadline.min(self.reports_due)));
        }
        match deadline {
            Some(deadline) => drop(select.ready_timeout(deadline.saturating_sub(now))),
            None => drop(select.ready()),
        }
    }

    fn turn(&mut self) {
        let now = self.now();
        let mut events = std::mem::take(&mut self.events);
        self.take_in(now, &mut events);
        for event in events.drain(..) {
            self.state.apply(event, now, &mut self.orders);
        }
        self.events = events;
        let requests_active = self.doors.shard_stats.iter().map(|stats| stats.requests_active.get()).sum();
        self.state.apply(Event::Tick { requests_active }, now, &mut self.orders);
        loop {
            // Before the replies: who is told that a worker was added may use it at once.
            if let Some(snapshot) = self.state.publication(now) {
                // Before readiness says so: who reads there that a worker is healthy may count on its getting requests.
                self.state.admit_newcomers();
                self.doors.snapshot.store(Arc::new(snapshot));
            }
            self.doors.lifecycle.advance(self.state.phase());
            self.carry_out(now);
            // Tasks that services had no room for have failed, which may have led to more orders.
            if self.orders.is_empty() {
                break;
            }
        }
    }

    /// Empties the inboxes, each up to its share of a turn.
    fn take_in(&mut self, now: Duration, events: &mut Vec<Event>) {
        let Doors { reports, admin, results, .. } = &mut self.doors;
        drain(results, limits::EVENTS_PER_TURN_MAX, |event| events.push(event));
        drain(admin, limits::EVENTS_PER_TURN_MAX, |call| events.push(Event::Admin(call)));
        if now >= self.reports_due {
            let before = events.len();
            drain(reports, limits::BATCHES_PER_TURN_MAX, |batch| events.push(Event::Reports(batch)));
            if events.len() > before {
                self.reports_due = now + limits::PUBLISH_INTERVAL;
            }
        }
    }

    fn carry_out(&mut self, now: Duration) {
        for order in std::mem::take(&mut self.orders) {
            match order {
                // Whoever asked may have left.
                Order::Export { to, export } => drop(to.try_send(export)),
                Order::Reply { to, reply } => drop(to.send(reply)),
                Order::Metrics { to } => {
                    let page = self.doors.metrics.as_ref().map(|page| (page.0)());
                    let _ = to.send(answer::metrics(page.unwrap_or_default()));
                }
                Order::Task(task) => {
                    if let Err(task) = self.doors.services.send(task) {
                        self.state.apply(task.refused(), now, &mut self.orders);
                    }
                }
            }
        }
    }
}

/// Takes up to `max` messages. A channel whose senders are gone is replaced by one that never wakes anybody.
fn drain<T>(from: &mut Receiver<T>, max: usize, mut take: impl FnMut(T)) {
    for _ in 0..max {
        match from.try_recv() {
            Ok(message) => take(message),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                // Shards end before control does when the process drains.
                debug!(inbox = std::any::type_name::<T>(), "an inbox of control has lost its senders");
                *from = never();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
