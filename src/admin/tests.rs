//! The admin API by its answers, most of them recorded from SGLang Model Gateway.

use std::time::Duration;

use engine::load::EngineLoad;
use fleet::decision::Decision;
use fleet::decision::Evidence;
use fleet::decision::Reason;
use fleet::tree::HolderId;

use crate::control::limits::CALLS_PARALLEL_MAX;
use crate::control::limits::CALLS_WAITING_MAX;
use crate::control::limits::PUBLIC_CALLS_WAITING_MAX;
use crate::control::rig::POLL_INTERVAL;
use crate::control::rig::Rig;
use crate::control::rig::STARTUP_TIMEOUT;
use crate::control::rig::answer;
use crate::control::rig::config;
use crate::control::rig::text;

const A: &str = "http://10.0.0.1:8000";
const B: &str = "http://10.0.0.2:8000";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The answer with every UUID replaced by `…`, as the recordings have it.
#[track_caller]
fn check(rig: &mut Rig, request: (&str, &str, &str), status: u16, content_type: &str, body: &str) {
    let (method, target, sent) = request;
    let reply = rig.call(method, target, sent);
    assert_eq!(
        (reply.status, reply.content_type, &*without_uuids(text(&reply))),
        (status, content_type, body)
    );
    assert_eq!(reply.error_code.is_some(), status >= 400, "errors carry their code");
}

fn without_uuids(text: &str) -> String {
    let is_uuid =
        |from: usize| text.get(from..from + 36).is_some_and(|part| uuid::Uuid::try_parse(part).is_ok());
    let mut out = String::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let (shown, length) = if is_uuid(at) { ('…', 36) } else { (character, character.len_utf8()) };
        out.push(shown);
        at += length;
    }
    out
}

fn error(code: &str, message: &str, param: &str) -> String {
    format!(
        r#"{{"error":{{"message":"{message}","type":"invalid_request_error","code":"{code}","param":{param}}}}}"#
    )
}

#[test]
fn workers_are_added_as_a_job() {
    let mut rig = Rig::new(config(&[]));
    let reply =
        rig.call("POST", "/workers", r#"{"url":"http://10.0.0.1:8000","priority":7,"unknown_field":[]}"#);
    let location = reply.location.clone().expect("a location");
    assert_eq!(reply.status, 202);
    assert_eq!(
        without_uuids(text(&reply)),
        r#"{"status":"accepted","worker_id":"…","url":"http://10.0.0.1:8000","location":"/workers/…","message":"Worker addition queued for background processing"}"#
    );
    let pending = r#"{"id":"…","url":"http://10.0.0.1:8000","model_id":"unknown","priority":0,"cost":1.0,"worker_type":"unknown","is_healthy":false,"load":0,"connection_mode":"unknown","disable_health_check":false,"job_status":{"job_type":"AddWorker","worker_url":"http://10.0.0.1:8000","status":"processing","timestamp":1700000000}}"#;
    check(&mut rig, ("GET", &location, ""), 200, JSON, pending);
    rig.alive.insert(A.to_owned());
    rig.pass(Duration::from_secs(1));
    let ready = r#"{"id":"…","url":"http://10.0.0.1:8000","model_id":"unknown","priority":7,"cost":1.0,"worker_type":"regular","is_healthy":true,"load":0,"connection_mode":"HTTP","disable_health_check":false}"#;
    check(&mut rig, ("GET", &location, ""), 200, JSON, ready);
}

#[test]
fn a_failed_job_is_remembered_for_five_minutes() {
    let mut rig = Rig::new(config(&[]));
    let location =
        rig.call("POST", "/workers", r#"{"url":"http://10.0.0.1:8000"}"#).location.expect("a location");
    rig.pass(STARTUP_TIMEOUT);
    let reply = rig.call("GET", &location, "");
    let expect = r#""job_status":{"job_type":"AddWorker","worker_url":"http://10.0.0.1:8000","status":"failed","message":"Timeout 300s waiting for worker http://10.0.0.1:8000 to become healthy","timestamp":1700000300}}"#;
    assert!(text(&reply).ends_with(expect), "{}", text(&reply));
    assert_eq!(rig.call("GET", "/workers/http%3A%2F%2F10.0.0.1%3A8000", "").status, 200);
    rig.pass(Duration::from_secs(300));
    assert_eq!(rig.call("GET", &location, "").status, 404);
}

#[test]
fn the_list_is_as_recorded() {
    let mut rig = Rig::ready(&[A]);
    let list = r#"{"workers":[{"id":"…","url":"http://10.0.0.1:8000","model_id":"unknown","priority":50,"cost":1.0,"worker_type":"regular","is_healthy":true,"load":0,"connection_mode":"HTTP","disable_health_check":false}],"total":1,"stats":{"prefill_count":0,"decode_count":0,"regular_count":1}}"#;
    check(&mut rig, ("GET", "/workers", ""), 200, JSON, list);
    check(&mut rig, ("GET", "/list_workers", ""), 200, JSON, r#"{"urls":["http://10.0.0.1:8000"]}"#);
}

/// URLs on a page, and where the next one begins.
fn page(rig: &mut Rig, target: &str) -> (Vec<String>, Option<u64>) {
    let reply = rig.call("GET", target, "");
    let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    let url =
        |worker: &serde_json::Value| worker.get("url").unwrap_or(worker).as_str().expect("a URL").to_owned();
    let urls = body.get("workers").or(body.get("urls")).and_then(|list| list.as_array()).expect("a list");
    (urls.iter().map(url).collect(), body.get("next_cursor").and_then(serde_json::Value::as_u64))
}

#[test]
fn a_fleet_is_listed_page_by_page_while_it_changes() {
    let urls: Vec<String> = (0..10).map(|n| format!("http://10.0.0.{n}:1")).collect();
    let mut rig = Rig::ready(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    for path in ["/workers", "/list_workers"] {
        assert_eq!(page(&mut rig, path), (urls.clone(), None));
        assert_eq!(page(&mut rig, &format!("{path}?limit=4")), (urls[..4].to_vec(), Some(4)));
        assert_eq!(page(&mut rig, &format!("{path}?limit=6&cursor=4")), (urls[4..].to_vec(), None));
        assert_eq!(page(&mut rig, &format!("{path}?cursor=4000000000")), (Vec::new(), None));
        assert_eq!(rig.call("GET", &format!("{path}?limit=x"), "").status, 400);
        assert_eq!(rig.call("GET", &format!("{path}?cursor=-1"), "").status, 400);
    }
    // Who comes or goes before the cursor moves nobody behind it, and one who goes at it is no gap.
    rig.call("POST", "/remove_worker?url=http://10.0.0.1:1", "");
    rig.call("POST", "/remove_worker?url=http://10.0.0.4:1", "");
    rig.pass(Duration::from_secs(1));
    let _reply = rig.send("POST", "/add_worker?url=http://10.0.1.1:1", "");
    assert_eq!(page(&mut rig, "/workers?limit=2&cursor=4"), (urls[5..7].to_vec(), Some(7)));
    assert!(text(&rig.call("GET", "/workers?limit=1", "")).contains(r#""total":9,"#));
}

#[test]
fn no_page_is_longer_than_pages_are() {
    let urls: Vec<String> = (0..1500).map(|n| format!("http://10.0.{}.{}:1", n / 250, n % 250)).collect();
    let mut rig = Rig::ready(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    for path in ["/workers", "/workers?limit=4000000000", "/list_workers", "/workers?limit=1000"] {
        let (first, cursor) = page(&mut rig, path);
        assert_eq!((first.len(), cursor), (1000, Some(1000)), "{path}");
    }
    assert_eq!(page(&mut rig, "/list_workers?cursor=1000"), (urls[1000..].to_vec(), None));
    let info = rig.call("GET", "/get_server_info", "");
    let info: serde_json::Value = serde_json::from_slice(&info.body).expect("JSON");
    assert_eq!(info["workers_count"], 1500);
    assert_eq!(info["workers"].as_array().map(Vec::len), Some(1000));
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let mut rig = Rig::ready(&[A]);
    let mut refuse = |body: &str, message: &str, param: &str| {
        check(&mut rig, ("POST", "/workers", body), 400, JSON, &error("BAD_REQUEST", message, param));
    };
    refuse("[]", "the body must be a JSON object", "null");
    refuse("{}", "url is required", r#""url""#);
    refuse(r#"{"url":7}"#, "url must be a string", r#""url""#);
    refuse(
        r#"{"url":"grpc://a:1"}"#,
        "url cannot be used: grpc:// workers are not supported yet",
        r#""url""#,
    );
    refuse(
        r#"{"url":"http://a","worker_type":"encode"}"#,
        r#"worker_type \"encode\" is not one of regular, prefill, decode"#,
        r#""worker_type""#,
    );
    refuse(
        r#"{"url":"http://a","priority":-1}"#,
        "priority must be an integer from 0 to 4294967295",
        r#""priority""#,
    );
    refuse(r#"{"url":"http://a","cost":"1"}"#, "cost must be a number that is not negative", r#""cost""#);
    refuse(
        r#"{"url":"http://a","labels":{"a":1}}"#,
        "labels must be an object of at most 64 strings",
        r#""labels""#,
    );
    refuse(
        r#"{"url":"http://a","api_key":"a\r\nb"}"#,
        "api_key must be printable ASCII without spaces",
        r#""api_key""#,
    );
    let policy = "labels name the unknown policy \\\"best\\\": use cache_aware, round_robin, random, power_of_two, least_load, prefix_hash, consistent_hashing, manual, bucket, session, prefixaware";
    refuse(r#"{"url":"http://a","labels":{"policy":"best"}}"#, policy, r#""labels""#);
    let body = r#"{"labels":{"policy":"best"}}"#;
    let policy = error("BAD_REQUEST", policy, r#""labels""#);
    check(&mut rig, ("PUT", "/workers/http%3A%2F%2F10.0.0.1%3A8000", body), 400, JSON, &policy);
    let unknown = rig.call("POST", "/workers", r#"{"url":"http://a","worker_type":"x"}"#);
    assert_eq!((unknown.status, unknown.error_code), (400, Some("BAD_REQUEST")));
    assert_eq!(rig.call("POST", "/workers", "{").status, 400);
    let duplicate = error("WORKER_ALREADY_EXISTS", "Worker http://10.0.0.1:8000 already exists", r#""url""#);
    check(&mut rig, ("POST", "/workers", r#"{"url":"http://10.0.0.1:8000/"}"#), 409, JSON, &duplicate);
}

#[test]
fn every_field_of_a_body_is_checked() {
    let mut rig = Rig::ready(&[A]);
    let integer = |range: &str| format!("must be an integer from {range}");
    let text = "must be a string".to_owned();
    let flag = "must be true or false".to_owned();
    let labels = "must be an object of at most 64 strings".to_owned();
    let seconds = integer("1 to 86400");
    let threshold = integer("1 to 1000");
    // Fields that only a new worker has, then those that may change later too.
    let new = [
        ("url", "7", text.clone()),
        ("url", "\"\"", "cannot be used: it is empty".to_owned()),
        ("url", "\"ftp://a\"", "cannot be used: it must begin with http:// or https://".to_owned()),
        ("url", "\"a:1\"", "cannot be used: it must begin with http:// or https://".to_owned()),
        ("url", "\"http://u:p@a\"", "cannot be used: it must not carry a user name or password; give an API key instead".to_owned()),
        ("url", "\"http://169.254.169.254\"", "cannot be used: it names a link-local or metadata address, which needs --allow-link-local-workers".to_owned()),
        ("model_id", "[]", text.clone()),
        ("model_id", "\"\"", "must have 1 to 512 bytes".to_owned()),
        ("worker_type", "1", text.clone()),
        ("worker_type", "\"encode\"", "\"encode\" is not one of regular, prefill, decode".to_owned()),
        ("runtime", "{}", text.clone()),
        ("runtime", "\"tgi\"", "\"tgi\" is not one of sglang, vllm, external".to_owned()),
        ("dp_aware", "\"yes\"", flag.clone()),
        ("dp_aware", "true", "needs --dp-aware".to_owned()),
        ("bootstrap_port", "\"9001\"", integer("1 to 65535")),
        ("bootstrap_port", "70000", integer("1 to 65535")),
        ("bootstrap_port", "9001", "is for workers of the type prefill".to_owned()),
        ("max_connection_attempts", "0", integer("1 to 4294967295")),
        ("tokenizer_path", "1", text.clone()),
        ("reasoning_parser", "true", text.clone()),
        ("tool_parser", "[]", text.clone()),
        ("chat_template", "{}", text.clone()),
    ];
    let changing = [
        ("api_key", "7", text),
        ("api_key", "\"a b\"", "must be printable ASCII without spaces".to_owned()),
        ("priority", "1.5", integer("0 to 4294967295")),
        ("priority", "\"high\"", integer("0 to 4294967295")),
        ("cost", "-1", "must be a number that is not negative".to_owned()),
        ("labels", "[]", labels.clone()),
        ("labels", "{\"a\":null}", labels),
        (
            "labels",
            "{\"kv_connector\":\"wire\"}",
            "name the unknown connector \"wire\": use bootstrap, nixl, mooncake, shared".to_owned(),
        ),
        (
            "labels",
            "{\"kv_connector\":\"mooncake\"}",
            "name the connector \"mooncake\" and no kv_engine_id".to_owned(),
        ),
        ("health_check_timeout_secs", "0", seconds.clone()),
        ("health_check_timeout_secs", "\"5\"", seconds.clone()),
        ("health_check_interval_secs", "86401", seconds),
        ("health_success_threshold", "0", threshold.clone()),
        ("health_failure_threshold", "1e9", threshold),
        ("disable_health_check", "0", flag),
    ];
    let mut refuse = |method: &str, path: &str, body: &str, (name, what): (&str, &str)| {
        let reply = rig.call(method, path, body);
        let said: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let expect = serde_json::json!({"error": {
            "message": format!("{name} {what}"), "type": "invalid_request_error", "code": "BAD_REQUEST", "param": name,
        }});
        assert_eq!((reply.status, said), (400, expect), "{method} {body}");
    };
    for (name, value, what) in new.iter().chain(&changing) {
        let url = if *name == "url" { "" } else { "\"url\":\"http://a\"," };
        refuse("POST", "/workers", &format!("{{{url}\"{name}\":{value}}}"), (name, what));
    }
    for (name, value, what) in &changing {
        let path = "/workers/http%3A%2F%2F10.0.0.1%3A8000";
        refuse("PUT", path, &format!("{{\"{name}\":{value}}}"), (name, what));
    }
    for body in ["", "{", "null", "7", "[{}]", "{\"url\":\"http://a\"} x", "\u{0}"] {
        for (method, path) in [("POST", "/workers"), ("PUT", "/workers/http%3A%2F%2F10.0.0.1%3A8000")] {
            assert_eq!(rig.call(method, path, body).status, 400, "{method} {body:?}");
        }
    }
    // Null is as good as absent, and what nobody asks for is passed over.
    let body =
        r#"{"url":"http://a","model_id":null,"runtime":"vllm","dp_aware":false,"priority":null,"x":[]}"#;
    assert_eq!(rig.call("POST", "/workers", body).status, 202);
}

#[test]
fn one_worker_goes_by_uuid_or_url() {
    let mut rig = Rig::ready(&[A]);
    let by_url = "/workers/http%3A%2F%2F10.0.0.1%3A8000";
    let update =
        r#"{"status":"accepted","worker_id":"…","message":"Worker update queued for background processing"}"#;
    let body = r#"{"priority":9,"cost":2.5,"labels":{"tier":"gold"},"disable_health_check":true}"#;
    check(&mut rig, ("PUT", by_url, body), 202, JSON, update);
    let changed = r#"{"id":"…","url":"http://10.0.0.1:8000","model_id":"unknown","priority":9,"cost":2.5,"worker_type":"regular","is_healthy":true,"load":0,"connection_mode":"HTTP","metadata":{"tier":"gold"},"disable_health_check":true}"#;
    check(&mut rig, ("GET", by_url, ""), 200, JSON, changed);
    let remove = r#"{"status":"accepted","worker_id":"…","message":"Worker removal queued for background processing"}"#;
    check(&mut rig, ("DELETE", by_url, ""), 202, JSON, remove);
    let gone = error("WORKER_NOT_FOUND", "Worker http://10.0.0.1:8000 not found", "null");
    check(&mut rig, ("DELETE", by_url, ""), 404, JSON, &gone);
    assert_eq!(rig.call("GET", "/workers/00000000-0000-4000-8000-000000000000", "").status, 404);
    assert_eq!(rig.call("GET", "/workers/nonsense", "").status, 400);
}

#[test]
fn the_first_router_spoke_in_text() {
    let mut rig = Rig::ready(&[A]);
    let required = "Worker URL required. Provide 'url' query parameter";
    check(&mut rig, ("POST", "/add_worker", ""), 400, TEXT, required);
    let exists = "Worker http://10.0.0.1:8000 already exists";
    check(&mut rig, ("POST", "/add_worker?url=http%3A%2F%2F10.0.0.1%3A8000", ""), 400, TEXT, exists);
    rig.alive.insert(B.to_owned());
    let added = "Successfully added worker: http://10.0.0.2:8000";
    check(&mut rig, ("POST", "/add_worker?url=http://10.0.0.2:8000&api_key=k", ""), 200, TEXT, added);
    let worker = rig.snapshot.fleet.worker(rig.id(B)).expect("registered");
    assert_eq!(worker.authorization.as_deref(), Some("Bearer k"));
    let removed = "Successfully removed worker: http://10.0.0.2:8000";
    for _ in 0..2 {
        check(&mut rig, ("POST", "/remove_worker?url=http://10.0.0.2:8000", ""), 200, TEXT, removed);
    }
    check(&mut rig, ("POST", "/remove_worker", ""), 400, TEXT, required);
}

#[test]
fn calls_that_anybody_may_make_keep_no_admin_waiting() {
    let mut rig = Rig::ready(&[A]);
    let waiting: Vec<_> =
        (0..PUBLIC_CALLS_WAITING_MAX).map(|_| rig.send("GET", "/get_model_info", "")).collect();
    let mut one_more = rig.send("GET", "/get_model_info", "");
    assert_eq!(answer(&mut one_more).map(|reply| reply.status), Some(503));
    let mut admins: Vec<_> = (0..CALLS_WAITING_MAX).map(|_| rig.send("GET", "/get_loads", "")).collect();
    let mut one_more = rig.send("POST", "/flush_cache", "");
    assert_eq!(answer(&mut one_more).map(|reply| reply.status), Some(503));
    assert_eq!(rig.tasks.len(), CALLS_PARALLEL_MAX, "services are asked for all the others");
    rig.settle();
    admins.extend(waiting);
    for mut waiting in admins {
        assert_eq!(answer(&mut waiting).map(|reply| reply.status), Some(200));
    }
}

#[test]
fn a_flush_empties_the_tree_too() {
    let mut rig = Rig::ready(&[A, B]);
    for url in [A, B] {
        let worker = rig.id(url);
        rig.report(fleet::report::Report::Placed { worker, version: u64::MAX, blocks: [1, 2].into() });
    }
    rig.alive.remove(B);
    let partial = r#"{"status":"partial_success","message":"Cache flush: 1 succeeded, 1 failed","workers_flushed":1,"total_http_workers":2,"total_workers":2,"successful":["http://10.0.0.1:8000"],"failed":[{"worker":"http://10.0.0.2:8000","error":"no connection"}]}"#;
    check(&mut rig, ("POST", "/flush_cache", ""), 206, JSON, partial);
    let tree = rig.snapshot.tree.clone();
    let holders: Vec<HolderId> = tree.find([1, 2].as_slice()).holders().map(|(holder, _)| holder).collect();
    assert_eq!(holders, [HolderId(rig.id(B).index)]);
    rig.alive.insert(B.to_owned());
    let success = r#"{"status":"success","message":"Successfully flushed cache on all 2 HTTP workers","workers_flushed":2,"total_http_workers":2,"total_workers":2}"#;
    check(&mut rig, ("POST", "/flush_cache", ""), 200, JSON, success);
    let none = r#"{"status":"success","message":"No HTTP workers available for cache flush","workers_flushed":0,"total_http_workers":0,"total_workers":0}"#;
    check(&mut Rig::new(config(&[])), ("POST", "/flush_cache", ""), 200, JSON, none);
}

#[test]
fn loads_are_token_sums() {
    let mut rig = Rig::ready(&[A, B]);
    rig.alive.remove(B);
    let loads = r#"{"workers":[{"worker":"http://10.0.0.1:8000","load":10},{"worker":"http://10.0.0.2:8000","load":-1}]}"#;
    check(&mut rig, ("GET", "/get_loads", ""), 200, JSON, loads);
}

#[test]
fn loads_in_memory_are_what_engines_said_last() {
    let mut rig = Rig::ready(&[A, B]);
    let load = EngineLoad { running: Some(2), waiting: Some(0), tokens: Some(9), kv_used: Some(0.5) };
    rig.pages.insert(A.to_owned(), engine::metrics::Page { load, ..engine::metrics::Page::default() });
    rig.pass(POLL_INTERVAL);
    let expect = r#"{"workers":[{"worker":"http://10.0.0.1:8000","running":2,"waiting":0,"tokens":9,"kv_used":0.5,"age_secs":0},{"worker":"http://10.0.0.2:8000","running":null,"waiting":null,"tokens":null,"kv_used":null,"age_secs":null}],"total":2}"#;
    check(&mut rig, ("GET", "/loads", ""), 200, JSON, expect);
    rig.now += Duration::from_secs(3);
    assert!(
        text(&rig.call("GET", "/loads?limit=1", ""))
            .ends_with(r#""age_secs":3}],"total":2,"next_cursor":1}"#)
    );
}

#[test]
fn model_info_is_the_workers_or_made_up() {
    let mut rig = Rig::ready(&[A]);
    check(&mut rig, ("GET", "/get_model_info", ""), 200, JSON, r#"{"model_path":"m"}"#);
    rig.alive.clear();
    let made_up = r#"{"model_path":"unknown","tokenizer_path":"unknown","is_generation":true}"#;
    check(&mut rig, ("GET", "/get_model_info", ""), 200, JSON, made_up);
    assert_eq!(Rig::new(config(&[])).call("GET", "/get_model_info", "").status, 503);
}

#[test]
fn server_info_tells_the_fleet() {
    let mut rig = Rig::ready(&[A]);
    let info = r#"{"router_manager":true,"routers_count":1,"workers_count":1,"version":"1.2.3","enable_http2":true,"policy":"cache_aware","shards":2,"uptime_secs":0,"workers":[{"url":"http://10.0.0.1:8000","model_id":"unknown","is_healthy":true,"engine":"external","version":null}]}"#;
    check(&mut rig, ("GET", "/get_server_info", ""), 200, JSON, info);
}

#[test]
fn everybody_is_told_of_workers_only_where_everybody_may_know() {
    let mut rig = Rig::ready(&[A]);
    rig.state.config.hides_workers = true;
    let info = rig.call("GET", "/get_server_info", "");
    assert!(!text(&info).contains(A) && text(&info).contains(r#""workers_count":1"#), "{}", text(&info));
}

#[test]
fn pages_are_as_recorded() {
    let mut rig = Rig::new(config(&[A]));
    let body = |page: &fleet::snapshot::Page| String::from_utf8(page.body.to_vec()).expect("text");
    assert_eq!(
        body(&rig.snapshot.fleet.readiness),
        r#"{"status":"not ready","reason":"insufficient healthy workers"}"#
    );
    assert_eq!(body(&rig.snapshot.fleet.health_generate), "No routers with healthy workers available");
    assert_eq!((rig.snapshot.fleet.models.status, rig.snapshot.fleet.models.content_type), (503, JSON));
    rig.alive.insert(A.to_owned());
    rig.models.insert(A.to_owned(), "mA".to_owned());
    rig.pass(Duration::from_secs(1));
    assert_eq!(
        body(&rig.snapshot.fleet.readiness),
        r#"{"status":"ready","healthy_workers":1,"total_workers":1}"#
    );
    assert_eq!(
        body(&rig.snapshot.fleet.models),
        r#"{"object":"list","data":[{"id":"mA","object":"model","created":1700000000,"owned_by":"local","root":"mA","parent":null,"max_model_len":null}]}"#
    );
}

#[test]
fn decisions_since_a_time_come_page_by_page() {
    let mut rig = Rig::ready(&[A]);
    for at_us in 1..=100 {
        rig.state.config.decisions[at_us as usize % 2].push(&decision(at_us));
    }
    let mut times = |query: &str| -> Vec<u64> {
        let reply = rig.call("GET", &format!("/debug/decisions?format=jsonl&{query}"), "");
        let lines = text(&reply).lines().map(serde_json::from_str::<serde_json::Value>);
        lines.map(|line| line.expect("JSON")["at_us"].as_u64().expect("a time")).collect()
    };
    assert_eq!(times("limit=3"), [98, 99, 100]);
    assert_eq!(times("limit=3&since_us=0"), [1, 2, 3]);
    assert_eq!(times("limit=3&since_us=40"), [40, 41, 42]);
    assert_eq!(times("limit=3&since_us=99"), [99, 100]);
    assert!(times("since_us=101").is_empty());
}

fn decision(at_us: u64) -> Decision {
    Decision {
        at_us,
        evidence: Evidence::default(),
        worker: 0,
        generation: 0,
        reason: Reason::Only,
        model_hash: 0,
        policy: 0,
        attempt: 0,
        key: 0,
        hash_ns: 0,
        choose_ns: 0,
        samples: [].into_iter().collect(),
    }
}

#[test]
fn too_many_calls_that_wait_are_refused() {
    let mut rig = Rig::ready(&[A]);
    let mut replies: Vec<_> = (0..17).map(|_| rig.send("GET", "/get_loads", "")).collect();
    let last = answer(&mut replies[16]).expect("refused at once");
    assert_eq!((last.status, last.error_code), (503, Some("admin_unavailable")));
    rig.settle();
    assert!(replies[..16].iter_mut().all(|reply| answer(reply).is_some_and(|reply| reply.status == 200)));
}
