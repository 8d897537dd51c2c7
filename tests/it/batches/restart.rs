//! A process that ends in the middle of a batch: the next one goes on, and nothing is answered twice.

use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Signal;
use testkit::place;
use testkit::tls::Authority;
use testkit::wait;
use testkit::worker::Worker;

use super::ANYBODY;
use super::Caller;
use super::Folder;
use super::assert_echoes;
use super::echo;
use super::input;
use super::text;
use crate::setup::PLAIN;

const COUNT: usize = 150;

/// Has the worker answer so many requests, and waits until all of these are done.
#[track_caller]
fn answer_some(gateway: &Gateway, caller: Caller, id: &str, worker: &Worker, count: usize) {
    let done = || caller.batch(gateway, id)["request_counts"]["completed"].as_u64().unwrap_or(0) as usize;
    let before = done();
    (0..count).for_each(|_| echo(worker.exchange()));
    wait::until("the answers are on the disk", || done() >= before + count);
}

#[test]
fn every_line_is_answered_once_whatever_ends_the_process() {
    for signal in [Signal::KILL, Signal::TERM] {
        // Each process has a worker of its own, so that nothing of the one before is taken for its own.
        let mut worker = Worker::manual();
        let folder = Folder::new();
        let mut gateway = folder.launch(PLAIN, &worker).start();
        let id = ANYBODY.begin(&gateway, &input(COUNT), "24h");
        for _ in 0..2 {
            answer_some(&gateway, ANYBODY, &id, &worker, 20);
            gateway.signal(signal);
            if signal == Signal::TERM {
                // What is under way is waited for, and counts.
                wait::until("the gateway ends", || {
                    while let Some(exchange) = worker.exchange_now() {
                        echo(exchange);
                    }
                    !gateway.is_running()
                });
            }
            gateway.wait_exit();
            worker = Worker::manual();
            gateway = folder.launch(PLAIN, &worker).start();
            let batch = ANYBODY.batch(&gateway, &id);
            assert_eq!(batch["status"], "in_progress", "{batch}");
        }
        let done = ANYBODY.wait_for(&gateway, &id, "completed", &worker, echo);
        assert_echoes(&ANYBODY.lines(&gateway, &done["output_file_id"]), COUNT);
        assert_eq!(
            (&done["request_counts"]["completed"], &done["error_file_id"]),
            (&COUNT.into(), &Value::Null)
        );
        let asked = worker.received().len();
        assert!(asked <= COUNT - 40, "{asked} were asked with 40 done");
    }
}

#[test]
fn an_input_that_is_gone_fails_the_batch_which_keeps_what_it_has() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let mut gateway = folder.launch(PLAIN, &worker).start();
    let id = ANYBODY.begin(&gateway, &input(COUNT), "24h");
    let file = text(&ANYBODY.batch(&gateway, &id)["input_file_id"]);
    answer_some(&gateway, ANYBODY, &id, &worker, 20);
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    std::fs::remove_file(folder.0.join("files").join(file)).expect("it lies there");
    let worker = Worker::manual();
    let gateway = folder.launch(PLAIN, &worker).start();
    let done = ANYBODY.wait_for(&gateway, &id, "failed", &worker, std::mem::forget);
    assert_eq!(done["errors"]["data"][0]["code"], "file_not_found", "{done}");
    assert!(ANYBODY.lines(&gateway, &done["output_file_id"]).len() >= 20);
}

#[test]
fn an_upgrade_passes_a_batch_on() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let socket = place::temporary("handover");
    let launch = folder
        .launch(PLAIN, &worker)
        .flag("--handover-socket", socket.display())
        .flag("--api-key", "sk-main")
        .flag("--tenant-api-key", "blue:sk-blue");
    let blue = Caller { authorization: Some("Bearer sk-blue") };
    let mut before = launch.spawn();
    wait::until("it listens", || before.has_logged(&["listens"]));
    wait::until("its worker is healthy", || before.get("/readiness").status == 200);
    let id = blue.begin(&before, &input(COUNT), "24h");
    answer_some(&before, blue, &id, &worker, 30);
    let after = launch.spawn();
    wait::until("the new process serves", || {
        assert!(after.stderr().is_empty(), "{:?}", after.stderr());
        after.has_logged(&["listens", "after="])
    });
    let done = blue.wait_for(&after, &id, "completed", &worker, echo);
    assert_echoes(&blue.lines(&after, &done["output_file_id"]), COUNT);
    assert_eq!((&done["errors"], &done["error_file_id"]), (&Value::Null, &Value::Null));
    assert_eq!(before.wait_exit().code(), Some(0), "{:?}", before.stdout());
    let _ = std::fs::remove_file(socket);
}

#[test]
fn of_two_processes_one_works_and_the_other_takes_over() {
    let [worker, other] = [Worker::manual(), Worker::manual()];
    let folder = Folder::new();
    let mut first = folder.launch(PLAIN, &worker).start();
    let second = folder.launch(PLAIN, &other).start();
    wait::until("the second waits", || second.has_logged(&["another process works batches off"]));
    // Made at the one, worked off by the other, seen and cancelled at both.
    let id = ANYBODY.begin(&second, &input(20), "24h");
    let done = ANYBODY.wait_for(&second, &id, "completed", &worker, echo);
    assert_eq!(ANYBODY.batch(&first, &id), done);
    assert_echoes(&ANYBODY.lines(&second, &done["output_file_id"]), 20);
    let cancelled = ANYBODY.begin(&second, &input(20), "24h");
    let under_way = worker.exchange();
    let cancel = Request::new("POST", &format!("/v1/batches/{cancelled}/cancel"));
    assert_eq!(second.ask(&cancel).status, 200);
    under_way.wait_closed();
    ANYBODY.wait_for(&second, &cancelled, "cancelled", &worker, drop);
    let id = ANYBODY.begin(&second, &input(COUNT), "24h");
    answer_some(&second, ANYBODY, &id, &worker, 20);
    assert!(other.received().is_empty(), "one process works");
    first.signal(Signal::KILL);
    first.wait_exit();
    let done = ANYBODY.wait_for(&second, &id, "completed", &other, echo);
    assert_echoes(&ANYBODY.lines(&second, &done["output_file_id"]), COUNT);
    assert!(other.received().len() <= COUNT - 20);
}

#[test]
fn behind_tls_a_batch_asks_its_own_gateway() {
    let authority = Authority::generate();
    let pair = authority.issue("batches");
    let worker = Worker::manual();
    let folder = Folder::new();
    // Made without TLS, worked off with it.
    let mut gateway = folder.launch(PLAIN, &worker).start();
    let id = ANYBODY.begin(&gateway, &input(20), "24h");
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    let worker = Worker::manual();
    let launch = folder
        .launch(PLAIN, &worker)
        .flag("--tls-cert-path", pair.cert.display())
        .flag("--tls-key-path", pair.key.display());
    let mut gateway = launch.start_listening();
    wait::until("the batch is over", || {
        while let Some(exchange) = worker.exchange_now() {
            echo(exchange);
        }
        gateway.has_logged(&["a batch is over", "completed=20"])
    });
    gateway.signal(Signal::TERM);
    gateway.wait_exit();
    let gateway = folder.launch(PLAIN, &worker).start();
    let done = ANYBODY.batch(&gateway, &id);
    assert_echoes(&ANYBODY.lines(&gateway, &done["output_file_id"]), 20);
}
