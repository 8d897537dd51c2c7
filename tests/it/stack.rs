//! The front end of vLLM's production-stack: its flags, endpoints, answers, log and statistics.

mod command_line;
mod dynamic;
mod failover;
mod files;
mod forwarding;
mod pairs;
mod routing;
mod statistics;

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use testkit::client::Client;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::metrics::Metrics;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::binary;

/// A gateway of two shards in front of these engines, each with its model.
fn launch(engines: &[(&Worker, &str)], logic: &str) -> Launch {
    let urls: Vec<String> = engines.iter().map(|(worker, _)| worker.url()).collect();
    let models: Vec<&str> = engines.iter().map(|(_, model)| *model).collect();
    launch_urls(&urls, &models, logic)
}

fn launch_urls(urls: &[String], models: &[&str], logic: &str) -> Launch {
    bare()
        .flag("--static-backends", urls.join(","))
        .flag("--static-models", models.join(","))
        .flag("--routing-logic", logic)
}

/// One that is told only that its engines are in the flags.
fn bare() -> Launch {
    binary().on_one_port().flag("--service-discovery", "static").flag("--shards", 2)
}

/// A chat with this model.
fn chat(model: &str) -> Request {
    Request::json(
        CHAT,
        format!("{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"),
    )
}

/// Who answered.
#[track_caller]
fn worker_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["worker"].as_str().unwrap_or_default().to_owned()
}

/// Lines about choices, which are so many in the end: request id, session, URL.
#[track_caller]
fn choices(gateway: &Gateway, count: usize) -> Vec<(String, String, String)> {
    let choice = |line: &String| {
        let (_, line) = line.split_once("Routing request ")?;
        let (id, line) = line.split_once(" with session id ")?;
        let (session, line) = line.split_once(" to ")?;
        let (url, line) = line.split_once(" at ")?;
        let (at, took) = line.split_once(", process time = ")?;
        let decimals = took.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert!(at.parse::<f64>().is_ok_and(|at| at > 1e9) && decimals == 4, "{line}");
        Some((id.to_owned(), session.to_owned(), url.to_owned()))
    };
    let all = || -> Vec<_> { gateway.stdout().iter().filter_map(choice).collect() };
    wait::until("all choices are logged", || all().len() >= count);
    let all = all();
    assert_eq!(all.len(), count);
    all
}

#[test]
fn the_first_example_of_the_readme_works() {
    let engines = [Worker::answering(), Worker::answering(), Worker::answering()];
    let models = ["facebook/opt-125m", "meta-llama/Llama-3.1-8B-Instruct", "facebook/opt-125m"];
    let urls: Vec<String> =
        engines.iter().map(|worker| worker.url().replace("127.0.0.1", "localhost")).collect();
    let gateway = bare()
        .flag("--static-backends", urls.join(","))
        .flag("--static-models", models.join(","))
        .flag("--engine-stats-interval", 10)
        .switch("--log-stats")
        .flag("--routing-logic", "roundrobin")
        .start_listening();
    gateway.wait_healthy(3);
    assert_eq!(gateway.get("/health").text(), "{\"status\":\"healthy\"}");
    assert_eq!(gateway.get("/version").json(), json!({ "version": env!("CARGO_PKG_VERSION") }));
    let list = gateway.get("/v1/models").json();
    let model = |id: &str, created: &Value| json!({ "id": id, "object": "model", "created": created, "owned_by": "vllm", "root": null, "parent": null });
    let created = &list["data"][0]["created"];
    assert!(created.as_u64().is_some_and(|created| created > 1_700_000_000));
    let data = [model(models[0], created), model(models[1], &list["data"][1]["created"])];
    assert_eq!(list, json!({ "object": "list", "data": data }), "each model once");
    for _ in 0..4 {
        gateway.ask(&chat(models[0]));
    }
    gateway.ask(&chat(models[1]));
    let received: Vec<usize> = engines.iter().map(|engine| engine.received().len()).collect();
    assert_eq!(received, [2, 1, 2]);
}

#[test]
fn engines_are_listed_and_named() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let gateway = launch(&[(&a, "m"), (&b, "m"), (&a, "other")], "roundrobin").start_listening();
    let engines = gateway.get("/engines").json();
    let engines = engines.as_array().expect("a list");
    assert_eq!(engines.len(), 2, "a URL is one engine, whatever it serves");
    for engine in engines {
        let id = engine["engine_id"].as_str().expect("an id");
        assert_eq!(id.len(), 36);
        let asked: Vec<String> = (0..4)
            .map(|_| worker_of(&gateway.ask(&Request::json(&format!("{CHAT}?id={id}"), "{\"model\":\"m\"}"))))
            .collect();
        assert!(asked.iter().all(|url| *url == asked[0]), "pinned: {asked:?}");
    }
    let unknown = gateway.ask(&Request::json(&format!("{CHAT}?id=nobody"), "{\"model\":\"m\"}"));
    let told = json!({ "error": "Model 'm' is temporarily unavailable. Please try again later." });
    assert_eq!((unknown.status, unknown.json()), (503, told));
}

#[test]
fn errors_have_the_words_of_the_original() {
    let worker = Worker::answering();
    let gateway = launch(&[(&worker, "m")], "roundrobin").start_listening();
    let post = |body: &str| Request::json(CHAT, body);
    let error = |text: &str| json!({ "error": text });
    let no_model = "Invalid request: missing 'model' in request body.";
    let no_json = "Invalid request: request body must be valid JSON.";
    let form = |field: &str| {
        let body = format!("--b\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\nzz\r\n--b--\r\n");
        Request::new("POST", "/v1/audio/transcriptions")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(body)
    };
    let both = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b\r\n\
                content-disposition: form-data; name=\"model\"\r\n\r\nzz\r\n--b--\r\n";
    for (request, status, body) in [
        (post(""), 400, error(no_model)),
        (post("{\"messages\":[]}"), 400, error(no_model)),
        (post("{\"model\":"), 400, error(no_json)),
        (post("nonsense"), 400, error(no_json)),
        (post("[1]"), 400, error("Invalid request: request body must be a JSON object.")),
        (
            post("{\"model\":\"zz\"}"),
            404,
            error("Model 'zz' not found. Available models can be listed at /v1/models."),
        ),
        (form("model"), 400, error("Invalid request: missing 'file' in form data.")),
        (form("file"), 400, error("Invalid request: missing 'model' in form data.")),
        (form("file").body(both), 404, error("No backend for model zz")),
        (Request::get("/v1/audio/voices"), 400, error(no_model)),
        (Request::get("/nowhere"), 404, json!({ "detail": "Not Found" })),
        (Request::get("/workers"), 404, json!({ "detail": "Not Found" })),
        (Request::new("POST", "/add_worker?url=http://a:1"), 404, json!({ "detail": "Not Found" })),
        (Request::get(CHAT), 405, json!({ "detail": "Method Not Allowed" })),
        (Request::new("OPTIONS", CHAT), 405, json!({ "detail": "Method Not Allowed" })),
        (Request::new("POST", "/sleep"), 400, error("Invalid request: missing target Engine Id.")),
        (Request::new("POST", "/wake_up?id=abc"), 400, error("Engine with Id abc not found.")),
        (Request::get("/is_sleeping?id=abc"), 400, error("Engine with Id abc not found.")),
    ] {
        let answer = gateway.ask(&request.header("x-request-id", "mine"));
        assert_eq!((answer.status, answer.json()), (status, body), "{answer:?}");
        assert_eq!(answer.headers.get("x-request-id"), Some("mine"));
        assert_eq!(answer.headers.get("allow").is_some(), status == 405);
        assert_eq!(answer.headers.get("access-control-allow-origin"), None);
    }
    assert!(worker.received().is_empty());
}

#[test]
fn an_engine_sleeps_and_wakes() {
    let (a, b) = (Worker::manual(), Worker::answering());
    let gateway = launch(&[(&a, "m"), (&b, "m")], "roundrobin").start_listening();
    let engines = gateway.get("/engines").json();
    // They are ordered by URL, as turns are.
    let at = usize::from(a.url() > b.url());
    let id = engines[at]["engine_id"].as_str().expect("an id").to_owned();
    let call = |method: &str, path: &str| -> Arc<str> { format!("{method} {path}").into() };
    // What else a query says is for the engine.
    for (path, query, expect) in [
        ("/sleep", "&level=1", call("POST", "/sleep?level=1")),
        ("/wake_up", "&tags=weights&tags=kv_cache", call("POST", "/wake_up?tags=weights&tags=kv_cache")),
        ("/sleep", "", call("POST", "/sleep")),
        ("/wake_up", "", call("POST", "/wake_up")),
    ] {
        let mut client = gateway.client();
        client.send(&Request::new("POST", &format!("{path}?id={id}{query}")).bytes());
        let asked = a.exchange();
        assert_eq!(asked.request.line, *expect);
        asked.answer("{}");
        assert_eq!(client.response().status, 200);
        let members = gateway.get("/readiness").json()["healthy_workers"].clone();
        assert_eq!(members, if path == "/sleep" { 1 } else { 2 });
        if path == "/sleep" {
            for _ in 0..3 {
                assert_eq!(worker_of(&gateway.ask(&chat("m"))), b.url());
            }
        }
    }
}

#[test]
fn an_engine_that_fails_its_health_checks_is_left_out_until_it_passes() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let gateway = launch(&[(&a, "m"), (&b, "m")], "roundrobin")
        .switch("--static-backend-health-checks")
        .flag("--static-backend-health-check-interval", 1)
        .flag("--static-model-types", "chat,completion")
        .start_listening();
    let is_healthy = |count: usize| gateway.get("/readiness").json()["healthy_workers"] == count;
    wait::until("both are asked", || !a.received().is_empty() && !b.received().is_empty());
    let asked = &a.received()[0];
    assert_eq!(asked.line, format!("POST {CHAT}"));
    let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!((&body["model"], &body["max_tokens"]), (&"m".into(), &3.into()));
    assert_eq!(b.received()[0].line, "POST /v1/completions");
    assert!(is_healthy(2));
    a.answer_with(b"HTTP/1.1 500 Whatever\r\ncontent-length: 0\r\n\r\n");
    wait::until("it is left out", || is_healthy(1));
    assert_eq!(gateway.get("/engines").json().as_array().map(Vec::len), Some(1));
    a.answer_with(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
    b.answer_with(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
    wait::until("what is no JSON is no answer", || gateway.get("/readiness").status == 503);
    let answer = gateway.ask(&chat("m"));
    let told = json!({ "error": "Model 'm' is temporarily unavailable. Please try again later." });
    assert_eq!((answer.status, answer.json()), (503, told), "known, and not there");
    a.answer_with(&testkit::worker::json_answer("{\"worker\":\"a\"}"));
    wait::until("it is back", || is_healthy(1));
    assert_eq!(worker_of(&gateway.ask(&chat("m"))), "a");
}

/// Waits until the gateway counts nothing at any engine.
fn wait_idle(gateway: &Gateway) -> Metrics {
    let page = || Metrics::scrape(gateway.addr());
    wait::until("nothing is at an engine", || page().sum("vllm:num_requests_running", &[]) == 0.0);
    page()
}

/// One after another over a connection of its own.
fn ask_each_anew(gateway: &Gateway, request: &Request, times: usize) -> Vec<String> {
    (0..times).map(|_| worker_of(&Client::connect(gateway.addr()).ask(request))).collect()
}
