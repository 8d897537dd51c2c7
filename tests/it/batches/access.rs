//! Whose files and batches they are, and by whose credentials requests are made.

use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Signal;
use testkit::worker::Exchange;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use super::ANYBODY;
use super::Caller;
use super::Folder;
use super::assert_echoes;
use super::echo;
use super::input;
use super::text;
use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::chat;

const BLUE: Caller = Caller { authorization: Some("Bearer sk-blue") };
const MAIN: Caller = Caller { authorization: Some("Bearer sk-main") };

fn refuse(mut exchange: Exchange) {
    let refusal = String::from_utf8(json_answer(r#"{"error":"who?"}"#)).expect("text");
    exchange.send(refusal.replace("200 OK", "401 Unauthorized").as_bytes());
    exchange.keep();
}

#[test]
fn tenants_see_their_own_and_workers_see_no_key() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let keyed = |worker: &Worker| folder.launch(PLAIN, worker).flag("--api-key", "sk-main");
    let mut gateway = keyed(&worker).flag("--tenant-api-key", "blue:sk-blue").start();
    for request in [Request::get("/v1/files"), Request::json("/v1/batches", "{}")] {
        assert_eq!(gateway.ask(&request).error_code().as_deref(), Some("invalid_api_key"));
    }
    let id = BLUE.begin(&gateway, &input(40), "24h");
    let file = BLUE.batch(&gateway, &id)["input_file_id"].clone();
    for path in [format!("/v1/batches/{id}"), format!("/v1/files/{}", text(&file))] {
        assert_eq!(MAIN.ask(&gateway, Request::get(&path)).status, 404, "{path}");
        assert_eq!(MAIN.ask(&gateway, Request::new("DELETE", &path)).status, 404, "{path}");
    }
    assert_eq!(MAIN.create(&gateway, &text(&file), "24h").error_code().as_deref(), Some("file_not_found"));
    assert_eq!(MAIN.content(&gateway, &file).status, 404);
    for list in ["/v1/files", "/v1/batches"] {
        assert_eq!(MAIN.ask(&gateway, Request::get(list)).json()["data"], Value::Array(Vec::new()));
    }
    for _ in 0..3 {
        echo(worker.exchange());
    }
    // The next process knows the tenant, and needs no key of its.
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    let next = Worker::manual();
    let gateway = keyed(&next).flag("--tenant-api-key", "blue:sk-other").start();
    let blue = Caller { authorization: Some("Bearer sk-other") };
    let done = blue.wait_for(&gateway, &id, "completed", &next, echo);
    assert_echoes(&blue.lines(&gateway, &done["output_file_id"]), 40);
    for request in [worker.received(), next.received()].concat() {
        let head = String::from_utf8_lossy(&request.head).to_lowercase();
        // Workers of the command line are given the gateway's own key.
        assert!(!head.contains("sk-blue") && !head.contains("x-ringway-batch"), "{head}");
    }
}

#[test]
fn a_tenant_without_a_key_has_its_batches_refused() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let keyed = |worker: &Worker| folder.launch(PLAIN, worker).flag("--api-key", "sk-main");
    let mut gateway = keyed(&worker).flag("--tenant-api-key", "blue:sk-blue").start();
    let id = BLUE.begin(&gateway, &input(40), "24h");
    let _kept = worker.exchange();
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    let worker = Worker::manual();
    let mut gateway = keyed(&worker).flag("--tenant-api-key", "red:sk-red").start();
    testkit::wait::until("the batch is over", || gateway.has_logged(&["a batch is over", "failed"]));
    assert!(worker.received().is_empty(), "no worker was asked");
    gateway.signal(Signal::TERM);
    gateway.wait_exit();
    let gateway = keyed(&worker).flag("--tenant-api-key", "blue:sk-blue").start();
    let done = BLUE.batch(&gateway, &id);
    assert_eq!(done["errors"]["data"][0]["code"], "batch_not_allowed", "{done}");
}

#[test]
fn nobody_passes_for_a_batch() {
    let worker = Worker::answering();
    let folder = Folder::new();
    let open = folder.launch(PLAIN, &worker).start();
    let keyed = Folder::new();
    let keyed = keyed.launch(PLAIN, &worker).flag("--api-key", "sk-main").start();
    for gateway in [&open, &keyed] {
        for shown in ["x", "", "x blue", "0000000000000000000000000000000000000000000000000000000000000000"] {
            let answer = gateway.ask(&chat("hello").header("x-ringway-batch", shown));
            assert_eq!(
                (answer.status, answer.error_code().as_deref()),
                (401, Some("batch_not_allowed")),
                "{shown:?}"
            );
        }
    }
    // Where there are no batches, it is a header like any other.
    let without = PLAIN.start(&[&worker]);
    assert_eq!(without.ask(&chat("hello").header("x-ringway-batch", "x")).status, 200);
}

#[test]
fn credentials_for_workers_reach_them_and_no_disk() {
    const SECRET: &str = "sk-for-the-worker";
    let caller = Caller { authorization: Some("Bearer sk-for-the-worker") };
    for is_needed in [true, false] {
        let worker = Worker::manual();
        let folder = Folder::new();
        let mut gateway = folder.launch(PLAIN, &worker).start();
        let id = caller.begin(&gateway, &input(40), "24h");
        for _ in 0..5 {
            let exchange = worker.exchange();
            assert_eq!(exchange.request.headers.get("authorization"), caller.authorization);
            echo(exchange);
        }
        testkit::wait::until("some results are counted", || {
            ANYBODY.batch(&gateway, &id)["request_counts"]["completed"].as_u64() > Some(0)
        });
        assert!(!folder.holds(SECRET), "it is on the disk");
        assert!(gateway.stdout().iter().all(|line| !line.contains(SECRET)));
        gateway.signal(Signal::KILL);
        gateway.wait_exit();
        let worker = Worker::manual();
        let gateway = folder.launch(PLAIN, &worker).start();
        // Workers may do without, as most do.
        if is_needed {
            let done = ANYBODY.wait_for(&gateway, &id, "failed", &worker, refuse);
            assert_eq!(done["errors"]["data"][0]["code"], "credentials_lost", "{done}");
            assert!(!ANYBODY.lines(&gateway, &done["output_file_id"]).is_empty(), "what was done is kept");
        } else {
            let done = ANYBODY.wait_for(&gateway, &id, "completed", &worker, echo);
            assert_echoes(&ANYBODY.lines(&gateway, &done["output_file_id"]), 40);
        }
    }
}

#[test]
fn without_the_flag_there_are_no_such_paths() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for path in [
        "/v1/files",
        "/v1/files/file-1",
        "/v1/files/file-1/content",
        "/v1/batches",
        "/v1/batches/batch_1/cancel",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = gateway.ask(&Request::new(method, path));
            assert_eq!(
                (answer.status, answer.error_code().as_deref()),
                (404, Some("route_not_found")),
                "{path}"
            );
        }
    }
    assert_eq!(gateway.ask(&Request::new("DELETE", CHAT)).status, 405);
}
