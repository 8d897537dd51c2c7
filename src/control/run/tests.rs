//! The loop with real services and a worker on a real socket.

use bytes::Bytes;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use fleet::admin::AdminReply;
use fleet::stats::StatsShape;
use futures_channel::oneshot;

use super::*;
use crate::control::destination::Destinations;
use crate::control::rig::config;
use crate::services::Services;
use crate::services::fake_worker;

const WORKER: fake_worker::Table =
    &[("GET /health", 200, ""), ("GET /v1/models", 200, r#"{"data":[{"id":"m"}]}"#)];

struct Running {
    admin: Sender<AdminCall>,
    reports: Sender<Vec<Report>>,
    events: Sender<Event>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    lifecycle: Arc<Lifecycle>,
    control: JoinHandle<()>,
    services: JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        let (state, snapshot) = State::initial(config(&[])).expect("a good configuration");
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let lifecycle = Arc::new(Lifecycle::default());
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        let (reports, reports_inbox) = bounded(8);
        let (admin, admin_inbox) = bounded(8);
        let (events, results) = bounded(limits::RESULTS_QUEUED_MAX);
        let tls = crate::tls::client(&[], None).expect("no files");
        let (handle, services) = Services::new()
            .and_then(|new| new.spawn(events.clone(), Destinations::Usual, &tls, Vec::new()))
            .expect("a thread");
        let doors = Doors {
            reports: reports_inbox,
            admin: admin_inbox,
            results,
            services: handle,
            snapshot: Arc::clone(&snapshot),
            lifecycle: Arc::clone(&lifecycle),
            metrics: None,
            shard_stats: vec![Arc::new(ShardStats::new(&shape))],
        };
        let control = spawn(state, doors, Instant::now()).expect("a thread");
        Self { admin, reports, events, snapshot, lifecycle, control, services }
    }

    /// Sends a request and waits for its answer.
    fn call(&self, method: &str, path: &str, query: Option<&str>) -> AdminReply {
        let (reply, answer) = oneshot::channel();
        let call = AdminCall {
            method: method.into(),
            path: path.into(),
            query: query.map(Into::into),
            body: Bytes::new(),
            request_id: "req-1".into(),
            reply,
        };
        self.admin.send(call).expect("control runs");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(answer).expect("every call is answered")
    }
}

#[test]
fn a_worker_comes_and_the_process_ends() {
    let running = Running::start();
    let url = fake_worker::spawn(WORKER, None);
    let reply = running.call("POST", "/add_worker", Some(&format!("url={url}")));
    assert_eq!(reply.body, format!("Successfully added worker: {url}"));
    // The answer means that the worker can be used.
    let fleet = Arc::clone(&running.snapshot.load().fleet);
    let worker = Arc::clone(fleet.workers.get(fleet.pools[0].members[0]).expect("a member is registered"));
    assert_eq!(*worker.url, *url);

    let report = Report::Placed { worker: worker.id, version: u64::MAX, blocks: [1, 2, 3].into() };
    running.reports.send(vec![report]).expect("control runs");
    while running.snapshot.load().tree.find([1, 2, 3].as_slice()).holders().len() == 0 {
        std::thread::yield_now();
    }

    // Shards end before control does.
    drop((running.admin, running.reports));
    running.events.send(Event::Terminate).expect("control runs");
    running.control.join().expect("control ends in order");
    running.services.join().expect("services end in order");
    assert_eq!(running.lifecycle.phase(), Phase::Stopping);
}

#[test]
fn a_call_nobody_waits_for_does_no_harm() {
    let running = Running::start();
    let url = fake_worker::nobody();
    let (reply, answer) = oneshot::channel();
    drop(answer);
    let call = AdminCall {
        method: "POST".into(),
        path: "/add_worker".into(),
        query: Some(format!("url={url}").into()),
        body: Bytes::new(),
        request_id: "req-1".into(),
        reply,
    };
    running.admin.send(call).expect("control runs");
    let list = running.call("GET", "/list_workers", None);
    assert_eq!(list.body, format!(r#"{{"urls":["{url}"]}}"#));
    let removed = running.call("POST", "/remove_worker", Some(&format!("url={url}")));
    assert_eq!(removed.status, 200);
}
