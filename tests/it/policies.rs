//! Every policy on the real gateway: keys that stick, answers that are continued, labels that decide, and reasons
//! that are told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::Setup;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    a_key_has_one_worker_over_all_shards
}

fn start(launch: Launch, workers: &[Worker]) -> Gateway {
    workers.iter().fold(launch, |launch, worker| launch.worker(worker.url())).start()
}

fn answering(count: usize) -> Vec<Worker> {
    (0..count).map(|_| Worker::answering()).collect()
}

/// The worker that answers, over a fresh connection.
#[track_caller]
fn asked(gateway: &Gateway, request: &Request) -> String {
    let response = gateway.ask(request);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["worker"].as_str().expect("a worker").to_owned()
}

fn a_key_has_one_worker_over_all_shards(setup: Setup) {
    for policy in ["manual", "consistent_hashing", "session"] {
        let workers = answering(4);
        let launch = binary().flag("--shards", setup.shards).flag("--io-driver", setup.driver);
        let launch = launch.flag("--policy", policy).flag("--session-key", "x-session-id");
        let gateway = start(launch, &workers);
        let mut homes = BTreeMap::new();
        for round in 0..4 {
            for key in 0..24 {
                let request = chat("hello").header("X-Session-ID", &format!("session {key}"));
                let at = asked(&gateway, &request);
                let home = homes.entry(key).or_insert_with(|| at.clone());
                assert_eq!(*home, at, "{policy}: key {key}, round {round}");
            }
        }
        assert!(homes.values().collect::<BTreeSet<_>>().len() >= 3, "{policy}: {homes:?}");
    }
}

/// The reference vectors of the production-stack's ring need its very URLs.
#[test]
fn a_session_in_the_body_is_as_good_as_in_a_header() {
    let workers = answering(4);
    let gateway = start(binary().flag("--policy", "session").flag("--session-key", "user"), &workers);
    for user in ["alice", "bob", "carol", "dave"] {
        let by_header = asked(&gateway, &chat("one").header("user", user));
        let body = format!(r#"{{"model":"mock","user":"{user}","messages":[]}}"#);
        assert_eq!(asked(&gateway, &Request::json(CHAT, body)), by_header);
    }
}

#[test]
fn a_killed_worker_gives_its_keys_to_others() {
    let mut workers = answering(3);
    let gateway = start(binary().flag("--policy", "manual"), &workers);
    let ask = |key: usize| asked(&gateway, &chat("x").header("X-SMG-Routing-Key", &key.to_string()));
    let before: Vec<String> = (0..12).map(ask).collect();
    let gone = workers.remove(0);
    let gone_url = gone.url();
    drop(gone);
    for (key, home) in before.iter().enumerate() {
        let now = ask(key);
        assert_ne!(now, gone_url);
        assert!(*home == gone_url || *home == now, "key {key} moved without need");
    }
}

#[test]
fn a_named_worker_gets_the_request_and_a_bad_name_none() {
    let workers = answering(3);
    let gateway = start(binary().flag("--policy", "consistent_hashing"), &workers);
    let named = |target: &str| chat("x").header("X-SMG-Target-Worker", target);
    for (at, worker) in workers.iter().enumerate() {
        assert_eq!(asked(&gateway, &named(&at.to_string())), worker.url());
    }
    for bad in ["3", "-1", "first"] {
        let response = gateway.ask(&named(bad));
        assert_eq!((response.status, response.error_code().as_deref()), (503, Some("no_available_workers")));
    }
}

#[test]
fn an_answer_is_continued_where_it_is() {
    let workers = answering(4);
    for (at, worker) in workers.iter().enumerate() {
        let body = format!(r#"{{"id":"resp_{at}","worker":"{}"}}"#, worker.url());
        worker.answer_with(&testkit::worker::json_answer(&body));
    }
    let gateway = start(binary().flag("--policy", "cache_aware"), &workers);
    let ask = |body: String| {
        let response = gateway.ask(&Request::json("/v1/responses", body)).json();
        (response["id"].as_str().expect("an id").to_owned(), response["worker"].clone())
    };
    for n in 0..12 {
        let (id, worker) = ask(format!(r#"{{"model":"mock","input":"{n} to begin with"}}"#));
        for turn in 0..3 {
            let body = format!(r#"{{"model":"mock","previous_response_id":"{id}","input":"{turn} {n} on"}}"#);
            assert_eq!(ask(body), (id.clone(), worker.clone()));
        }
    }
}

/// The id comes in the first event, which may come after the head.
#[test]
fn an_answer_that_is_streamed_is_continued_too() {
    let workers: Vec<Worker> = (0..4).map(|_| Worker::manual()).collect();
    let gateway = start(binary().flag("--policy", "cache_aware"), &workers);
    let begin = |body: &str| {
        let mut client = gateway.client();
        client.send(&Request::json("/v1/responses", body).bytes());
        let found = wait::some("the request at a worker", || {
            workers.iter().enumerate().find_map(|(at, worker)| Some((at, worker.exchange_now()?)))
        });
        (client, found)
    };
    for n in 0..8 {
        let (mut client, (at, mut exchange)) =
            begin(&format!(r#"{{"model":"mock","stream":true,"input":"{n} to begin with"}}"#));
        exchange.open_stream();
        exchange.event(&format!(r#"{{"type":"response.created","response":{{"id":"resp_{n}"}}}}"#));
        assert_eq!(client.head().0, 200);
        assert!(client.event().is_some());
        exchange.close_stream();
        let (mut client, (again, exchange)) =
            begin(&format!(r#"{{"model":"mock","previous_response_id":"resp_{n}","input":"and on"}}"#));
        assert_eq!(again, at);
        exchange.answer("{}");
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_label_decides_on_the_policy_of_its_model() {
    let (a, b, c) = (Worker::answering_as("one"), Worker::answering_as("one"), Worker::answering_as("two"));
    let gateway = binary().flag("--policy", "random").start_listening();
    for (worker, policy) in [(&a, "round_robin"), (&b, "round_robin"), (&c, "least_load")] {
        let body = format!(r#"{{"url":"{}","labels":{{"policy":"{policy}"}}}}"#, worker.url());
        assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    }
    gateway.wait_healthy(3);
    let ask = |model: &str| {
        asked(&gateway, &Request::json(CHAT, format!(r#"{{"model":"{model}","messages":[]}}"#)))
    };
    let turns: Vec<String> = (0..4).map(|_| ask("one")).collect();
    assert!(turns[0] != turns[1] && turns[0] == turns[2] && turns[1] == turns[3], "{turns:?}");
    assert_eq!(ask("two"), c.url());
    let metrics = gateway.metrics();
    let chosen = |policy: &str| metrics.sum("smg_worker_selection_total", &[&format!("policy=\"{policy}\"")]);
    assert_eq!(["round_robin", "least_load", "random"].map(chosen), [4.0, 1.0, 0.0]);
    let decisions = decisions(&gateway, "");
    let policies: BTreeSet<_> =
        decisions.iter().map(|one| (one["model"].as_str(), one["policy"].as_str())).collect();
    assert_eq!(policies, [(Some("one"), Some("round_robin")), (Some("two"), Some("least_load"))].into());
}

#[test]
fn a_label_without_effect_is_logged() {
    let (first, second, third) = (Worker::answering(), Worker::answering(), Worker::answering());
    let gateway = binary().flag("--policy", "random").start_listening();
    for (count, worker, policy) in
        [(1, &first, "least_load"), (2, &second, "session"), (3, &third, "least-load")]
    {
        let body = format!(r#"{{"url":"{}","labels":{{"policy":"{policy}"}}}}"#, worker.url());
        assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
        gateway.wait_healthy(count);
    }
    let has_warned =
        |worker: &Worker| gateway.has_logged(&["WARN", "policy label has no effect", &worker.url()]);
    wait::until("the label is logged", || has_warned(&second));
    assert!(!has_warned(&first) && !has_warned(&third));
}

#[test]
fn priority_and_cost_are_shares() {
    let (light, heavy) = (Worker::answering(), Worker::answering());
    let gateway = binary().flag("--policy", "round_robin").start_listening();
    for (worker, priority, cost) in [(&light, 50, 2.0), (&heavy, 100, 1.0)] {
        let body = format!(r#"{{"url":"{}","priority":{priority},"cost":{cost}}}"#, worker.url());
        assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    }
    gateway.wait_healthy(2);
    for _ in 0..50 {
        asked(&gateway, &chat("x"));
    }
    assert_eq!((light.received().len(), heavy.received().len()), (10, 40));
}

#[test]
fn a_reason_is_told_to_who_asks_and_may_know() {
    let workers = answering(2);
    let wants = |request: Request| request.header("x-ringway-route", "1");
    let gateway = start(binary().flag("--policy", "cache_aware").switch("--explain-routing"), &workers);
    let text = "a prompt that is long enough to be known again ".repeat(8);
    let first = gateway.ask(&wants(chat(&text)));
    let said = first.headers.get("x-ringway-route").expect("a reason").to_owned();
    assert!(said.starts_with("policy=cache_aware; reason=least_load; worker=http://"), "{said}");
    // The other shard knows once control has published it.
    wait::until("the placement is published", || gateway.metrics().sum("smg_prefix_tree_blocks", &[]) > 0.0);
    let second = gateway.ask(&wants(chat(&text)));
    let said = second.headers.get("x-ringway-route").expect("a reason");
    assert!(said.contains("reason=prefix"), "{said}");
    assert!(gateway.ask(&chat(&text)).headers.get("x-ringway-route").is_none(), "nobody asked");
    let silent = start(binary().flag("--policy", "cache_aware"), &workers);
    assert!(silent.ask(&wants(chat(&text))).headers.get("x-ringway-route").is_none(), "nobody may know");
}

fn decisions(gateway: &Gateway, query: &str) -> Vec<Value> {
    let response = gateway.get(&format!("/debug/decisions{query}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["decisions"].as_array().expect("a list").clone()
}

#[test]
fn decisions_are_remembered_without_text() {
    let workers = answering(2);
    let gateway = start(binary().flag("--policy", "cache_aware"), &workers);
    let secret = "secret words that must not be found anywhere ".repeat(10);
    for _ in 0..5 {
        asked(&gateway, &chat(&secret));
    }
    let all = decisions(&gateway, "");
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by(|a, b| a["at_us"].as_u64() >= b["at_us"].as_u64()), "latest first");
    for decision in &all {
        let chosen = &decision["chosen"];
        let candidates = decision["candidates"].as_array().expect("a list");
        assert!(candidates.iter().any(|candidate| candidate["worker"] == *chosen), "{decision}");
        assert!(workers.iter().any(|worker| decision["worker"] == worker.url()));
    }
    assert_eq!(decisions(&gateway, "?limit=2").len(), 2);
    let lines = gateway.get("/debug/decisions?format=jsonl").text();
    assert!(lines.lines().count() == 5 && !lines.contains("secret"));
    let since = all[2]["at_us"].as_u64().expect("a time");
    assert_eq!(decisions(&gateway, &format!("?since_us={since}")).len(), 3);
    for bad in ["?limit=x", "?format=xml", "?since_us=-1"] {
        assert_eq!(gateway.get(&format!("/debug/decisions{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_worker_that_left_and_came_back_has_no_prefix() {
    let worker = Worker::answering();
    let other = Worker::answering();
    let gateway = start(binary().flag("--policy", "cache_aware"), &[]);
    for url in [worker.url(), other.url()] {
        assert_eq!(gateway.ask(&Request::new("POST", &format!("/add_worker?url={url}"))).status, 200);
    }
    let text = "known on one worker ".repeat(40);
    let home = asked(&gateway, &chat(&text));
    wait::until("the placement is published", || gateway.metrics().sum("smg_prefix_tree_blocks", &[]) > 0.0);
    let addr = if home == worker.url() { worker.url() } else { other.url() };
    // Leaving and coming back is a new registration, whatever its URL.
    assert_eq!(gateway.ask(&Request::new("POST", &format!("/remove_worker?url={addr}"))).status, 200);
    assert_eq!(gateway.metrics().sum("smg_prefix_tree_blocks", &[]), 0.0);
    assert_eq!(gateway.ask(&Request::new("POST", &format!("/add_worker?url={addr}"))).status, 200);
    asked(&gateway, &chat(&text));
    assert_eq!(decisions(&gateway, "?limit=1")[0]["known"], 0);
}
