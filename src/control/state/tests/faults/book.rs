//! What must be so, kept by plain counting: breakers, the budget, and how every request ended.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::breaker::BreakerRules;
use fleet::breaker::Circuit;
use fleet::breaker::Outcome;
use fleet::breaker::Pass;
use fleet::id::WorkerId;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use shard::retry::Failed;
use shard::retry::GiveUp;
use shard::retry::RetryRules;

use super::flight::End;
use super::flight::Flight;
use super::flight::Phase;

/// How often something came up.
pub(super) type Seen = BTreeMap<&'static str, u64>;

/// What must come up, over all seeds.
pub(super) const EXPECTED: [&str; 22] = [
    "crash",
    "restart",
    "stall",
    "partition",
    "complete",
    "client left",
    "left the queue",
    "left while a probe",
    "queue full",
    "queue timeout",
    "no workers",
    "exhausted",
    "denied",
    "too long",
    "broken",
    "timed out",
    "second round",
    "opened",
    "probed",
    "closed",
    "full",
    "ejected",
];

/// A breaker by its definition.
struct Model {
    circuit: Circuit,
    /// When the failures in a row were.
    row: Vec<u64>,
    opened_ms: u64,
    /// Counts its half-open periods.
    period: u64,
    successes: u32,
    probes: u32,
}

/// The budget by its definition, in hundredths.
pub(super) struct Budget {
    percent: u64,
    parts: u64,
    at_ms: u64,
}

pub(super) struct Book {
    rules: BreakerRules,
    breakers: BTreeMap<WorkerId, Model>,
    pub(super) budget: Budget,
    ends: Vec<Option<End>>,
    pub(super) seen: Seen,
}

const FULL: u64 = 10_000;

impl Budget {
    pub(super) fn deposit(&mut self) {
        self.parts = (self.parts + self.percent).min(FULL);
    }

    pub(super) fn withdraw(&mut self, now_ms: u64) -> bool {
        let parts = (self.parts + now_ms.saturating_sub(self.at_ms)).min(FULL);
        if parts < 100 {
            return false;
        }
        (self.parts, self.at_ms) = (parts - 100, self.at_ms.max(now_ms));
        true
    }
}

impl Model {
    fn new() -> Self {
        Self { circuit: Circuit::Closed, row: Vec::new(), opened_ms: 0, period: 0, successes: 0, probes: 0 }
    }

    fn may_pass(&self, rules: &BreakerRules) -> bool {
        match self.circuit {
            Circuit::Closed => true,
            Circuit::Open => false,
            Circuit::HalfOpen => self.successes + self.probes < rules.success_threshold,
        }
    }

    fn open(&mut self, now_ms: u64) {
        (self.circuit, self.opened_ms) = (Circuit::Open, now_ms);
        (self.successes, self.probes) = (0, 0);
        self.row.clear();
    }
}

impl Book {
    pub(super) fn new(rules: BreakerRules, percent: u32) -> Self {
        Self {
            rules,
            breakers: BTreeMap::new(),
            budget: Budget { percent: percent.into(), parts: FULL, at_ms: 0 },
            ends: Vec::new(),
            seen: Seen::new(),
        }
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A request arrives; its number.
    pub(super) fn arrived(&mut self) -> u64 {
        self.ends.push(None);
        self.ends.len() as u64 - 1
    }

    pub(super) fn ended(&mut self, flight: &Flight, end: End) {
        let before = self.ends[flight.number as usize].replace(end);
        assert_eq!(before, None, "request {} ends twice", flight.number);
        self.note(match end {
            End::Complete => "complete",
            End::ClientLeft => "client left",
            End::QueueFull => "queue full",
            End::QueueTimeout => "queue timeout",
            End::NoWorkers | End::GaveUp(GiveUp::Nobody) => "no workers",
            End::GaveUp(GiveUp::Exhausted) => "exhausted",
            End::GaveUp(GiveUp::Denied) => "denied",
            End::GaveUp(GiveUp::TooLong) => "too long",
            End::Broken => "broken",
            End::TimedOut => "timed out",
        });
        if end == End::ClientLeft && matches!(flight.phase, Phase::Queued { .. }) {
            self.note("left the queue");
        }
        if end == End::ClientLeft && flight.period > 0 && !flight.is_judged {
            self.note("left while a probe");
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.ends.iter().all(Option::is_some)
    }

    pub(super) fn requests(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Members that would get a request by what this shard knows.
    pub(super) fn routable(&self, snapshot: &Snapshot, pool: &Pool) -> Vec<WorkerId> {
        let is_present = |index: &&u32| pool.board.cost(**index).is_some();
        let workers = pool.members.iter().filter(is_present);
        let ids = workers.filter_map(|&index| snapshot.fleet.workers.get(index)).map(|worker| worker.id);
        ids.filter(|id| self.breakers.get(id).is_none_or(|model| model.may_pass(&self.rules))).collect()
    }

    /// A request was sent to a worker; the period that it probes, if it does.
    pub(super) fn admitted(&mut self, id: WorkerId) -> u64 {
        let model = self.breakers.entry(id).or_insert_with(Model::new);
        assert!(model.may_pass(&self.rules), "{id:?} gets a request while {:?}", model.circuit);
        if model.circuit != Circuit::HalfOpen {
            return 0;
        }
        model.probes += 1;
        let period = model.period;
        self.note("probed");
        period
    }

    pub(super) fn judged(&mut self, id: WorkerId, period: u64, outcome: Outcome, now_ms: u64) {
        let rules = self.rules;
        let model = self.breakers.entry(id).or_insert_with(Model::new);
        let before = model.circuit;
        match (model.circuit, outcome) {
            (Circuit::Closed, Outcome::Success) if period == 0 => model.row.clear(),
            (Circuit::Closed, Outcome::Failure) if period == 0 => {
                if model.row.first().is_some_and(|first| now_ms.saturating_sub(*first) > rules.window_ms) {
                    model.row.clear();
                }
                model.row.push(now_ms);
                if model.row.len() == rules.failure_threshold as usize {
                    model.open(now_ms);
                }
            }
            (Circuit::HalfOpen, _) if period == model.period => {
                model.probes -= 1;
                match outcome {
                    Outcome::Success => model.successes += 1,
                    Outcome::Failure => model.open(now_ms),
                    Outcome::Neutral => {}
                }
                if model.successes == rules.success_threshold {
                    *model = Model { period: model.period, ..Model::new() };
                }
            }
            _ => {}
        }
        match (before, model.circuit) {
            (Circuit::Closed | Circuit::HalfOpen, Circuit::Open) => self.note("opened"),
            (Circuit::HalfOpen, Circuit::Closed) => self.note("closed"),
            _ => {}
        }
    }

    /// A request parts from its worker: if it was a probe that showed nothing, its place is free.
    pub(super) fn dropped(&mut self, flight: &mut Flight) {
        let Some(id) = flight.hold.as_ref().map(|hold| hold.worker().id) else { return };
        flight.counts = false;
        if std::mem::replace(&mut flight.is_judged, true) {
            return;
        }
        if let Some(model) = self.breakers.get_mut(&id)
            && model.circuit == Circuit::HalfOpen
            && model.period == flight.period
        {
            model.probes -= 1;
        }
    }

    /// Control has had its turn: it makes open breakers half-open, and nothing else.
    pub(super) fn control_turned(&mut self, snapshot: &Snapshot, now_ms: u64) {
        for (&id, model) in &mut self.breakers {
            let Some(worker) = snapshot.fleet.worker(id) else { continue };
            let circuit = worker.cells.breaker().circuit();
            if (model.circuit, circuit) == (Circuit::Open, Circuit::HalfOpen) {
                assert!(now_ms >= model.opened_ms + self.rules.open_ms, "{id:?} is half-open too early");
                model.circuit = Circuit::HalfOpen;
                model.period += 1;
            }
        }
    }

    /// Compares breakers with what they should be.
    pub(super) fn check_breakers(&self, snapshot: &Snapshot) {
        for (&id, model) in &self.breakers {
            let Some(worker) = snapshot.fleet.worker(id) else { continue };
            let breaker = worker.cells.breaker();
            assert_eq!(breaker.circuit(), model.circuit, "the breaker of {id:?}");
            let count = match model.circuit {
                Circuit::Closed => model.row.len() as u32,
                Circuit::HalfOpen => model.successes,
                Circuit::Open => 0,
            };
            assert_eq!(breaker.count(), count, "what the breaker of {id:?} counts, {:?}", model.circuit);
            if model.circuit == Circuit::HalfOpen {
                let passes: Vec<Pass> = std::iter::from_fn(|| breaker.admit(&self.rules)).collect();
                let free = self.rules.success_threshold - model.successes - model.probes;
                assert_eq!(passes.len() as u32, free, "probes that the breaker of {id:?} has room for");
                passes.into_iter().for_each(|pass| breaker.release(pass));
            }
        }
    }

    /// A worker failed a request, and whether it may be tried again was decided.
    pub(super) fn retry(
        &mut self,
        flight: &Flight,
        failed: Failed,
        rules: &RetryRules,
        now_ms: u64,
        pause: Result<Duration, GiveUp>,
    ) {
        let made = flight.attempts.made();
        assert!(made <= rules.attempts_max, "{made} attempts");
        let expected = if made == rules.attempts_max {
            Some(GiveUp::Exhausted)
        } else if !failed.is_unreached && !self.budget.withdraw(now_ms) {
            Some(GiveUp::Denied)
        } else {
            None
        };
        assert_eq!(pause.err(), expected, "after {made} attempts");
        assert!(failed.is_unreached || pause.is_err() || pause.is_ok_and(|pause| !pause.is_zero()));
    }
}
