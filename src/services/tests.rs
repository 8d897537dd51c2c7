//! Tasks against workers on real sockets.

use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use engine::metadata::Dialect;
use fleet::id::WorkerId;

use super::*;
use crate::control::event::Failure;
use crate::control::task::Lookup;
use crate::control::task::Question;
use crate::services::fake_worker::nobody;
use crate::services::fake_worker::target;

const WORKER: WorkerId = WorkerId { index: 0, generation: 1 };
/// Far more than anything here takes; only a fault waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const SGLANG: fake_worker::Table = &[
    ("GET /health", 200, ""),
    ("GET /moved", 302, ""),
    ("GET /v1/models", 200, r#"{"data":[{"id":"m","owned_by":"sglang","max_model_len":9}]}"#),
    ("GET /get_server_info", 200, r#"{"version":"1.0","served_model_name":"m"}"#),
    ("POST /reset_prefix_cache", 200, "done"),
    ("GET /get_load", 200, r#"[{"num_tokens":3}]"#),
];

fn services() -> (ServicesHandle, Receiver<Event>) {
    let (results, inbox) = crossbeam_channel::bounded(1);
    let (handle, _thread) = spawn(results, Vec::new()).expect("a thread");
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
        path: Some("/health".into()),
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
}

#[test]
fn redirects_are_not_followed() {
    let target = target(&fake_worker::spawn(SGLANG, None), None);
    let task = Task::Probe {
        worker: WORKER,
        target,
        path: Some("/moved".into()),
        lookup: Lookup::Needless,
        timeout: PATIENCE,
    };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    assert_eq!(probe.answer, Ok(302));
}

#[test]
fn a_name_is_looked_up() {
    let target = target("http://localhost:7", None);
    let task = Task::Probe { worker: WORKER, target, path: None, lookup: Lookup::Needed, timeout: PATIENCE };
    let Event::Probed { probe, .. } = outcome(task) else { unreachable!("a probe is probed") };
    let addresses = probe.addresses.expect("localhost has addresses");
    assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    assert_eq!(probe.answer, Ok(200));
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
    let (handle, thread) = spawn(results, vec![extra]).expect("a thread");
    is_started.recv_timeout(PATIENCE).expect("the extra task runs");
    drop(handle);
    thread.join().expect("it ends in order");
}
