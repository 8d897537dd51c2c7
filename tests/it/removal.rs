//! Removal: no request in flight is cut, and no new one is sent.

use testkit::client::Request;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    removal_lets_a_running_stream_finish
    a_worker_may_come_back_after_its_removal
}

fn removal_lets_a_running_stream_finish(setup: Setup) {
    let (leaving, staying) = (Worker::manual(), Worker::answering());
    let gateway = setup.start(&[&leaving, &staying]);
    // Round robin: one of two goes to the worker that will be removed.
    let mut clients = [gateway.client(), gateway.client()];
    for client in &mut clients {
        client.send(&chat_stream("hello").bytes());
    }
    let mut exchange = leaving.exchange();
    exchange.open_stream();
    exchange.event("1");
    let mut streaming = clients
        .into_iter()
        .find_map(|mut client| (client.head().1.get("transfer-encoding").is_some()).then_some(client))
        .expect("one of them streams");
    assert_eq!(streaming.event().as_deref(), Some("data: 1"));
    let removed = gateway.ask(&Request::new("POST", &format!("/remove_worker?url={}", leaving.url())));
    assert_eq!(removed.status, 200, "{}", removed.text());
    wait::until("no new request goes there", || gateway.get("/readiness").json()["healthy_workers"] == 1);
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.ask(&chat("hello")).json()["worker"], staying.url());
    }
    for at in 2..50 {
        exchange.event(&at.to_string());
        assert_eq!(streaming.event(), Some(format!("data: {at}")));
    }
    exchange.close_stream();
    assert_eq!(streaming.events(), ["[DONE]"]);
    gateway.wait_idle();
    assert_eq!(gateway.get("/list_workers").json()["urls"], serde_json::json!([staying.url()]));
}

fn a_worker_may_come_back_after_its_removal(setup: Setup) {
    let worker = Worker::manual();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    client.send(&chat("old").bytes());
    let old = worker.exchange();
    for _ in 0..3 {
        let url = worker.url();
        assert_eq!(gateway.ask(&Request::new("POST", &format!("/remove_worker?url={url}"))).status, 200);
        let again = gateway.ask(&Request::new("POST", &format!("/add_worker?url={url}")));
        assert_eq!(again.text(), format!("Successfully added worker: {url}"));
        let mut client = gateway.client();
        client.send(&chat("new").bytes());
        worker.exchange().answer("{\"new\":1}");
        assert_eq!(client.response().text(), "{\"new\":1}");
    }
    old.answer("{\"old\":1}");
    assert_eq!(client.response().text(), "{\"old\":1}");
    gateway.wait_idle();
}
