//! Who may ask for what: keys, roles, signed tokens, origins, the control plane's own listener, and what is never shown.

mod cors;
mod tokens;

use testkit::client::Client;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    credentials_open_what_they_are_for
    a_body_is_not_waited_for_without_a_key
    no_worker_sees_the_gateways_key
}

const TENANT: &str = "blue:sk-blue";
const OPS: &str = "ops:Ops:admin:sk-ops";
const READER: &str = "reader:Reader:user:sk-reader";

/// A request with this key.
fn with_key(request: Request, key: &str) -> Request {
    if key.is_empty() { request } else { request.header("authorization", &format!("Bearer {key}")) }
}

#[track_caller]
fn status(gateway: &Gateway, request: Request, key: &str) -> u16 {
    let response = gateway.ask(&with_key(request, key));
    if matches!(response.status, 401 | 403) {
        assert!(response.error_code().is_some(), "the one error shape: {response:?}");
        let says_how = response.headers.get("www-authenticate").is_some_and(|how| how.starts_with("Bearer"));
        assert_eq!(says_how, response.status == 401, "{response:?}");
    }
    response.status
}

fn credentials_open_what_they_are_for(setup: Setup) {
    let worker = Worker::answering();
    let launch = || setup.launch().worker(worker.url());
    let with_keys = || launch().flag("--api-key", "sk-main").flag("--tenant-api-key", TENANT);
    let roles = with_keys().flag("--control-plane-api-keys", OPS).flag("--control-plane-api-keys", READER);
    let only_roles = launch().env("CONTROL_PLANE_API_KEYS", format!("{OPS},{READER}"));
    // Statuses of a chat, of `GET /workers` and of `POST /flush_cache` without a key, and with each of them.
    let keys = ["", "sk-main", "sk-blue", "sk-ops", "sk-reader", "sk-other"];
    for (launch, chats, lists) in [
        (launch(), [200; 6], [200; 6]),
        (with_keys(), [401, 200, 200, 401, 401, 401], [401, 200, 401, 401, 401, 401]),
        (roles, [401, 200, 200, 401, 401, 401], [401, 401, 401, 200, 403, 401]),
        (only_roles, [200; 6], [401, 401, 401, 200, 403, 401]),
    ] {
        let gateway = launch.start();
        for (at, key) in keys.into_iter().enumerate() {
            assert_eq!(status(&gateway, chat("hello"), key), chats[at], "chat {key:?} {launch:?}");
            assert_eq!(status(&gateway, Request::get("/workers"), key), lists[at], "list {key:?} {launch:?}");
            assert_eq!(status(&gateway, Request::get("/debug/decisions"), key), lists[at], "{key:?}");
            let flush = Request::new("POST", "/flush_cache");
            let flushed = status(&gateway, flush, key);
            assert!(flushed == lists[at] || (flushed == 206 && lists[at] == 200), "flush {key:?}: {flushed}");
            for public in ["/health", "/liveness", "/readiness", "/health_generate", "/v1/models"] {
                assert_eq!(status(&gateway, Request::get(public), key), 200, "{public}");
            }
            for public in ["/get_model_info", "/get_server_info"] {
                assert_eq!(status(&gateway, Request::get(public), key), 200, "{public}");
            }
            assert_eq!(status(&gateway, Request::get("/nowhere"), key), 404);
            assert_eq!(status(&gateway, Request::get(CHAT), key), 405);
        }
    }
}

fn a_body_is_not_waited_for_without_a_key(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.launch().flag("--api-key", "sk-main").worker(worker.url()).start();
    for path in [CHAT, "/workers", "/v1/audio/transcriptions"] {
        for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
            let mut client = gateway.client();
            let expect = "expect: 100-continue";
            client
                .send(format!("POST {path} HTTP/1.1\r\nhost: a\r\n{framing}\r\n{expect}\r\n\r\n").as_bytes());
            let response = client.response();
            assert_eq!((response.status, response.headers.get("connection")), (401, Some("close")), "{path}");
        }
    }
    // A refused request whose body came with it costs no connection.
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.ask(&chat("hello")).status, 401);
    }
    // Two keys are none: which of them counts would be a guess.
    let twice = with_key(with_key(chat("hello"), "sk-main"), "sk-main");
    assert_eq!(client.ask(&twice).status, 401);
    assert_eq!(client.ask(&with_key(chat("hello"), "sk-main")).status, 200);
    assert_eq!(worker.received().len(), 1);
}

fn no_worker_sees_the_gateways_key(setup: Setup) {
    let (own, keyless) = (Worker::answering(), Worker::answering());
    let gateway = setup.launch().flag("--api-key", "sk-main").worker(own.url()).start();
    let add = Request::json("/workers", format!("{{\"url\":\"{}\"}}", keyless.url()));
    assert_eq!(gateway.ask(&with_key(add, "sk-main")).status, 202);
    gateway.wait_healthy(2);
    for _ in 0..4 {
        assert_eq!(gateway.ask(&with_key(chat("hello"), "sk-main")).status, 200);
    }
    // Workers of the command line have the gateway's key for their own; others have what they were given.
    let seen = |worker: &Worker| -> Vec<String> {
        let received = worker.received();
        received.iter().flat_map(|request| request.headers.all("authorization")).map(str::to_owned).collect()
    };
    assert_eq!(seen(&own), ["Bearer sk-main", "Bearer sk-main"]);
    assert_eq!((keyless.received().len(), seen(&keyless)), (2, Vec::new()));
    wait::until("it is warned of", || gateway.has_logged(&["WARN", &keyless.url(), "worker has no API key"]));
}

#[test]
fn a_key_may_stand_in_a_file() {
    let path = std::env::temp_dir().join(format!("ringway-it-key-{}", std::process::id()));
    std::fs::write(&path, "sk-main\n").expect("written");
    let gateway = PLAIN.launch().flag("--api-key", format!("@{}", path.display())).start_listening();
    assert_eq!(status(&gateway, Request::get("/workers"), ""), 401);
    assert_eq!(status(&gateway, Request::get("/workers"), "sk-main"), 200);
    std::fs::remove_file(&path).expect("removed");
    let ended = PLAIN.launch().flag("--api-key", format!("@{}", path.display())).run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{ended:?}");
}

/// A gateway whose control plane is at an address of its own, and that address.
#[track_caller]
fn with_admin_listener(launch: Launch) -> (Gateway, std::net::SocketAddr) {
    let admin = place::free_port(place::own_ip());
    let launch = launch.flag("--admin-host", admin.ip()).flag("--admin-port", admin.port());
    (launch.start(), admin)
}

#[test]
fn the_control_plane_may_have_a_listener_of_its_own() {
    for shards in [1, 2] {
        let worker = Worker::answering();
        let launch =
            Setup { shards, ..PLAIN }.launch().flag("--control-plane-api-keys", OPS).worker(worker.url());
        let (gateway, admin) = with_admin_listener(launch);
        let at_admin =
            |request: Request, key: &str| -> Response { Client::connect(admin).ask(&with_key(request, key)) };
        for path in ["/workers", "/list_workers", "/get_loads", "/loads", "/debug/decisions"] {
            let hidden = gateway.ask(&with_key(Request::get(path), "sk-ops"));
            assert_eq!(
                (hidden.status, hidden.error_code().as_deref()),
                (404, Some("route_not_found")),
                "{path}"
            );
            assert_eq!(at_admin(Request::get(path), "").status, 401, "{path}");
            assert_eq!(at_admin(Request::get(path), "sk-ops").status, 200, "{path}");
        }
        assert_eq!(at_admin(chat("hello"), "sk-ops").status, 404);
        assert_eq!(gateway.ask(&chat("hello")).status, 200);
        for public in ["/health", "/readiness", "/get_server_info"] {
            assert_eq!((gateway.get(public).status, at_admin(Request::get(public), "").status), (200, 200));
        }
        let removed =
            at_admin(Request::new("POST", &format!("/remove_worker?url={}", worker.url())), "sk-ops");
        assert_eq!(removed.status, 200);
        gateway.wait_healthy(0);
    }
}

#[test]
fn a_draining_gateway_closes_both_doors() {
    let worker = Worker::answering();
    let (mut gateway, admin) = with_admin_listener(PLAIN.launch().worker(worker.url()));
    assert_eq!(Client::connect(admin).ask(&Request::get("/workers")).status, 200);
    gateway.signal(testkit::gateway::Signal::TERM);
    assert!(gateway.wait_exit().success());
    assert!(Client::try_connect(admin).is_err());
}

#[test]
fn workers_are_not_found_at_metadata_services() {
    let gateway = PLAIN.launch().start_listening();
    let add = |gateway: &Gateway, url: &str| {
        gateway.ask(&Request::json("/workers", format!("{{\"url\":\"{url}\"}}")))
    };
    for url in [
        "http://169.254.169.254",
        "http://[fe80::1]:8000",
        "http://[::ffff:169.254.169.254]",
        "http://metadata.google.internal",
        "http://100.100.100.200",
        "http://user:sk-pass@10.0.0.1",
        "file:///etc/passwd",
        "http://10.0.0.1/?x=sk-pass",
    ] {
        let refused = add(&gateway, url);
        assert_eq!((refused.status, refused.error_code().as_deref()), (400, Some("BAD_REQUEST")), "{url}");
        let refused = gateway.ask(&Request::new("POST", &format!("/add_worker?url={url}")));
        assert_eq!(refused.status, 400, "{url}");
        assert!(!refused.text().contains("sk-pass"), "{}", refused.text());
        if !url.contains("file") && !url.contains("sk-pass") {
            let ended = PLAIN.launch().worker(url).run_to_end();
            assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{ended:?}");
        }
    }
    let ended = PLAIN.launch().worker("http://user:sk-pass@a").run_to_end();
    assert!(ended.code == Some(2) && !ended.stderr.concat().contains("sk-pass"), "{ended:?}");
    // What some take for an address is no name.
    assert_eq!(add(&gateway, "http://0xa9fea9fe:80").status, 400);
    let trusting = PLAIN.launch().switch("--allow-link-local-workers").start_listening();
    assert_eq!(add(&trusting, "http://169.254.169.254").status, 202);
}

#[test]
fn calls_of_the_control_plane_are_recorded() {
    let worker = Worker::answering();
    let launch = PLAIN.launch().flag("--log-level", "error").flag("--control-plane-api-keys", OPS);
    let gateway = launch.clone().flag("--control-plane-api-keys", READER).start_listening();
    let add = || Request::json("/workers", format!("{{\"url\":\"{}\"}}", worker.url()));
    let id = |request: Request, id: &str| request.header("x-request-id", id);
    assert_eq!(gateway.ask(&id(add(), "call-1")).status, 401);
    assert_eq!(gateway.ask(&id(with_key(add(), "sk-reader"), "call-2")).status, 403);
    let added = gateway.ask(&id(with_key(add(), "sk-ops"), "call-3"));
    assert_eq!(added.status, 202);
    assert_eq!(gateway.ask(&id(with_key(add(), "sk-ops"), "call-4")).status, 409);
    assert_eq!(gateway.ask(&id(with_key(Request::get("/workers"), "sk-ops"), "call-5")).status, 200);
    let place = added.headers.get("location").expect("a location").to_owned();
    let remove = with_key(Request::new("DELETE", &place), "sk-ops");
    assert_eq!(gateway.ask(&id(remove, "call-6")).status, 202);
    let who = ["principal=\"Ops\"", "auth_method=\"api_key:ops\"", "role=\"admin\""];
    for (id, parts) in [
        ("call-1", &["principal=\"unknown\"", "outcome=\"denied\"", "Missing or invalid Authorization"][..]),
        (
            "call-2",
            &["principal=\"Reader\"", "role=\"user\"", "outcome=\"denied\"", "Admin role required"][..],
        ),
        ("call-3", &["outcome=\"success\"", "method=\"POST\"", "path=\"/workers\"", place.as_str()][..]),
        ("call-4", &["outcome=\"failed\"", "WORKER_ALREADY_EXISTS"][..]),
        ("call-6", &["outcome=\"success\"", "method=\"DELETE\"", &place["/workers/".len()..]][..]),
    ] {
        let id = format!("request_id=\"{id}\"");
        let parts = [&["audit", id.as_str()], parts].concat();
        wait::until(&format!("a record has {parts:?}: {:?}", gateway.stdout()), || {
            gateway.has_logged(&parts)
        });
        assert!(!id.contains("call-3") || gateway.has_logged(&[&["audit", id.as_str()][..], &who].concat()));
    }
    assert!(!gateway.has_logged(&["call-5"]), "reading is not recorded");
    // Whoever wants none, or wants them without credentials.
    let silent = launch.switch("--disable-audit-logging").start_listening();
    assert_eq!(silent.ask(&add()).status, 401);
    let open = PLAIN.launch().switch("--control-plane-audit-enabled").start_listening();
    assert_eq!(open.ask(&add()).status, 202);
    let parts = ["audit", "principal=\"anonymous\"", "outcome=\"success\""];
    wait::until("it is recorded", || open.has_logged(&parts));
    assert!(!silent.has_logged(&["audit"]));
}

#[test]
fn secrets_are_never_shown() {
    let worker = Worker::answering();
    let gateway = PLAIN
        .launch()
        .flag("--log-level", "debug")
        .flag("--api-key", "sk-main")
        .flag("--tenant-api-key", TENANT)
        .flag("--control-plane-api-keys", OPS)
        .worker(worker.url())
        .start();
    let ask = |request: Request, key: &str| gateway.ask(&with_key(request, key));
    let other = Worker::answering();
    let mut answers = vec![
        ask(chat("hello"), "sk-main"),
        ask(chat("hello"), "sk-blue"),
        ask(chat("hello"), "sk-wrong"),
        ask(Request::get("/workers"), "sk-wrong"),
        ask(
            Request::json("/workers", format!("{{\"url\":\"{}\",\"api_key\":\"sk-worker\"}}", other.url())),
            "sk-ops",
        ),
        ask(
            Request::json("/workers", "{\"url\":\"http://u:sk-pass@a\",\"api_key\":\"sk-worker\"}"),
            "sk-ops",
        ),
        ask(Request::json("/workers", "{\"url\":\"http://a\",\"api_key\":[\"sk-worker\"]}"), "sk-ops"),
        ask(Request::json("/workers", "{\"api_key\":\"sk-worker\""), "sk-ops"),
        ask(Request::new("POST", "/add_worker?url=http://u:sk-pass@a&api_key=sk-worker"), "sk-ops"),
        ask(Request::new("POST", "/add_worker?url=http://a&api_key=sk-worker%0a"), "sk-ops"),
        ask(Request::get("/workers/http%3A%2F%2Fu%3Ask-pass%40a"), "sk-ops"),
        ask(Request::new("DELETE", "/workers/http%3A%2F%2Fu%3Ask-pass%40a"), "sk-ops"),
    ];
    gateway.wait_healthy(2);
    answers.push(ask(Request::get("/workers"), "sk-ops"));
    answers.push(gateway.get("/get_server_info"));
    for answer in answers {
        assert!(
            !format!("{answer:?}").contains("sk-") && !answer.text().contains("sk-"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(other.asked("GET /health"), 1, "the worker was asked with its key");
    wait::until("all is written", || gateway.has_logged(&["audit", "DELETE"]));
    for line in gateway
        .stdout()
        .into_iter()
        .chain(gateway.stderr())
        .chain(gateway.metrics().text.lines().map(str::to_owned))
    {
        assert!(!line.contains("sk-"), "{line}");
    }
    // The tenant is told, its key is not.
    wait::until("its request is told", || gateway.has_logged(&["access", "tenant=\"blue\""]));
}
