//! Tasks against workers on real sockets.

use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use engine::incarnation::Marks;
use engine::load::EngineLoad;
use engine::metadata::Dialect;
use fleet::id::WorkerId;

use super::*;
use crate::control::event::Failure;
use crate::control::poll::Endpoints;
use crate::control::poll::Place;
use crate::control::poll::Polled;
use crate::control::task::Ask;
use crate::control::task::Lookup;
use crate::control::task::Question;
use crate::control::task::Target;
use crate::services::fake_worker::nobody;
use crate::services::fake_worker::target;

const WORKER: WorkerId = WorkerId { index: 0, generation: 1 };
/// Far more than anything here takes; only a fault waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const SGLANG: fake_worker::Table = &[
    ("GET /health", 200, ""),
    ("GET /moved", 302, ""),
    ("GET /v1/models", 200, r#"{"data":[{"id":"m","owned_by":"sglang","max_model_len":9}]}"#),
    ("GET /get_server_info", 200, r#"{"version":"1.0","served_model_name":"m","random_seed":7}"#),
    ("POST /reset_prefix_cache", 200, "done"),
    ("GET /get_load", 200, r#"[{"num_tokens":3}]"#),
];

fn spawned(results: Sender<Event>, extra: Vec<ExtraTask>) -> (ServicesHandle, JoinHandle<()>) {
    let tls = tls::client(&[], None).expect("no files");
    Services::new().and_then(|new| new.spawn(results, Destinations::Usual, &tls, extra)).expect("a thread")
}

fn services() -> (ServicesHandle, Receiver<Event>) {
    let (results, inbox) = crossbeam_channel::bounded(1);
    let (handle, _thread) = spawned(results, Vec::new());
    (handle, inbox)
}

fn outcome(task: Task) -> Event {
    let (handle, inbox) = services();
    handle.send(task).expect("there is room");
    inbox.recv_timeout(PATIENCE).expect("every task has an outcome")
}

#[track_caller]
fn check_probe(url: &str, key: Option<&str>, expect: Result<u16, Failure>) {
    let task = Task::Probe {
        worker: WORKER,
        target: target(url, key),
        ask: Ask::Path("/health".into()),
        lookup: Lookup::Needless,
        timeout: PATIENCE,
    };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    assert_eq!(probe.answer, expect);
}

#[test]
fn a_probe_tells_what_the_worker_answered() {
    check_probe(&fake_worker::spawn(SGLANG, None), None, Ok(200));
    check_probe(&fake_worker::spawn(&[], None), None, Ok(404));
    check_probe(&fake_worker::spawn(SGLANG, Some("k")), Some("k"), Ok(200));
    check_probe(&fake_worker::spawn(SGLANG, Some("k")), None, Ok(401));
    check_probe(&nobody(), None, Err(Failure::Connect));
    for bytes in [&b""[..], b"no HTTP at all\r\n\r\n", b"HTTP/1.1 2"] {
        check_probe(&fake_worker::saying(bytes), None, Err(Failure::Body));
    }
}

#[test]
fn redirects_are_not_followed() {
    let target = target(&fake_worker::spawn(SGLANG, None), None);
    let task = Task::Probe {
        worker: WORKER,
        target,
        ask: Ask::Path("/moved".into()),
        lookup: Lookup::Needless,
        timeout: PATIENCE,
    };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    assert_eq!(probe.answer, Ok(302));
}

#[test]
fn a_name_is_looked_up() {
    let target = target("http://localhost:7", None);
    let task =
        Task::Probe { worker: WORKER, target, ask: Ask::Nothing, lookup: Lookup::Needed, timeout: PATIENCE };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    let addresses = probe.addresses.expect("localhost has addresses");
    assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    assert_eq!(probe.answer, Ok(200));
}

#[test]
fn a_name_for_a_forbidden_address_leads_nowhere() {
    // Resolvers read this as 169.254.169.254, as they would a name that leads there.
    let (url, host) = ("http://0xa9fea9fe:80".into(), "0xa9fea9fe".into());
    let target = Arc::new(Target { url, host, port: 80, rank: None, authorization: None });
    let task =
        Task::Probe { worker: WORKER, target, ask: Ask::Nothing, lookup: Lookup::Needed, timeout: PATIENCE };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    assert_eq!((probe.addresses, probe.answer), (None, Err(Failure::Destination)));
}

#[test]
fn metadata_is_gathered_from_whatever_answers() {
    let target = target(&fake_worker::spawn(SGLANG, None), None);
    let Event::Described { metadata, .. } = outcome(Task::Describe { worker: WORKER, target }) else {
        unreachable!("a description is described")
    };
    assert_eq!((metadata.dialect, metadata.version.as_deref()), (Dialect::Sglang, Some("1.0")));
    assert_eq!(metadata.model_names(), ["m"]);
}

#[track_caller]
fn check_poll(table: fake_worker::Table, endpoints: Endpoints, expect: Polled) {
    let target = target(&fake_worker::spawn(table, None), None);
    let Event::Polled { polled, .. } = outcome(Task::Poll { worker: WORKER, target, endpoints }) else {
        unreachable!("a poll is polled")
    };
    assert_eq!(*polled, expect);
}

#[test]
fn a_poll_finds_out_where_an_engine_answers() {
    use Place::At;
    use Place::Nowhere;
    let endpoints = |load, metrics, identity| Endpoints { load, metrics, identity };
    let sglang = Endpoints::of(Dialect::Sglang);
    let tokens = |tokens| Some(EngineLoad { tokens: Some(tokens), ..EngineLoad::default() });
    // An old SGLang without metrics: its load by the old path, its start by what it drew.
    let old = Polled {
        load: tokens(3),
        prefix: None,
        marks: Some(Marks { start_id: Some(7), ..Marks::default() }),
        endpoints: endpoints(At(1), Nowhere, At(1)),
    };
    check_poll(SGLANG, sglang, old);
    const NEW: fake_worker::Table = &[
        ("GET /v1/loads", 200, r#"{"loads":[{"num_total_tokens":5}]}"#),
        ("GET /metrics", 200, "sglang:num_running_reqs 2\nsglang:num_used_tokens 4\n"),
    ];
    let new = Polled {
        load: Some(EngineLoad { running: Some(2), ..tokens(5).expect("given") }),
        prefix: None,
        marks: Some(Marks { has_page: true, ..Marks::default() }),
        endpoints: Endpoints { identity: sglang.identity, ..endpoints(At(0), At(0), Nowhere) },
    };
    check_poll(NEW, sglang, new);
    const VLLM: fake_worker::Table = &[("GET /metrics", 200, "vllm:num_requests_running 0\n")];
    let vllm = Polled {
        load: Some(EngineLoad { running: Some(0), ..EngineLoad::default() }),
        prefix: None,
        marks: Some(Marks { has_page: true, ..Marks::default() }),
        endpoints: endpoints(Nowhere, At(0), Nowhere),
    };
    check_poll(VLLM, Endpoints::of(Dialect::Vllm), vllm);
    // llama.cpp without --metrics.
    const SILENT: fake_worker::Table = &[("GET /metrics", 501, "")];
    check_poll(
        SILENT,
        Endpoints::of(Dialect::LlamaCpp),
        Polled::failed(endpoints(Nowhere, Nowhere, Nowhere)),
    );
    // A path that has gone is looked for again; one that fails is not.
    let known = endpoints(At(0), At(0), Nowhere);
    check_poll(&[], known, Polled::failed(endpoints(Place::Untried, Place::Untried, Nowhere)));
    const SICK: fake_worker::Table = &[("GET /metrics", 500, ""), ("GET /v1/loads", 503, "")];
    check_poll(SICK, known, Polled::failed(known));
}

#[test]
fn answers_come_in_the_order_of_the_targets() {
    let ask = |question| {
        let urls = [fake_worker::spawn(SGLANG, None), nobody(), fake_worker::spawn(&[], None)];
        let targets = urls.iter().map(|url| target(url, None)).collect();
        let Event::Called { ticket: 7, answers } = outcome(Task::Call { ticket: 7, question, targets })
        else {
            unreachable!("a call is called")
        };
        answers
    };
    let failures = [Err(Failure::Connect), Err(Failure::Status(404))];
    let [reset, load] = ["done", r#"[{"num_tokens":3}]"#].map(|text| Ok(Bytes::from_static(text.as_bytes())));
    assert_eq!(ask(Question::FlushCache), [&[reset], &failures[..]].concat());
    assert_eq!(ask(Question::Load), [&[load], &failures[..]].concat());
}

#[test]
fn the_thread_ends_with_its_handle_and_runs_extra_tasks_until_then() {
    let (results, _inbox) = crossbeam_channel::bounded(1);
    let (started, is_started) = crossbeam_channel::bounded(1);
    let extra: ExtraTask = Box::new(move || {
        Box::pin(async move {
            started.send(()).expect("the test waits");
            std::future::pending::<()>().await;
        })
    });
    let (handle, thread) = spawned(results, vec![extra]);
    is_started.recv_timeout(PATIENCE).expect("the extra task runs");
    drop(handle);
    thread.join().expect("it ends in order");
}

#[test]
fn a_signal_before_the_first_turn_is_not_lost() {
    let services = Services::new().expect("a runtime");
    let mut signals = services.catch(SignalKind::hangup()).expect("it can be caught");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("our own");
    let (results, _inbox) = crossbeam_channel::bounded(1);
    let (heard, is_heard) = crossbeam_channel::bounded(1);
    let extra: ExtraTask = Box::new(move || {
        Box::pin(async move {
            signals.recv().await.expect("it is caught");
            heard.send(()).expect("the test waits");
        })
    });
    let tls = tls::client(&[], None).expect("no files");
    let _thread = services.spawn(results, Destinations::Usual, &tls, vec![extra]).expect("a thread");
    is_heard.recv_timeout(PATIENCE).expect("the signal arrives");
}
