//! Several models behind one gateway: registered while it runs, each routed by a policy of its own.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::binary;

/// What SGLang's guide starts, with a port of our own.
fn start() -> Gateway {
    let launch = binary().switch("--enable-igw").flag("--policy", "cache_aware");
    launch.flag("--max-concurrent-requests", 512).start_listening()
}

fn register(gateway: &Gateway, body: &Value) -> Response {
    let response = gateway.ask(&Request::json("/workers", body.to_string()));
    assert_eq!(response.status, 202, "{}", response.text());
    response
}

/// The two registrations of SGLang's guide, and their workers.
fn two_models(gateway: &Gateway) -> (Worker, Worker) {
    let (mistral, llama) = (Worker::answering_as("a"), Worker::answering_as("b"));
    register(
        gateway,
        &json!({"url": mistral.url(), "model_id": "mistral", "priority": 10, "labels": {"tier": "gold"}}),
    );
    register(
        gateway,
        &json!({
            "url": llama.url(),
            "model_id": "llama3",
            "priority": 20,
            "labels": {"policy": "power_of_two", "tier": "silver"}
        }),
    );
    gateway.wait_healthy(2);
    (mistral, llama)
}

fn chat_of(model: &str) -> Request {
    Request::json(CHAT, json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string())
}

#[test]
fn the_guides_registrations_work_as_printed() {
    let gateway = start();
    assert_eq!(gateway.get("/readiness").status, 503, "no route yet");
    let (mistral, llama) = two_models(&gateway);
    assert_eq!(gateway.get("/readiness").status, 200);
    let listed = gateway.get("/workers").json();
    assert_eq!(listed["total"], 2);
    assert_eq!(listed["stats"], json!({"prefill_count": 0, "decode_count": 0, "regular_count": 2}));
    let of = |url: String| -> Value {
        let workers = listed["workers"].as_array().expect("a list");
        workers.iter().find(|worker| worker["url"] == url.as_str()).cloned().expect("it is listed")
    };
    for (worker, model, priority, tier) in
        [(&mistral, "mistral", 10, "gold"), (&llama, "llama3", 20, "silver")]
    {
        let shown = of(worker.url());
        assert_eq!(shown["model_id"], model);
        assert_eq!(shown["priority"], priority);
        assert_eq!(shown["cost"], 1.0);
        assert_eq!(shown["worker_type"], "regular");
        assert_eq!(shown["is_healthy"], true);
        assert_eq!(shown["load"], 0);
        assert_eq!(shown["metadata"]["tier"], tier);
    }
    let listed = gateway.get("/v1/models").json();
    let ids: Vec<&Value> =
        listed["data"].as_array().expect("a list").iter().map(|card| &card["id"]).collect();
    assert_eq!(ids, ["llama3", "mistral"]);
}

#[test]
fn a_request_gets_the_model_it_names() {
    let gateway = start();
    let (mistral, llama) = two_models(&gateway);
    for (worker, model) in [(&mistral, "mistral"), (&llama, "llama3")] {
        for _ in 0..3 {
            assert_eq!(gateway.ask(&chat_of(model)).status, 200);
        }
        assert_eq!(worker.received().len(), 3);
    }
    let unknown = gateway.ask(&chat_of("qwen"));
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    assert!(unknown.text().contains("llama3, mistral"), "{}", unknown.text());
    let unnamed = gateway.ask(&Request::json(CHAT, r#"{"messages":[]}"#));
    assert_eq!(unnamed.status, 400);
    assert!(unnamed.text().contains("Available models: llama3, mistral"), "{}", unnamed.text());
}

#[test]
fn one_model_is_served_under_its_name_alone() {
    let gateway = start();
    let worker = Worker::answering_as("base");
    register(&gateway, &json!({"url": worker.url()}));
    gateway.wait_healthy(1);
    assert_eq!(gateway.ask(&chat_of("base")).status, 200);
    assert_eq!(gateway.ask(&Request::json(CHAT, r#"{"messages":[]}"#)).status, 200);
    assert_eq!(gateway.ask(&chat_of("other")).status, 404);
}

#[test]
fn a_model_may_have_other_names() {
    let launch = PLAIN.launch().switch("--enable-igw");
    let launch = launch.flag("--model-alias", "gpt-4o=llama3").switch("fast=mistral").switch("dead=nobody");
    let gateway = launch.start_listening();
    let (mistral, llama) = two_models(&gateway);
    assert_eq!(gateway.ask(&Request::json(CHAT, r#"{ "model" : "gpt-4o", "x": [1, 2]}"#)).status, 200);
    let received = llama.received().pop().expect("it went to the model's worker");
    assert_eq!(String::from_utf8_lossy(&received.body), r#"{ "model" : "llama3", "x": [1, 2]}"#);
    assert_eq!(gateway.ask(&chat_of("fast")).status, 200);
    assert_eq!((mistral.received().len(), llama.received().len()), (1, 1));
    assert_eq!(gateway.ask(&chat_of("llama3")).status, 200, "its own name is as good");
    let unknown = gateway.ask(&chat_of("dead"));
    assert_eq!((unknown.status, unknown.error_code().as_deref()), (404, Some("model_not_found")));
    assert!(unknown.text().contains("Model 'nobody' not found"), "{}", unknown.text());
    assert!(!gateway.get("/v1/models").text().contains("gpt-4o"), "they are not listed");
    for (given, told) in [("gpt", "--model-alias gpt is not ALIAS=MODEL"), ("=m", "is not ALIAS=MODEL")] {
        let ended = PLAIN.launch().flag("--model-alias", given).run_to_end();
        assert!(ended.code == Some(2) && ended.stderr[0].contains(told), "{ended:?}");
    }
    let ended = PLAIN.launch().flag("--model-alias", "a=b").switch("a=c").run_to_end();
    assert!(ended.stderr[0].contains("--model-alias a is given for two models"), "{ended:?}");
}

#[test]
fn rerank_goes_to_the_model_of_its_body() {
    let gateway = start();
    let (mistral, llama) = two_models(&gateway);
    let body = json!({"model": "llama3", "query": "q", "documents": ["d"]}).to_string();
    assert_eq!(gateway.ask(&Request::json("/v1/rerank", body)).status, 200);
    assert_eq!((mistral.received().len(), llama.received().len()), (0, 1));
}

#[test]
fn a_registration_is_followed_by_url_from_pending_to_done() {
    let gateway = start();
    let worker = Worker::answering_as("m");
    worker.set_health(503);
    register(&gateway, &json!({"url": worker.url()}));
    let path = format!("/workers/{}", worker.url().replace(':', "%3A").replace('/', "%2F"));
    let job = gateway.get(&path).json()["job_status"].clone();
    assert!(["pending", "processing"].contains(&job["status"].as_str().unwrap_or_default()), "{job}");
    assert_eq!(job["job_type"], "AddWorker");
    assert_eq!(job["worker_url"], worker.url());
    assert!(job["timestamp"].is_u64(), "{job}");
    worker.set_health(200);
    gateway.wait_healthy(1);
    wait::until("the job is over", || gateway.get(&path).json().get("job_status").is_none());
}
