//! Runs a trace through a router and a fleet of simulated engines: discrete events in virtual time.
//!
//! Invariants
//! - Equal arguments give equal results: no clock is read and nothing iterates in an order of its own.
//! - Every request finishes exactly once; afterwards nothing is in flight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::Engine;
use crate::engine::EngineConfig;
use crate::engine::Progress;
use crate::engine::RequestIndex;
use crate::measure::Measures;
use crate::measure::Outcome;
use crate::router::Arrival;
use crate::router::Router;
use crate::router::WorkerIndex;
use crate::trace::Trace;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When the trace says, this many times as fast. Nobody waits for an answer.
    Recorded {
        /// Above 0.
        speedup: f64,
    },
    /// As the trace says, stretched to this many requests a second on average.
    Rate {
        /// Above 0.
        requests_per_s: f64,
    },
    /// In the trace's order, each as soon as one of the others finished: so many are in flight at any time.
    Closed {
        /// At least 1.
        concurrency: usize,
    },
}

/// What a trace is run over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// When requests are sent.
    pub pace: Pace,
    /// Engines, all alike; at least 1.
    pub workers: usize,
    /// What each is.
    pub engine: EngineConfig,
}

/// Something that happens. Of two at the same time, the one that was scheduled first comes first.
type Event = Reverse<(u64, u64, Happening)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives(RequestIndex),
    Turns(WorkerIndex),
}

struct Simulation<'t, 'r> {
    trace: &'t Trace,
    pace: Pace,
    router: &'r mut dyn Router,
    engines: Vec<Engine<'t>>,
    /// By request: who got it.
    placed: Vec<WorkerIndex>,
    events: BinaryHeap<Event>,
    scheduled: u64,
    /// The next request to send.
    next: RequestIndex,
    measures: Measures,
}

/// Runs the whole trace.
pub fn run(trace: &Trace, plan: &Plan, router: &mut dyn Router) -> Outcome {
    let workers = plan.workers.max(1);
    let mut simulation = Simulation {
        trace,
        pace: scaled(plan.pace, trace),
        router,
        engines: (0..workers).map(|_| Engine::new(plan.engine)).collect(),
        placed: vec![0; trace.requests().len()],
        events: BinaryHeap::new(),
        scheduled: 0,
        next: 0,
        measures: Measures::new(workers, trace.requests().len()),
    };
    simulation.run();
    simulation.measures.outcome(simulation.engines.iter().map(Engine::stats))
}

/// A rate as the speed-up that gives it. A trace that arrives at once has no rate to change.
fn scaled(pace: Pace, trace: &Trace) -> Pace {
    match pace {
        Pace::Rate { requests_per_s } => Pace::Recorded {
            speedup: trace.requests_per_s().map_or(1.0, |recorded| requests_per_s / recorded),
        },
        Pace::Recorded { .. } | Pace::Closed { .. } => pace,
    }
}

// === impl Simulation ===

impl Simulation<'_, '_> {
    fn run(&mut self) {
        let first = match self.pace {
            Pace::Closed { concurrency } => concurrency.max(1),
            Pace::Recorded { .. } | Pace::Rate { .. } => 1,
        };
        (0..first).for_each(|_| self.send_next(0));
        let mut progress = Vec::new();
        while let Some(Reverse((now_us, _, happening))) = self.events.pop() {
            match happening {
                Happening::Arrives(request) => self.arrive(request, now_us),
                Happening::Turns(worker) => {
                    let ends_us = self.engines[worker].turn(now_us, &mut progress);
                    self.schedule_turn(worker, ends_us);
                    progress.drain(..).for_each(|step| self.note(worker, step, now_us));
                }
            }
        }
    }

    /// Schedules the next arrival: at its time, or now if requests wait for each other.
    fn send_next(&mut self, now_us: u64) {
        let Some(request) = self.trace.requests().get(self.next) else { return };
        let at_us = match self.pace {
            Pace::Recorded { speedup } => (request.at_us as f64 / speedup) as u64,
            Pace::Closed { .. } | Pace::Rate { .. } => now_us,
        };
        self.schedule(at_us.max(now_us), Happening::Arrives(self.next));
        self.next += 1;
    }

    fn arrive(&mut self, index: RequestIndex, now_us: u64) {
        let request = &self.trace.requests()[index];
        let worker = self.router.choose(&Arrival { index, request, engines: &self.engines, now_us });
        assert!(worker < self.engines.len(), "a router chooses an engine of the fleet");
        self.placed[index] = worker;
        self.measures.arrived(index, worker, now_us);
        let ends_us = self.engines[worker].submit(index, request, now_us);
        self.schedule_turn(worker, ends_us);
        if !matches!(self.pace, Pace::Closed { .. }) {
            self.send_next(now_us);
        }
    }

    fn note(&mut self, worker: WorkerIndex, progress: Progress, now_us: u64) {
        match progress {
            Progress::FirstToken { request, .. } => {
                self.measures.first_token(request, now_us);
                self.router.first_token(request, worker);
            }
            Progress::Finished { request } => {
                debug_assert_eq!(self.placed[request], worker, "a request stays where it was placed");
                self.measures.finished(request, worker, now_us);
                self.router.finished(request, worker);
                if matches!(self.pace, Pace::Closed { .. }) {
                    self.send_next(now_us);
                }
            }
        }
    }

    fn schedule_turn(&mut self, worker: WorkerIndex, ends_us: Option<u64>) {
        if let Some(ends_us) = ends_us {
            self.schedule(ends_us, Happening::Turns(worker));
        }
    }

    fn schedule(&mut self, at_us: u64, happening: Happening) {
        self.events.push(Reverse((at_us, self.scheduled, happening)));
        self.scheduled += 1;
    }
}

#[cfg(test)]
mod tests;
