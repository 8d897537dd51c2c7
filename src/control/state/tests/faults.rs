//! Faults from a seed: control, shards that take the same decisions as the real ones, and engines that crash, stall,
//! slow down, refuse, flap, lose sight of some, and answer with errors. Whatever happens, the invariants hold.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::admission::Gate;
use fleet::admission::GateRules;
use fleet::breaker::BreakerRules;
use fleet::budget::RetryBudget;
use fleet::pressure::FullWorkers;
use fleet::report::Report;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Snapshot;
use policy::Replica;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use shard::retry::RetryRules;

use crate::control::event::Event;
use crate::control::pace::PaceRules;
use crate::control::rig::Rig;
use crate::control::rig::answer;
use crate::control::rig::config;

mod book;
mod check;
mod engines;
mod flight;
mod full;

use self::book::Book;
use self::book::Seen;
use self::engines::Engines;
use self::engines::Mode;
use self::flight::Flight;

const SEEDS: u64 = 1_000;
const STEPS: u32 = 160;
/// One seed to run again, and nothing else.
const SEED_VARIABLE: &str = "RINGWAY_FAULTS_SEED";

/// A data plane thread.
struct Shard {
    snapshot: Snapshot,
    replica: Replica,
    /// Reports that have not left yet.
    batch: Vec<Report>,
    /// Workers that it has to let off.
    full: FullWorkers,
    /// How old its coarse clock is.
    lag: Duration,
}

struct Simulation {
    rig: Rig,
    rng: SmallRng,
    shards: Vec<Shard>,
    engines: Engines,
    gate: Gate,
    budget: RetryBudget,
    retry: RetryRules,
    breaker: BreakerRules,
    /// By number: the order of arrival.
    flights: BTreeMap<u64, Flight>,
    /// Batches on their way to control.
    batches: Vec<Vec<Report>>,
    book: Book,
    /// URLs of workers that were removed, and will be added again.
    removed: Vec<String>,
    /// Longest pauses between two steps, in milliseconds.
    pace: [u64; 4],
    /// Faults are over.
    is_healing: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let workers = rng.random_range(1..=6);
        let urls: Vec<String> = (1..=workers).map(|n| format!("http://10.0.0.{n}:1")).collect();
        let breaker = BreakerRules {
            failure_threshold: rng.random_range(1..=4),
            success_threshold: rng.random_range(1..=3),
            open_ms: [300, 2_000, 8_000][rng.random_range(0..3)],
            window_ms: [50, 500, 120_000][rng.random_range(0..3)],
        };
        let mut config = config(&urls.iter().map(String::as_str).collect::<Vec<_>>());
        config.seed = seed;
        config.rules = Rules::default();
        let names = Policy::NAMES;
        config.rules.default =
            config.rules.policy(names[rng.random_range(0..names.len())]).expect("a policy's name");
        config.breaker = Some(breaker);
        config.health.interval = Duration::from_secs(1);
        config.health.success_threshold = rng.random_range(1..=2);
        config.health.failure_threshold = rng.random_range(1..=3);
        config.worker_failures_max = [0, 3, 8][rng.random_range(0..3)];
        config.recovery_ramp = [Duration::ZERO, Duration::from_secs(3)][rng.random_range(0..2)];
        config.pace = Some(PaceRules {
            factor: 3.0,
            window: Duration::from_millis(500),
            tokens_min: 10,
            firsts_min: 3,
            ejection: Duration::from_secs(3),
            ejection_max: Duration::from_secs(9),
        });
        let mut rig = Rig::new(config);
        rig.alive.extend(urls.iter().cloned());
        rig.settle();
        let shards = (0..rng.random_range(1..=4))
            .map(|index: u64| Shard {
                snapshot: rig.snapshot.clone(),
                replica: Replica::new(seed ^ index << 32),
                batch: Vec::new(),
                full: FullWorkers::default(),
                lag: Duration::from_millis(index * 3),
            })
            .collect();
        let is_hurried = rng.random_range(0..3) == 0;
        let percent = [0, 20, 100][rng.random_range(0..3)];
        let mut simulation = Self {
            gate: Gate::new(gate_rules(&mut rng)),
            budget: RetryBudget::new(percent),
            retry: RetryRules {
                attempts_max: rng.random_range(1..=6),
                backoff_first: Duration::from_millis(50),
                backoff_max: Duration::from_secs(2),
                multiplier: 1.5,
                jitter: 0.2,
                is_plain: false,
            },
            engines: Engines::new(&urls),
            book: Book::new(breaker, percent),
            breaker,
            rig,
            rng,
            shards,
            flights: BTreeMap::new(),
            batches: Vec::new(),
            removed: Vec::new(),
            // Budgets are for hurried times, timeouts for long ones.
            pace: if is_hurried { [1, 3, 10, 30] } else { [3, 30, 300, 3_000] },
            is_healing: false,
        };
        // A full budget would outlast every seed.
        if simulation.rng.random_range(0..2) == 0 {
            while simulation.budget.withdraw(0) {
                assert!(simulation.book.budget.withdraw(0));
            }
        }
        simulation
    }

    fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0 | 1 if self.rng.random_range(0..8) == 0 => self.remove(),
            0 | 1 => self.disturb(),
            2..=7 => {
                for _ in 0..self.rng.random_range(1..=4) {
                    self.arrive();
                }
            }
            _ => {}
        }
        let most = self.pace[self.rng.random_range(0..self.pace.len())];
        let millis = self.rng.random_range(0..=most);
        self.pass(Duration::from_millis(millis));
    }

    /// Lets time pass: control and services, requests, reports.
    fn pass(&mut self, time: Duration) {
        self.rig.now += time;
        self.turn(Vec::new());
        self.add();
        self.services();
        self.adopt();
        self.let_off();
        self.stream();
        if self.gate.due_us().is_some_and(|due_us| due_us <= self.now_us()) {
            self.gate.pump(self.now_us());
        }
        let numbers: Vec<u64> = self.flights.keys().copied().collect();
        for number in numbers {
            self.advance(number);
        }
        self.reports();
    }

    /// Somebody removes a worker; its requests go on.
    fn remove(&mut self) {
        let members: Vec<String> = self.rig.members().iter().map(|worker| worker.url.to_string()).collect();
        if members.is_empty() {
            return;
        }
        let url = members[self.rng.random_range(0..members.len())].clone();
        let escaped = url.replace(':', "%3A").replace('/', "%2F");
        drop(self.rig.send("POST", &format!("/remove_worker?url={escaped}"), ""));
        self.removed.push(url);
        self.turn(Vec::new());
    }

    /// Removed workers are added again, as soon as they may be.
    fn add(&mut self) {
        for url in std::mem::take(&mut self.removed) {
            let mut reply = self.rig.send("POST", "/workers", &format!(r#"{{"url":"{url}"}}"#));
            let status = answer(&mut reply).map(|reply| reply.status);
            if status != Some(202) {
                self.removed.push(url);
            }
        }
    }

    fn turn(&mut self, events: Vec<Event>) {
        self.rig.turn(events);
        self.book.control_turned(&self.rig.snapshot, self.rig.now.as_millis() as u64);
    }

    /// Shards see what control published last; one may be busy and miss a turn.
    fn adopt(&mut self) {
        for shard in &mut self.shards {
            if self.rng.random_range(0..4) > 0 {
                shard.snapshot = self.rig.snapshot.clone();
            }
        }
    }

    /// Long streams of others go on at every worker, slowly where the engine is slow: steps are too coarse to tell by the
    /// requests that are followed here.
    fn stream(&mut self) {
        for worker in self.rig.members() {
            let gap_ms = if self.engines.get(&worker.url).mode == Mode::Slow { 900 } else { 30 };
            worker.cells.pace().add_tokens(10, 10 * gap_ms * 1_000);
        }
    }

    /// Shards let workers off that counted as full.
    fn let_off(&mut self) {
        for shard in &mut self.shards {
            let now_ms = self.rig.now.saturating_sub(shard.lag).as_millis() as u64;
            let fleet = &shard.snapshot.fleet;
            shard.full.let_off(now_ms, |id| fleet.worker(id).is_some());
        }
    }

    /// Services do what they were told, or some of it.
    fn services(&mut self) {
        self.rig.alive = self.engines.seen_by_control();
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rig.tasks)
            .into_iter()
            .partition(|_| self.is_healing || self.rng.random_range(0..4) > 0);
        self.rig.tasks = later;
        let events = now.into_iter().map(|task| self.rig.outcome(task)).collect();
        self.turn(events);
    }

    /// Batches leave shards, and arrive at once, late or never.
    fn reports(&mut self) {
        for shard in &mut self.shards {
            if self.rng.random_range(0..3) > 0 && !shard.batch.is_empty() {
                let batch = std::mem::take(&mut shard.batch);
                if self.rng.random_range(0..6) > 0 {
                    self.batches.push(batch);
                }
            }
        }
        while !self.batches.is_empty() && self.rng.random_range(0..3) > 0 {
            let at = self.rng.random_range(0..self.batches.len());
            let batch = self.batches.swap_remove(at);
            self.turn(vec![Event::Reports(batch)]);
        }
    }

    fn now_us(&self) -> u64 {
        self.rig.now.as_micros() as u64
    }
}

fn gate_rules(rng: &mut SmallRng) -> GateRules {
    let cap = rng.random_range(1..=16);
    let mut rules = if rng.random() {
        GateRules::plain(cap, rng.random_range(0..=8), Duration::from_secs(2))
    } else {
        GateRules::by_priority(cap)
    };
    for class in &mut rules.classes {
        class.queue_max = class.queue_max.min(6);
        class.queue_timeout = class.queue_timeout.min(Duration::from_secs(4));
    }
    if rng.random_range(0..4) == 0 {
        rules.starts_per_s = std::num::NonZeroU32::new(rng.random_range(5..50));
    }
    rules
}

fn run(seed: u64) -> Seen {
    let mut simulation = Simulation::new(seed);
    let replay = format!("replay it with {SEED_VARIABLE}={seed}");
    for step in 0..STEPS {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            simulation.step();
            simulation.check();
        }));
        assert!(outcome.is_ok(), "seed {seed}, step {step}: {replay}");
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.finish()));
    assert!(outcome.is_ok(), "seed {seed}, at the end: {replay}");
    outcome.unwrap_or_default()
}

#[test]
fn faults_cost_no_more_than_they_must() {
    if let Some(seed) = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        for (what, count) in run(seed) {
            *all.entry(what).or_default() += count;
        }
    }
    // What never comes up is not tested.
    for what in book::EXPECTED {
        assert!(all.get(what).is_some_and(|&count| count >= 100), "{what} is rare: {all:?}");
    }
}
