//! The fleet's API: adding, showing, changing workers, in today's words and in those of the first router.

use serde_json::Value;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::PLAIN;
use crate::setup::chat;

fn encoded(url: &str) -> String {
    url.replace(':', "%3A").replace('/', "%2F")
}

fn add(gateway: &Gateway, url: &str) -> Response {
    gateway.ask(&Request::json("/workers", format!("{{\"url\":\"{url}\"}}")))
}

#[test]
fn a_worker_is_added_shown_changed_and_removed_by_uuid() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().start_listening();
    let body = format!("{{\"url\":\"{}\",\"priority\":7,\"labels\":{{\"tier\":\"gold\"}}}}", worker.url());
    let added = gateway.ask(&Request::json("/workers", body));
    assert_eq!(added.status, 202, "{}", added.text());
    let said = added.json();
    assert_eq!(
        (said["status"].as_str(), said["url"].as_str()),
        (Some("accepted"), Some(worker.url().as_str()))
    );
    let location = added.headers.get("location").expect("a location").to_owned();
    let uuid = said["worker_id"].as_str().expect("an id").to_owned();
    assert_eq!(location, format!("/workers/{uuid}"));
    gateway.wait_healthy(1);
    let shown = gateway.get(&location).json();
    assert_eq!(shown["id"], uuid.as_str());
    assert_eq!(shown["url"], worker.url());
    assert_eq!(shown["model_id"], "mock");
    assert_eq!(shown["priority"], 7);
    assert_eq!(shown["is_healthy"], true);
    assert_eq!(shown["load"], 0);
    assert_eq!(shown["metadata"]["tier"], "gold");
    let change = Request::new("PUT", &location).header("content-type", "application/json");
    let changed = gateway.ask(&change.body("{\"priority\":9,\"labels\":{\"tier\":\"silver\"}}"));
    assert_eq!(changed.status, 202, "{}", changed.text());
    wait::until("the change shows", || {
        let shown = gateway.get(&location).json();
        shown["priority"] == 9 && shown["metadata"]["tier"] == "silver"
    });
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    assert_eq!(gateway.ask(&Request::new("DELETE", &location)).status, 202);
    gateway.wait_healthy(0);
    wait::until("it is gone", || gateway.get(&location).status == 404);
    assert_eq!(gateway.get("/workers").json()["total"], 0);
}

#[test]
fn a_worker_is_found_by_its_url_too() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let by_url = format!("/workers/{}", encoded(&worker.url()));
    let shown = gateway.get(&by_url).json();
    let by_uuid = gateway.get(&format!("/workers/{}", shown["id"].as_str().expect("an id"))).json();
    assert_eq!(shown, by_uuid);
    let change =
        Request::new("PUT", &by_url).header("content-type", "application/json").body("{\"cost\":2.5}");
    assert_eq!(gateway.ask(&change).status, 202);
    wait::until("the change shows", || gateway.get(&by_url).json()["cost"] == 2.5);
    assert_eq!(gateway.ask(&Request::new("DELETE", &by_url)).status, 202);
    gateway.wait_healthy(0);
}

#[test]
fn the_list_counts_workers() {
    let workers = [Worker::answering(), Worker::answering()];
    let gateway = PLAIN.start(&[&workers[0], &workers[1]]);
    let list = gateway.get("/workers").json();
    assert_eq!(list["total"], 2);
    assert_eq!(list["stats"]["regular_count"], 2);
    let urls: Vec<&Value> =
        list["workers"].as_array().expect("a list").iter().map(|worker| &worker["url"]).collect();
    assert_eq!(urls, [&workers[0].url(), &workers[1].url()]);
}

#[test]
fn a_worker_that_is_there_already_is_a_409() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for url in [worker.url(), format!("{}/", worker.url()), worker.url().replace("http", "HTTP")] {
        let refused = add(&gateway, &url);
        assert_eq!(refused.status, 409, "{url}: {}", refused.text());
        assert_eq!(refused.error_code().as_deref(), Some("WORKER_ALREADY_EXISTS"));
        assert!(refused.text().contains("already exists"));
    }
    assert_eq!(gateway.workers().len(), 1);
}

#[test]
fn urls_that_cannot_be_used_are_a_400_and_change_nothing() {
    let gateway = PLAIN.launch().start_listening();
    for url in
        ["", "127.0.0.1:8000", "ftp://a", "http://", "http://:1", "http://a:0", "http://u:p@a", "http://a?x"]
    {
        for refused in [add(&gateway, url), add_legacy(&gateway, url)] {
            assert_eq!(refused.status, 400, "{url}: {}", refused.text());
        }
        assert!(add(&gateway, url).error_code().is_some(), "{url}");
    }
    for body in ["", "x", "[]", "{}", "{\"url\":1}", "{\"url\":\"http://a\",\"priority\":\"high\"}"] {
        let refused = gateway.ask(&Request::json("/workers", body));
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.error_code().is_some(), "{body}: {}", refused.text());
    }
    assert_eq!(gateway.workers().len(), 0);
}

#[test]
fn an_unknown_worker_is_a_404() {
    let gateway = PLAIN.launch().start_listening();
    for name in ["6f9619ff-8b86-d011-b42d-00cf4fc964ff", "http%3A%2F%2F127.0.0.1%3A1"] {
        for method in ["GET", "DELETE", "PUT"] {
            let request = Request::new(method, &format!("/workers/{name}"));
            let request = if method == "PUT" { request.body("{\"priority\":1}") } else { request };
            let response = gateway.ask(&request);
            assert_eq!(response.status, 404, "{method} {name}: {}", response.text());
            assert_eq!(response.error_code().as_deref(), Some("WORKER_NOT_FOUND"));
        }
    }
    assert_eq!(gateway.get("/workers/what-is-this").error_code().as_deref(), Some("BAD_REQUEST"));
}

fn add_legacy(gateway: &Gateway, url: &str) -> Response {
    gateway.ask(&Request::new("POST", &format!("/add_worker?url={}", encoded(url))))
}

#[test]
fn the_first_routers_endpoints_speak_its_words() {
    let worker = Worker::answering();
    let url = worker.url();
    let gateway = PLAIN.launch().start_listening();
    let added = add_legacy(&gateway, &url);
    assert_eq!((added.status, added.text()), (200, format!("Successfully added worker: {url}")));
    assert!(added.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    // It waited for the worker's health.
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    assert_eq!(gateway.get("/list_workers").json(), serde_json::json!({"urls": [url]}));
    // A URL needs no encoding here, as the seed's own example shows.
    let again = gateway.ask(&Request::new("POST", &format!("/add_worker?url={url}")));
    assert_eq!((again.status, again.text()), (400, format!("Worker {url} already exists")));
    let removed = gateway.ask(&Request::new("POST", &format!("/remove_worker?url={url}")));
    assert_eq!((removed.status, removed.text()), (200, format!("Successfully removed worker: {url}")));
    assert_eq!(gateway.get("/list_workers").json(), serde_json::json!({"urls": []}));
    let removed = gateway.ask(&Request::new("POST", &format!("/remove_worker?url={url}")));
    assert_eq!(removed.status, 200, "an unknown worker is as gone as one that was removed");
    let nothing = gateway.ask(&Request::new("POST", "/add_worker"));
    assert_eq!(
        (nothing.status, nothing.text().as_str()),
        (400, "Worker URL required. Provide 'url' query parameter")
    );
    assert_eq!(gateway.ask(&Request::new("POST", "/remove_worker")).status, 400);
}

#[test]
fn add_worker_answers_when_the_worker_is_healthy() {
    let worker = Worker::answering();
    worker.set_health(503);
    let gateway = PLAIN.launch().start_listening();
    let mut client = gateway.client();
    client.send(&Request::new("POST", &format!("/add_worker?url={}", worker.url())).bytes());
    wait::until("its health is asked twice", || worker.asked("GET /health") >= 2);
    assert!(!client.has_answer());
    worker.set_health(200);
    assert_eq!(client.response().text(), format!("Successfully added worker: {}", worker.url()));
}

#[test]
fn add_worker_gives_up_after_the_startup_timeout() {
    let gateway = PLAIN.launch().flag("--worker-startup-timeout-secs", 1).start_listening();
    let url = format!("http://{}", place::refusing());
    let refused = add_legacy(&gateway, &url);
    let words = format!("Timeout 1s waiting for worker {url} to become healthy");
    assert_eq!((refused.status, refused.text()), (400, words));
    assert_eq!(gateway.get("/list_workers").json(), serde_json::json!({"urls": []}));
}

#[test]
fn readiness_tells_the_truth() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().start_listening();
    let not_ready = gateway.get("/readiness");
    assert_eq!((not_ready.status, &not_ready.json()["status"]), (503, &Value::from("not ready")));
    assert_eq!(gateway.get("/health_generate").status, 503);
    assert_eq!(gateway.get("/health").text(), "OK");
    assert_eq!(gateway.get("/liveness").text(), "OK");
    assert_eq!(add(&gateway, &worker.url()).status, 202);
    gateway.wait_healthy(1);
    let ready = gateway.get("/readiness").json();
    assert_eq!(ready, serde_json::json!({"status": "ready", "healthy_workers": 1, "total_workers": 1}));
    assert_eq!(gateway.get("/health_generate").status, 200);
}

#[test]
fn a_worker_is_unhealthy_after_failed_probes_and_back_after_good_ones() {
    let worker = Worker::answering();
    let gateway = PLAIN
        .launch()
        .flag("--health-check-interval-secs", 1)
        .flag("--health-failure-threshold", 1)
        .flag("--health-success-threshold", 1)
        .worker(worker.url())
        .start();
    worker.set_health(500);
    gateway.wait_healthy(0);
    let refused = gateway.ask(&chat("hello"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(gateway.workers()[0]["is_healthy"], false);
    assert_eq!(gateway.metrics().sum("smg_worker_health", &[&worker.url()]), 0.0);
    worker.set_health(200);
    gateway.wait_healthy(1);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    wait::until("the log names it", || gateway.has_logged(&["unhealthy", &worker.url()]));
}

#[test]
fn workers_that_are_down_at_the_start_join_when_they_come_up() {
    let addr = place::free_port(place::own_ip());
    let gateway = PLAIN.launch().worker(format!("http://{addr}")).start_listening();
    assert_eq!(gateway.get("/readiness").status, 503);
    assert_eq!(gateway.ask(&chat("hello")).status, 503);
    let worker = Worker::manual_at(addr);
    gateway.wait_healthy(1);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    worker.exchange().answer("{}");
    assert_eq!(client.response().status, 200);
}

#[test]
fn models_are_listed_with_what_workers_say() {
    let (left, right) = (Worker::answering_as("left"), Worker::answering_as("right"));
    let gateway = PLAIN.start(&[&left, &right]);
    let response = gateway.get("/v1/models");
    assert_eq!(response.headers.get("content-type"), Some("application/json"));
    let list = response.json();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().expect("a list");
    let ids: Vec<&Value> = models.iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["left", "right"]);
    for model in models {
        assert_eq!(model["object"], "model");
        assert_eq!(model["max_model_len"], 4096);
        assert!(model["created"].is_u64() && model["owned_by"].is_string(), "{model}");
    }
}

#[test]
fn flush_cache_and_loads_ask_every_worker() {
    let workers = [Worker::answering(), Worker::answering()];
    let gateway = PLAIN.start(&[&workers[0], &workers[1]]);
    let flushed = gateway.ask(&Request::new("POST", "/flush_cache"));
    assert_eq!(flushed.status, 200, "{}", flushed.text());
    assert_eq!(flushed.json()["status"], "success");
    assert_eq!(flushed.json()["workers_flushed"], 2);
    for worker in &workers {
        assert_eq!(worker.asked("POST /flush_cache"), 1);
    }
    let loads = gateway.get("/get_loads").json();
    let expect: Vec<Value> =
        workers.iter().map(|worker| serde_json::json!({"worker": worker.url(), "load": 7})).collect();
    assert_eq!(loads["workers"], Value::from(expect));
    workers[1].kill();
    let partly = gateway.ask(&Request::new("POST", "/flush_cache"));
    assert_eq!(partly.status, 206, "{}", partly.text());
    assert_eq!(partly.json()["successful"], serde_json::json!([workers[0].url()]));
    assert_eq!(gateway.get("/get_loads").json()["workers"][1]["load"], -1);
}

#[test]
fn information_pages_say_what_there_is() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    assert_eq!(gateway.get("/get_model_info").json()["model_path"], "mock");
    let info = gateway.get("/get_server_info").json();
    assert_eq!(info["workers_count"], 1);
    assert_eq!(info["policy"], "round_robin");
}
