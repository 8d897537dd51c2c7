//! The whole routing plane from a seed: control, two shards that route by what it published, now or a while ago, and
//! engines of which it is known exactly what they were sent. Whatever happens, the invariants hold.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::metrics::Page;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::rules::AssignmentMode;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Snapshot;
use policy::Replica;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::control::event::Event;
use crate::control::rig::INTERVAL;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::stats::Health;
use crate::control::task::Task;

mod check;
mod engines;
mod flights;
mod judge;
mod traffic;

use self::engines::Engines;
use self::flights::Flights;
use self::flights::Leg;
use self::judge::Book;
use self::judge::Seen;

const SEEDS: u64 = 256;
const STEPS: u32 = 1000;
const SHARDS: usize = 2;
const URLS: u32 = 9;
const MODELS: u32 = 3;
const KEY_IDLE_S_MAX: u32 = 200;
/// A data plane thread.
struct Shard {
    snapshot: Snapshot,
    replica: Replica,
    /// Reports that have not left yet.
    batch: Vec<Report>,
    /// How old its coarse clock is.
    lag: Duration,
    /// Steps for which it keeps its snapshot.
    busy: u32,
}

/// What services found out, on its way to control.
struct Finding {
    event: Event,
    /// The process that was asked.
    boot: u64,
}

struct Simulation {
    rig: Rig,
    rng: SmallRng,
    shards: Vec<Shard>,
    engines: Engines,
    flights: Flights,
    book: Book,
    findings: Vec<Finding>,
    /// Batches on their way to control.
    batches: Vec<Vec<Report>>,
    prefix_bytes_max: usize,
    version: u64,
}

fn rules(rng: &mut SmallRng) -> Rules {
    let mut rules = Rules::default();
    rules.cache_aware.balance_abs_threshold = [1, 4, 64][rng.random_range(0..3)];
    rules.cache_aware.balance_rel_threshold = [1.0, 1.25, 1.5][rng.random_range(0..3)];
    rules.cache_aware.affinity_load_factor = [0.0, 1.0, 1.25, 3.0][rng.random_range(0..4)];
    let assignments = [AssignmentMode::Random, AssignmentMode::MinLoad, AssignmentMode::MinGroup];
    rules.manual.assignment = assignments[rng.random_range(0..3)];
    rules.manual.max_idle_s = KEY_IDLE_S_MAX;
    rules.prefix_hash.prefix_bytes = 256;
    rules.prefix_aware.match_bytes_min = 128;
    rules.default = rules.policy(any_policy(rng)).expect("a policy's name");
    rules
}

fn any_policy(rng: &mut SmallRng) -> &'static str {
    Policy::NAMES[rng.random_range(0..Policy::NAMES.len())]
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let urls: Vec<String> = (1..=5).map(url).collect();
        let mut config = config(&urls.iter().map(String::as_str).collect::<Vec<_>>());
        config.seed = seed;
        config.rules = rules(&mut rng);
        config.prefix_bytes_max = [8 << 10, 1 << 20][rng.random_range(0..2)];
        config.health.success_threshold = 1;
        config.health.failure_threshold = rng.random_range(1..3);
        config.health.interval = [Duration::from_secs(1), INTERVAL][rng.random_range(0..2)];
        config.load_monitor_interval = Some(Duration::from_secs(1));
        config.worker_failures_max = [0, 3, 8][rng.random_range(0..3)];
        config.blocks_per_holder_max = [60, usize::MAX][rng.random_range(0..2)];
        let prefix_bytes_max = config.prefix_bytes_max;
        let mut rig = Rig::new(config);
        for url in urls {
            rig.models.insert(url.clone(), "m0".to_owned());
            rig.alive.insert(url);
        }
        rig.settle();
        let shard = |index: u64| Shard {
            snapshot: rig.snapshot.clone(),
            replica: Replica::new(seed ^ index << 32),
            batch: Vec::new(),
            lag: Duration::from_millis(index * 90),
            busy: 0,
        };
        let shards = (0..SHARDS as u64).map(shard).collect();
        Self {
            rig,
            rng,
            shards,
            engines: Engines::default(),
            flights: Flights::default(),
            book: Book::default(),
            findings: Vec::new(),
            batches: Vec::new(),
            prefix_bytes_max,
            version: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..36) {
            0 | 1 => self.admin(),
            2 => self.toggle(),
            3 => self.restart(),
            4 => self.replace(),
            5..=7 => (0..8).for_each(|_| self.services()),
            8 | 9 => {
                let most = [20, 900, 5_000, 40_000][self.rng.random_range(0..4)];
                let millis = self.rng.random_range(1..=most);
                self.pass(Duration::from_millis(millis));
                (0..8).for_each(|_| self.services());
            }
            10..=15 => self.finish_some(),
            16..=18 => self.meet(),
            _ => self.request(),
        }
        self.adopt();
        self.reports();
    }

    /// Shards take over what control published last, but for one that is busy.
    fn adopt(&mut self) {
        for shard in &mut self.shards {
            if shard.busy > 0 {
                shard.busy -= 1;
                continue;
            }
            shard.snapshot = self.rig.snapshot.clone();
            if self.rng.random_range(0..10) == 0 {
                shard.busy = self.rng.random_range(1..30);
            }
        }
    }

    /// Control publishes in each of its turns if there is news.
    fn turn(&mut self, events: Vec<Event>) {
        self.rig.turn(events);
        self.book.published(&self.rig.snapshot);
        for pool in &self.rig.snapshot.fleet.pools {
            self.flights.see(&pool.board);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.rig.now += time;
        self.turn(Vec::new());
    }

    fn url(&mut self) -> String {
        url(self.rng.random_range(1..=URLS))
    }

    /// The number of a model, low ones more often.
    fn model(&mut self) -> u32 {
        let [first, second, third] = [(); 3].map(|()| self.rng.random_range(0..MODELS));
        first.min(second).min(third)
    }

    fn admin(&mut self) {
        let url = self.url();
        let escaped = url.replace(':', "%3A").replace('/', "%2F");
        let put = format!("/workers/{escaped}");
        let priority = [50, 50, 100, 25, 9, 400][self.rng.random_range(0..6)];
        let (method, target, body) = match self.rng.random_range(0..12) {
            0..=5 => return self.register(&url, priority),
            6 => ("POST", format!("/remove_worker?url={escaped}"), String::new()),
            7 => ("PUT", put, r#"{"disable_health_check":true}"#.to_owned()),
            8 => ("PUT", put, r#"{"disable_health_check":false}"#.to_owned()),
            9 => ("PUT", put, format!(r#"{{"priority":{priority}}}"#)),
            10 => ("PUT", put, format!(r#"{{"cost":{}}}"#, [1.0, 0.5, 3.0][self.rng.random_range(0..3)])),
            _ => ("POST", "/flush_cache".to_owned(), String::new()),
        };
        // What is answered is not what this is about.
        drop(self.rig.send(method, &target, &body));
        self.turn(Vec::new());
    }

    fn register(&mut self, url: &str, priority: u32) {
        let policy = any_policy(&mut self.rng);
        let model = self.model();
        let model = if self.rng.random() { format!(r#""model_id":"m{model}","#) } else { String::new() };
        let labels = format!(r#""labels":{{"policy":"{policy}"}}"#);
        let body = format!(r#"{{"url":"{url}",{model}"priority":{priority},{labels}}}"#);
        drop(self.rig.send("POST", "/workers", &body));
        self.turn(Vec::new());
    }

    /// The process behind a worker's address ends, or one begins there.
    fn toggle(&mut self) {
        let url = self.url();
        if self.rig.alive.remove(&url) && self.rng.random_range(0..3) == 0 {
            return;
        }
        self.start(url);
    }

    /// A new process takes the place of an old one, so soon that no check notices.
    fn restart(&mut self) {
        let url = self.url();
        if self.rig.alive.contains(&url) {
            self.start(url);
        }
    }

    fn start(&mut self, url: String) {
        self.engines.restart(&url);
        if self.rng.random_range(0..3) == 0 {
            let [first, second] = [(); 2].map(|()| self.model());
            self.rig.models.insert(url.clone(), format!("m{first},m{second}"));
        }
        let tells = self.rng.random_range(0..4) > 0;
        if tells {
            let mut page = Page::default();
            page.load.running = Some(self.rng.random_range(0..9));
            page.load.waiting = Some(self.rng.random_range(0..4));
            page.marks.start_id = Some(self.engines.boot(&url));
            self.rig.pages.insert(url.clone(), page);
        } else {
            self.rig.pages.remove(&url);
        }
        self.rig.alive.insert(url);
    }

    /// A worker leaves, its last requests end, and another one gets its index at once.
    fn replace(&mut self) {
        let members: Vec<WorkerId> = self.rig.members().iter().map(|worker| worker.id).collect();
        if members.is_empty() {
            return;
        }
        let gone = members[self.rng.random_range(0..members.len())];
        let escaped = self.rig.snapshot.fleet.worker(gone).expect("a member").url.replace(':', "%3A");
        drop(self.rig.send("POST", &format!("/remove_worker?url={}", escaped.replace('/', "%2F")), ""));
        let is_there = |leg: &mut Leg| leg.worker.id == gone;
        self.flights.legs.extract_if(.., is_there).for_each(Leg::end);
        self.pass(Duration::from_millis(300));
        let url = self.url();
        self.start(url.clone());
        self.register(&url, 50);
        (0..3).for_each(|_| self.services());
    }

    /// Services finish any one of their tasks; control hears of it now or later.
    fn services(&mut self) {
        if self.rig.tasks.is_empty() {
            return self.hear();
        }
        let at = self.rng.random_range(0..self.rig.tasks.len());
        let task = self.rig.tasks.swap_remove(at);
        let boot = match &task {
            Task::Probe { target, .. } | Task::Describe { target, .. } | Task::Poll { target, .. } => {
                self.engines.boot(&target.url)
            }
            Task::Call { .. } => 0,
        };
        let event = self.rig.outcome(task);
        self.findings.push(Finding { event, boot });
        if self.rng.random_range(0..4) > 0 {
            self.hear();
        }
    }

    /// Control hears of something that services found out.
    fn hear(&mut self) {
        if self.findings.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.findings.len());
        let Finding { event, boot } = self.findings.swap_remove(at);
        let worker = match &event {
            Event::Probed { worker, .. } | Event::Polled { worker, .. } => Some(*worker),
            _ => None,
        };
        let health =
            |simulation: &Self| simulation.rig.state.registry.get(worker?).map(|entry| entry.health());
        let restarts = |simulation: &Self| simulation.rig.state.stats.worker_restarts_total.get();
        let before = (health(self), restarts(self));
        self.turn(vec![event]);
        let after = (health(self), restarts(self));
        if let Some(worker) = worker {
            if before.0 == Some(Health::Ready) && after.0 == Some(Health::Unhealthy) {
                self.engines.emptied(worker);
                self.book.seen.lost += 1;
            }
            if before.1 != after.1 {
                self.engines.replaced(worker, boot);
                self.book.seen.restarted += 1;
            }
        }
    }
}

/// Half of the workers have addresses, half have names.
fn url(n: u32) -> String {
    if n.is_multiple_of(2) { format!("http://w{n}:1") } else { format!("http://10.0.0.{n}:1") }
}

fn run(seed: u64) -> Seen {
    let mut simulation = Simulation::new(seed);
    for step in 0..STEPS {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            simulation.step();
            simulation.check();
        }));
        assert!(outcome.is_ok(), "seed {seed}, step {step}");
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.finish()));
    assert!(outcome.is_ok(), "seed {seed}, at the end");
    outcome.unwrap_or_default()
}

#[test]
fn routing_keeps_its_word_whatever_happens() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let seen = run(seed);
        let add = |all: &mut BTreeMap<&'static str, u64>, seen: BTreeMap<&'static str, u64>| {
            seen.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
        };
        add(&mut all.policies, seen.policies);
        add(&mut all.reasons, seen.reasons);
        all.outrun += seen.outrun;
        all.keys_kept += seen.keys_kept;
        all.placements_held += seen.placements_held;
        all.lost += seen.lost;
        all.restarted += seen.restarted;
    }
    // What never comes up is not tested.
    let Seen { policies, reasons, outrun, keys_kept, placements_held, lost, restarted } = &all;
    assert!(*lost > 100 && *restarted > 1_000, "{lost} {restarted}");
    assert!(
        Policy::NAMES.iter().all(|name| policies.get(name).is_some_and(|count| *count > 500)),
        "{policies:?}"
    );
    let names = fleet::decision::Reason::ALL.iter().map(|reason| reason.name());
    assert!(names.into_iter().all(|name| reasons.get(name).is_some_and(|count| *count > 20)), "{reasons:?}");
    assert!(
        *outrun > 500 && *keys_kept > 500 && *placements_held > 5_000,
        "{outrun} {keys_kept} {placements_held}"
    );
}
