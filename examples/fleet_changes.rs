//! Prints what one change of the fleet costs the control thread, from the event to the published snapshot, with 10,
//! 1,000 and 10,000 workers.
//!
//! Run with `cargo run --release --example fleet_changes [POLICY [PRIORITY]]`: how much is kept for the fleet depends on
//! the policy (rings), and on whether the worker that comes and goes weighs as much as the others, whose priority is 50.
//! Times are medians in microseconds; letting go of the snapshot that was replaced is part of them, as nobody else holds
//! it here.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use engine::load::EngineLoad;
use engine::metadata::Metadata;
use engine::metadata::Model;
use fleet::admin::AdminCall;
use fleet::id::WorkerId;
use fleet::rules::Rules;
use fleet::snapshot::Snapshot;
use fleet::stats::StatsShape;
use futures_channel::oneshot;
use ringway::control;
use ringway::control::ControlConfig;
use ringway::control::Destinations;
use ringway::control::HealthConfig;
use ringway::control::Order;
use ringway::control::State;
use ringway::control::event::Event;
use ringway::control::event::Failure;
use ringway::control::event::Probe;
use ringway::control::poll::Polled;
use ringway::control::task::Task;

const FLEETS: [u32; 3] = [10, 1_000, 10_000];
const ROUNDS: u32 = 300;
const MODELS: u32 = 2;

struct Bench {
    state: State,
    snapshot: Snapshot,
    now: Duration,
    orders: Vec<Order>,
    /// Times of each kind of change, in nanoseconds.
    times: BTreeMap<&'static str, Vec<u128>>,
}

fn url(number: u32) -> String {
    format!("http://10.{}.{}.{}:8000", number >> 16, number >> 8 & 255, number & 255)
}

fn config(workers: u32, policy: &str) -> ControlConfig {
    let rules = Rules::default();
    let default = rules.policy(policy).expect("the name of a policy");
    ControlConfig {
        shards: 2,
        stats_shape: StatsShape {
            endpoints: 1,
            methods: 1,
            error_codes: 1,
            duration_bounds_us: Arc::from([1000]),
        },
        seed: 1,
        block_seed: 1,
        rules: Rules { default, ..rules },
        bucket_adjust_interval: Duration::from_secs(5),
        decisions: Vec::new(),
        dp_aware: false,
        worker_urls: (0..workers).map(url).collect(),
        pair_workers: Vec::new(),
        fixed_workers: Vec::new(),
        aliases: Arc::default(),
        stack: None,
        api_key: None,
        hides_workers: false,
        destinations: Destinations::Usual,
        health: HealthConfig {
            failure_threshold: 1,
            success_threshold: 1,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(60),
            endpoint: "/health".to_owned(),
            disabled: false,
        },
        startup_timeout: Duration::from_secs(300),
        startup_check_interval: Duration::from_secs(30),
        load_monitor_interval: Some(Duration::from_secs(10)),
        prefix_bytes_max: 1 << 20,
        blocks_per_holder_max: usize::MAX,
        eviction_interval: Duration::from_secs(120),
        breaker: None,
        recovery_ramp: Duration::ZERO,
        pace: None,
        drain_settle: Duration::ZERO,
        worker_failures_max: 3,
        shutdown_grace: Duration::from_secs(180),
        version: "0",
        started_unix_s: 1_700_000_000,
    }
}

impl Bench {
    fn new(workers: u32, policy: &str) -> Self {
        let (state, snapshot) = control::initial(config(workers, policy)).expect("a good configuration");
        let mut bench =
            Self { state, snapshot, now: Duration::ZERO, orders: Vec::new(), times: BTreeMap::new() };
        let begin = Instant::now();
        bench.turn("start", [Event::Tick { requests_active: 0 }]);
        let probed: Vec<Event> = bench.asked().into_iter().map(|worker| probed(worker, true)).collect();
        bench.turn("start", probed);
        let described: Vec<Event> = bench.asked().into_iter().map(described).collect();
        bench.turn("start", described);
        bench.times.clear();
        let members: usize = bench.snapshot.fleet.pools.iter().map(|pool| pool.members.len()).sum();
        assert_eq!(members, workers as usize, "everybody is ready");
        println!("{workers:>6} workers ready after {:.1} ms of control", begin.elapsed().as_secs_f64() * 1e3);
        bench
    }

    /// One turn of the loop, timed.
    fn turn(&mut self, kind: &'static str, events: impl IntoIterator<Item = Event>) {
        let begin = Instant::now();
        for event in events {
            self.state.apply(event, self.now, &mut self.orders);
        }
        if let Some(snapshot) = self.state.publication(self.now) {
            self.snapshot = black_box(snapshot);
            self.state.admit_newcomers();
        }
        self.times.entry(kind).or_default().push(begin.elapsed().as_nanos());
    }

    /// The workers that the orders of the last turn are about.
    fn asked(&mut self) -> Vec<WorkerId> {
        let worker = |order| match order {
            Order::Task(Task::Probe { worker, .. } | Task::Describe { worker, .. }) => Some(worker),
            Order::Task(_) | Order::Reply { .. } | Order::Metrics { .. } | Order::Export { .. } => None,
        };
        self.orders.drain(..).filter_map(worker).collect()
    }

    fn admin(&mut self, kind: &'static str, method: &str, path: &str, body: String) {
        let (reply, answer) = oneshot::channel();
        let call = AdminCall {
            method: method.into(),
            path: path.into(),
            query: None,
            body: Bytes::from(body),
            request_id: "r".into(),
            reply,
        };
        self.turn(kind, [Event::Admin(call)]);
        drop(answer);
    }

    /// A worker joins, reports loads, fails, recovers and leaves.
    fn round(&mut self, number: u32, priority: u32) {
        let url = url(1 << 20 | number);
        self.admin("register", "POST", "/workers", format!(r#"{{"url":"{url}","priority":{priority}}}"#));
        self.orders.clear();
        self.turn("due for a check", [Event::Tick { requests_active: 0 }]);
        let worker = self.asked()[0];
        self.turn("reached", [probed(worker, true)]);
        self.turn("ready", [described(worker)]);
        self.turn("load", [polled(worker)]);
        self.turn("unhealthy", [probed(worker, false)]);
        self.turn("healthy again", [probed(worker, true)]);
        let escaped = url.replace(':', "%3A").replace('/', "%2F");
        self.admin("remove", "DELETE", &format!("/workers/{escaped}"), String::new());
        self.now += Duration::from_millis(250);
        self.turn("gone", [Event::Tick { requests_active: 0 }]);
        self.orders.clear();
    }
}

fn probed(worker: WorkerId, is_alive: bool) -> Event {
    let answer = if is_alive { Ok(200) } else { Err(Failure::Connect) };
    Event::Probed { worker, probe: Probe { addresses: None, answer } }
}

fn described(worker: WorkerId) -> Event {
    let model = Model { id: format!("model-{}", worker.index % MODELS), ..Model::default() };
    Event::Described { worker, metadata: Box::new(Metadata { models: vec![model], ..Metadata::default() }) }
}

fn polled(worker: WorkerId) -> Event {
    let load = Some(EngineLoad { running: Some(3), ..EngineLoad::default() });
    let endpoints = control::poll::Endpoints::of(engine::metadata::Dialect::Vllm);
    Event::Polled { worker, polled: Box::new(Polled { load, marks: None, prefix: None, endpoints }) }
}

fn median_us(times: &mut [u128]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64 / 1e3
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let policy = arguments.next().unwrap_or_else(|| "cache_aware".to_owned());
    let priority = arguments.next().map_or(50, |text| text.parse().expect("a priority"));
    let mut columns: Vec<BTreeMap<&str, Vec<u128>>> = Vec::new();
    for workers in FLEETS {
        let mut bench = Bench::new(workers, &policy);
        (0..ROUNDS).for_each(|number| bench.round(number, priority));
        columns.push(bench.times);
    }
    println!("{:16}{:>10}{:>10}{:>10}", "change, µs", FLEETS[0], FLEETS[1], FLEETS[2]);
    let kinds = ["register", "reached", "ready", "load", "unhealthy", "healthy again", "remove", "gone"];
    for kind in kinds {
        let cell = |times: &mut BTreeMap<&str, Vec<u128>>| {
            times.get_mut(kind).map_or(f64::NAN, |times| median_us(times))
        };
        let cells: Vec<String> = columns.iter_mut().map(|times| format!("{:>10.1}", cell(times))).collect();
        println!("{kind:16}{}", cells.concat());
    }
}
