//! A control plane on a virtual clock, with simulated workers in place of services. For tests.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::load::EngineLoad;
use engine::metadata::Dialect;
use engine::metadata::Metadata;
use engine::metadata::Model;
use engine::metrics::Page;
use fleet::admin::AdminCall;
use fleet::admin::AdminReply;
use fleet::breaker::BreakerRules;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Snapshot;
use fleet::stats::StatsShape;
use futures_channel::oneshot;

use crate::control::config::ControlConfig;
use crate::control::config::HealthConfig;
use crate::control::event::Event;
use crate::control::event::Failure;
use crate::control::event::Probe;
use crate::control::poll::Polled;
use crate::control::state::Order;
use crate::control::state::State;
use crate::control::task::Lookup;
use crate::control::task::Question;
use crate::control::task::Target;
use crate::control::task::Task;

pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const BREAKER: BreakerRules =
    BreakerRules { failure_threshold: 3, success_threshold: 2, open_ms: 30_000, window_ms: 120_000 };
pub(crate) const STARTUP_TIMEOUT: Duration = Duration::from_secs(300);

/// Where an admin answer will be.
pub(crate) type Reply = oneshot::Receiver<AdminReply>;

/// A control plane and its surroundings.
pub(crate) struct Rig {
    pub(crate) state: State,
    pub(crate) now: Duration,
    /// What shards see.
    pub(crate) snapshot: Snapshot,
    /// Tasks that services have not begun.
    pub(crate) tasks: Vec<Task>,
    /// URLs of workers that answer.
    pub(crate) alive: BTreeSet<String>,
    /// Models by URL, several with commas between; a worker without says nothing about itself.
    pub(crate) models: BTreeMap<String, String>,
    /// Data-parallel ranks by URL, of those that have several.
    pub(crate) ranks: BTreeMap<String, u16>,
    /// What workers that are asked tell, by URL; others have no metrics page.
    pub(crate) pages: BTreeMap<String, Page>,
    pub(crate) requests_active: u64,
}

pub(crate) fn config(worker_urls: &[&str]) -> ControlConfig {
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
        rules: fleet::rules::Rules::default(),
        bucket_adjust_interval: Duration::from_secs(5),
        decisions: vec![Arc::default(), Arc::default()],
        worker_urls: worker_urls.iter().map(|&url| url.to_owned()).collect(),
        pair_workers: Vec::new(),
        fixed_workers: Vec::new(),
        aliases: Arc::default(),
        stack: None,
        api_key: None,
        hides_workers: false,
        destinations: crate::control::destination::Destinations::Usual,
        health: HealthConfig {
            failure_threshold: 3,
            success_threshold: 2,
            timeout: Duration::from_secs(5),
            interval: INTERVAL,
            endpoint: "/health".to_owned(),
            disabled: false,
        },
        startup_timeout: STARTUP_TIMEOUT,
        startup_check_interval: Duration::from_secs(30),
        prefix_bytes_max: 1 << 20,
        blocks_per_holder_max: usize::MAX,
        eviction_interval: Duration::from_secs(120),
        load_monitor_interval: Some(POLL_INTERVAL),
        breaker: Some(BREAKER),
        dp_aware: false,
        recovery_ramp: Duration::ZERO,
        pace: None,
        worker_failures_max: 3,
        drain_settle: Duration::ZERO,
        shutdown_grace: Duration::from_secs(180),
        version: "1.2.3",
        started_unix_s: 1_700_000_000,
    }
}

impl Rig {
    pub(crate) fn new(config: ControlConfig) -> Self {
        let (state, snapshot) = State::initial(config).expect("the configuration is good");
        Self {
            state,
            now: Duration::ZERO,
            snapshot,
            tasks: Vec::new(),
            alive: BTreeSet::new(),
            models: BTreeMap::new(),
            ranks: BTreeMap::new(),
            pages: BTreeMap::new(),
            requests_active: 0,
        }
    }

    /// A fleet of these workers, all of them ready.
    pub(crate) fn ready(worker_urls: &[&str]) -> Self {
        let mut rig = Self::new(config(worker_urls));
        rig.alive.extend(worker_urls.iter().map(|&url| url.to_owned()));
        rig.settle();
        rig
    }

    /// One turn of the loop. True if it published.
    pub(crate) fn turn(&mut self, events: impl IntoIterator<Item = Event>) -> bool {
        let mut orders = Vec::new();
        let tick = Event::Tick { requests_active: self.requests_active };
        for event in events.into_iter().chain([tick]) {
            self.state.apply(event, self.now, &mut orders);
        }
        let publication = self.state.publication(self.now);
        let has_published = publication.is_some();
        self.state.admit_newcomers();
        self.snapshot = publication.unwrap_or_else(|| self.snapshot.clone());
        for order in orders {
            match order {
                Order::Reply { to, reply } => drop(to.send(reply)),
                Order::Metrics { to } => drop(to.send(crate::admin::answer::metrics(String::new()))),
                Order::Export { to, export } => drop(to.try_send(export)),
                Order::Task(task) => self.tasks.push(task),
            }
        }
        has_published
    }

    /// Has services do what there is to do now, until there is no more.
    pub(crate) fn settle(&mut self) {
        self.turn([]);
        while !self.tasks.is_empty() {
            let events: Vec<Event> =
                std::mem::take(&mut self.tasks).into_iter().map(|task| self.outcome(task)).collect();
            self.turn(events);
        }
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.state.next_deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Hands over an admin request.
    pub(crate) fn send(&mut self, method: &str, target: &str, body: &str) -> Reply {
        let (reply, answer) = oneshot::channel();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let call = AdminCall {
            method: method.into(),
            path: path.into(),
            query: query.map(Into::into),
            body: Bytes::copy_from_slice(body.as_bytes()),
            request_id: "req-1".into(),
            reply,
        };
        self.turn([Event::Admin(call)]);
        answer
    }

    /// Hands over an admin request that is answered without waiting for time to pass.
    pub(crate) fn call(&mut self, method: &str, target: &str, body: &str) -> AdminReply {
        let mut reply = self.send(method, target, body);
        self.settle();
        answer(&mut reply).expect("the call is answered")
    }

    pub(crate) fn report(&mut self, report: Report) -> bool {
        self.turn([Event::Reports(vec![report])])
    }

    /// The id of the worker with this URL.
    pub(crate) fn id(&self, url: &str) -> WorkerId {
        let workers = self.snapshot.fleet.workers.iter();
        // A draining worker may have had the same URL.
        workers
            .filter(|worker| &*worker.url == url)
            .map(|worker| worker.id)
            .max_by_key(|id| id.generation)
            .expect(url)
    }

    /// URLs that get requests.
    pub(crate) fn routable(&self) -> Vec<&str> {
        self.members().iter().map(|worker| &*worker.url).collect()
    }

    /// Every worker that gets requests, once, by index.
    pub(crate) fn members(&self) -> Vec<&Arc<fleet::snapshot::Worker>> {
        let fleet = &self.snapshot.fleet;
        let mut members: Vec<u32> =
            fleet.pools.iter().flat_map(|pool| pool.members.iter().copied()).collect();
        members.sort_unstable();
        members.dedup();
        members.into_iter().map(|index| fleet.workers.get(index).expect("a member is registered")).collect()
    }

    /// What becomes of a task.
    pub(crate) fn outcome(&self, task: Task) -> Event {
        match task {
            Task::Probe { worker, target, lookup, .. } => {
                let addresses =
                    (lookup == Lookup::Needed).then(|| vec![SocketAddr::from(([10, 0, 0, 1], target.port))]);
                let answer = if self.is_alive(&target) { Ok(200) } else { Err(Failure::Connect) };
                Event::Probed { worker, probe: Probe { addresses, answer } }
            }
            Task::Describe { worker, target } => {
                let names = self.models.get(&*target.url).into_iter().flat_map(|names| names.split(','));
                let models = names.map(|id| Model { id: id.to_owned(), ..Model::default() }).collect();
                let mut metadata = Metadata { models, ..Metadata::default() };
                if let Some(ranks) = self.ranks.get(&*target.url) {
                    metadata.dialect = Dialect::Sglang;
                    metadata.labels.push(("dp_size", ranks.to_string()));
                }
                Event::Described { worker, metadata: Box::new(metadata) }
            }
            Task::Poll { worker, target, endpoints } => {
                let page = self.pages.get(&*target.url).filter(|_| self.is_alive(&target));
                let load = page.map(|page| page.load).filter(EngineLoad::is_known);
                let marks = page.map(|page| page.marks);
                Event::Polled {
                    worker,
                    polled: Box::new(Polled {
                        load,
                        marks,
                        prefix: page.and_then(|page| page.prefix),
                        endpoints,
                    }),
                }
            }
            Task::Call { ticket, question, targets } => {
                let answers = targets.iter().map(|target| self.said(&question, target)).collect();
                Event::Called { ticket, answers }
            }
        }
    }

    fn said(&self, question: &Question, target: &Target) -> Result<Bytes, Failure> {
        let body = match question {
            _ if !self.is_alive(target) => return Err(Failure::Connect),
            Question::FlushCache => "Cache flushed.",
            Question::Load => r#"[{"num_tokens":4},{"num_tokens":6}]"#,
            Question::ModelInfo => r#"{"model_path":"m"}"#,
            Question::IsSleeping => r#"{"is_sleeping":true}"#,
            Question::Sleep(_) | Question::WakeUp(_) => "",
        };
        Ok(Bytes::from_static(body.as_bytes()))
    }

    fn is_alive(&self, target: &Target) -> bool {
        self.alive.contains(&*target.url)
    }
}

/// The answer, if it has come.
pub(crate) fn answer(reply: &mut Reply) -> Option<AdminReply> {
    reply.try_recv().expect("no call is dropped unanswered")
}

/// Its body as text.
pub(crate) fn text(reply: &AdminReply) -> &str {
    std::str::from_utf8(&reply.body).expect("answers are text")
}
