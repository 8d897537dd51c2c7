//! Random events in random order, from a seed: whatever happens, the invariants hold.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::metrics::Page;
use fleet::breaker::Outcome;
use fleet::cell::WorkerCells;
use fleet::report::Report;
use fleet::snapshot::Role;
use fleet::tree::HolderId;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::control::event::Event;
use crate::control::publish::Rings;
use crate::control::rig::BREAKER;
use crate::control::rig::Reply;
use crate::control::rig::Rig;
use crate::control::rig::answer;
use crate::control::rig::config;
use crate::control::stats::Health;
use crate::control::worker::Recovery;

const SEEDS: u64 = 256;
const STEPS: u32 = 500;
const URLS: u32 = 6;

struct Simulation {
    rig: Rig,
    rng: SmallRng,
    /// Calls that wait for their answers.
    waiting: Vec<Reply>,
    /// Requests in flight, one per entry.
    flights: Vec<Arc<WorkerCells>>,
    /// Every registration ever seen.
    uuids: BTreeSet<uuid::Uuid>,
    /// Of the snapshot that was checked last.
    version: u64,
    generations: BTreeSet<u32>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut config = config(&["http://10.0.0.1:1", "http://w2:1"]);
        config.seed = seed;
        config.prefix_bytes_max = 16 << 10;
        config.recovery_ramp = Duration::from_secs(seed % 20);
        Self {
            rig: Rig::new(config),
            rng: SmallRng::seed_from_u64(seed),
            waiting: Vec::new(),
            flights: Vec::new(),
            uuids: BTreeSet::new(),
            version: 0,
            generations: BTreeSet::new(),
        }
    }

    /// Half of the workers have addresses, half have names.
    fn url(&mut self) -> String {
        let n = self.rng.random_range(1..=URLS);
        if n.is_multiple_of(2) { format!("http://w{n}:1") } else { format!("http://10.0.0.{n}:1") }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..16) {
            0 => self.admin(),
            1 | 2 => self.toggle(),
            3..=6 => self.services(),
            7 | 8 => self.place(),
            9 => self.fly(),
            10 => self.fail(),
            11 | 12 => self.compute(),
            13 | 14 => self.judge(),
            _ => {
                let millis = self.rng.random_range(1..60_000);
                self.rig.now += Duration::from_millis(millis);
                self.rig.turn([]);
            }
        }
    }

    fn admin(&mut self) {
        let url = self.url();
        let escaped = url.replace(':', "%3A").replace('/', "%2F");
        let (method, target, body) = match self.rng.random_range(0..11) {
            0 | 1 => ("POST", format!("/add_worker?url={escaped}"), String::new()),
            2 | 3 => {
                let policies =
                    ["random", "consistent_hashing", "session", "bucket", "least_load", "cache_aware"];
                let policy = policies[self.rng.random_range(0..policies.len())];
                let role = ["regular", "prefill", "decode"][self.rng.random_range(0..3)];
                let body = format!(
                    r#"{{"url":"{url}","priority":{},"worker_type":"{role}","labels":{{"policy":"{policy}"}}}}"#,
                    self.priority()
                );
                ("POST", "/workers".to_owned(), body)
            }
            4 => ("POST", format!("/remove_worker?url={escaped}"), String::new()),
            5 => ("DELETE", format!("/workers/{escaped}"), String::new()),
            6 => ("PUT", format!("/workers/{escaped}"), r#"{"disable_health_check":true}"#.to_owned()),
            7 => ("PUT", format!("/workers/{escaped}"), r#"{"disable_health_check":false}"#.to_owned()),
            8 => {
                let body = format!(r#"{{"priority":{}}}"#, self.priority());
                ("PUT", format!("/workers/{escaped}"), body)
            }
            9 => ("POST", "/flush_cache".to_owned(), String::new()),
            _ => ("GET", "/get_loads".to_owned(), String::new()),
        };
        let reply = self.rig.send(method, &target, &body);
        self.waiting.push(reply);
    }

    /// Half of the workers weigh the same.
    fn priority(&mut self) -> u32 {
        if self.rng.random() { 50 } else { self.rng.random_range(1..200) }
    }

    /// Names a worker serves; twice the same name is one model.
    fn models(&mut self) -> String {
        let [first, second] = [(); 2].map(|()| self.rng.random_range(0..3));
        format!("m{first},m{second}")
    }

    fn toggle(&mut self) {
        let url = self.url();
        if !self.rig.alive.remove(&url) {
            let models = self.models();
            self.rig.models.insert(url.clone(), models);
            self.rig.alive.insert(url);
        }
    }

    /// Services finish any one of their tasks.
    fn services(&mut self) {
        if !self.rig.tasks.is_empty() {
            let at = self.rng.random_range(0..self.rig.tasks.len());
            let task = self.rig.tasks.swap_remove(at);
            let event = self.rig.outcome(task);
            self.rig.turn([event]);
        }
    }

    /// A shard reports a placement, perhaps on a worker that is long gone.
    fn place(&mut self) {
        let index = self.rng.random_range(0..URLS);
        let generation = self.rng.random_range(0..=self.generations.len() as u32);
        let blocks = (0..self.rng.random_range(1..20)).map(|_| self.rng.random_range(0..4)).collect();
        let worker = fleet::id::WorkerId { index, generation };
        let version = self.rig.snapshot.version;
        self.rig.report(Report::Placed { worker, version, blocks });
    }

    /// A request begins or ends.
    fn fly(&mut self) {
        let members = self.rig.members();
        if !members.is_empty() && self.flights.len() < 8 {
            let cells = Arc::clone(&members[self.rng.random_range(0..members.len())].cells);
            cells.begin();
            self.flights.push(cells);
        } else if let Some(cells) = self.flights.pop() {
            cells.end();
        }
    }

    /// An engine works, restarts, or stops telling.
    fn compute(&mut self) {
        let url = self.url();
        let counted = match self.rng.random_range(0..4) {
            0 => {
                self.rig.pages.remove(&url);
                return;
            }
            // What has restarted may serve other models.
            1 => {
                let models = self.models();
                self.rig.models.insert(url.clone(), models);
                0.0
            }
            _ => self.rig.pages.get(&url).and_then(|page| page.marks.counters[0]).unwrap_or(0.0) + 1.0,
        };
        let mut page = Page::default();
        page.load.running = Some(self.rng.random_range(0..9));
        page.marks.has_page = true;
        page.marks.counters[0] = Some(counted);
        self.rig.pages.insert(url, page);
    }

    fn fail(&mut self) {
        let Some(worker) = self.rig.members().first().map(|worker| Arc::clone(worker)) else { return };
        worker.cells.fail();
        self.rig.report(Report::Failing { worker: worker.id });
    }

    /// Requests to a worker end in a row of the same outcome; the report may be lost.
    fn judge(&mut self) {
        let members = self.rig.members();
        if members.is_empty() {
            return;
        }
        let worker = Arc::clone(members[self.rng.random_range(0..members.len())]);
        let outcome = if self.rng.random() { Outcome::Failure } else { Outcome::Success };
        let now_ms = self.rig.now.as_millis() as u64;
        for _ in 0..self.rng.random_range(1..4) {
            let breaker = worker.cells.breaker();
            let Some(pass) = breaker.admit(&BREAKER) else { continue };
            if breaker.judge(pass, outcome, now_ms, &BREAKER).is_some() && self.rng.random_range(0..4) > 0 {
                self.rig.report(Report::Circuit { worker: worker.id });
            }
        }
    }

    fn check(&mut self) {
        let fleet = &self.rig.snapshot.fleet;
        let registry = &self.rig.state.registry;
        let is_new = std::mem::replace(&mut self.version, self.rig.snapshot.version) != self.version;
        self.rig.state.check_fleet(if is_new { Rings::Compared } else { Rings::Left });
        assert!(fleet.pools.is_sorted_by(|a, b| a.name < b.name), "pools are ordered and unique");
        let mut roles = BTreeMap::<_, BTreeSet<Role>>::new();
        for pool in &fleet.pools {
            for &index in pool.members.iter() {
                let member = fleet.workers.get(index).expect("a member is a worker");
                assert_eq!(member.role, pool.name.role);
                roles.entry(&pool.name.model).or_default().insert(member.role);
            }
        }
        let serves = |roles: &BTreeSet<Role>| {
            roles.contains(&Role::Regular)
                || (roles.contains(&Role::Prefill) && roles.contains(&Role::Decode))
        };
        assert_eq!(fleet.readiness.status == 200, roles.values().any(serves), "{roles:?}");
        for member in self.rig.members() {
            assert!(fleet.worker(member.id).is_some_and(|worker| Arc::ptr_eq(worker, member)));
            assert!(!member.addresses.is_empty());
            let entry = registry.get(member.id).expect("registered");
            assert_eq!(entry.health(), Health::Ready);
            assert!(!entry.is_tripped, "a member whose breaker is open");
        }
        for (index, slot) in registry.slots().iter().enumerate() {
            let is_ready = slot.as_ref().is_some_and(|entry| entry.health() == Health::Ready);
            let blocks = self.rig.state.tree.holder_blocks(HolderId(index as u32));
            assert!(is_ready || blocks == 0, "presence of a worker that is not ready");
        }
        for entry in registry.slots().iter().flatten() {
            let is_new = self.uuids.insert(entry.uuid);
            let is_again = self.generations.insert(entry.id.generation) && !is_new;
            assert!(!is_again || entry.is_expected_back, "an id is given again to who is expected back");
            let is_on_its_way = entry.circuit_due.is_some() || entry.health() == Health::Draining;
            assert!(!entry.is_tripped || is_on_its_way, "a breaker that stays open for ever");
            assert!(
                matches!(entry.recovery, Recovery::Over | Recovery::Awaited) || is_on_its_way,
                "half a share for ever"
            );
            assert!(!entry.is_under_way || entry.due.is_none(), "one check at a time");
            let is_polled = entry.polling.due.is_some() || entry.polling.is_under_way;
            assert!(entry.polling.due.is_none() || !entry.polling.is_under_way, "one poll at a time");
            assert!(is_polled || !entry.is_routable(), "a worker that nobody will ever poll again");
            assert!(entry.polling.due.is_none() || entry.is_routable(), "a poll of who gets no requests");
            let load = entry.cells.engine_load();
            assert!(load.is_none() || entry.is_routable(), "a load of who gets no requests");
        }
        let is_stuck = |entry: &crate::control::worker::Entry| {
            entry.due.is_none() && !entry.is_under_way && !entry.spec.checks.disabled
        };
        assert!(!registry.registered().any(is_stuck), "a worker that nobody will ever check again");
        self.waiting.retain_mut(|reply| answer(reply).is_none());
    }

    fn finish(mut self) {
        self.rig.turn([Event::Terminate]);
        for reply in &mut self.waiting {
            assert!(answer(reply).is_some(), "a call without an answer");
        }
    }
}

#[test]
fn invariants_hold_whatever_happens() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed);
        for step in 0..STEPS {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                simulation.step();
                simulation.check();
            }));
            assert!(outcome.is_ok(), "seed {seed}, step {step}");
        }
        simulation.finish();
    }
}
