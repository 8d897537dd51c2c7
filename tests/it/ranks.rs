//! Data-parallel ranks: each gets its requests, named in their bodies, over one address.

use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::Setup;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    every_rank_gets_its_turn_and_is_named
    a_long_body_is_not_changed_but_for_the_rank
}

fn start(setup: Setup, worker: &Worker, ranks: u16) -> Gateway {
    worker.set_ranks(ranks);
    let launch = setup.launch().switch("--dp-aware").worker(worker.url());
    let gateway = launch.start_listening();
    gateway.wait_healthy(ranks.into());
    gateway
}

fn every_rank_gets_its_turn_and_is_named(setup: Setup) {
    let worker = Worker::answering();
    let gateway = start(setup, &worker, 3);
    for _ in 0..6 {
        assert_eq!(gateway.ask(&chat("hello")).status, 200);
    }
    let mut ranks: Vec<u64> = (worker.received().iter())
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            assert_eq!(request.headers.get("host"), Some(&*worker.addr().to_string()));
            body["data_parallel_rank"].as_u64().expect("a rank")
        })
        .collect();
    ranks.sort_unstable();
    assert_eq!(ranks, [0, 0, 1, 1, 2, 2]);
}

fn a_long_body_is_not_changed_but_for_the_rank(setup: Setup) {
    let worker = Worker::answering();
    let gateway = start(setup, &worker, 2);
    let text = "words \\u00e9 ".repeat(40_000);
    let body = format!(
        "{{ \"messages\": [{{\"role\":\"user\",\"content\":\"{text}\"}}],\r\n \"data_parallel_rank\": 9 }}\n"
    );
    assert_eq!(gateway.ask(&Request::json(CHAT, body.clone())).status, 200);
    let received = worker.received().pop().expect("a request").body;
    let kept = body.trim_end().trim_end_matches('}').trim_end();
    let added = std::str::from_utf8(&received).expect("text").strip_prefix(kept).expect("the client's bytes");
    assert!([",\"data_parallel_rank\":0}", ",\"data_parallel_rank\":1}"].contains(&added), "{added}");
}

#[test]
fn a_body_that_cannot_name_a_rank_is_refused() {
    let worker = Worker::answering();
    worker.set_ranks(2);
    let gateway = binary().switch("--dp-aware").worker(worker.url()).start_listening();
    gateway.wait_healthy(2);
    let refused = gateway.ask(&Request::json(CHAT, "{\"messages\":[]} x"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(worker.received().is_empty());
}

#[test]
fn ranks_are_listed_and_removed_with_their_engine() {
    let worker = Worker::answering();
    worker.set_ranks(2);
    let gateway = binary().switch("--dp-aware").worker(worker.url()).start_listening();
    gateway.wait_healthy(2);
    let urls: Vec<String> =
        (gateway.workers().iter()).map(|shown| shown["url"].as_str().expect("a URL").to_owned()).collect();
    assert_eq!(urls, [0, 1].map(|rank| format!("{}@{rank}", worker.url())));
    let flushed = gateway.ask(&Request::new("POST", "/flush_cache")).json();
    assert_eq!((flushed["workers_flushed"].as_u64(), worker.asked("POST /flush_cache")), (Some(1), 1));
    let removed = gateway.ask(&Request::new("POST", &format!("/remove_worker?url={}", worker.url())));
    assert_eq!(removed.status, 200);
    gateway.wait_healthy(0);
}
