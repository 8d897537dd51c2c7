//! Pairs as the fleet has them: flags, registrations, roles, policies, readiness.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::gateway::Launch;
use testkit::wait;
use testkit::worker::Worker;

use crate::pairs::body;
use crate::pairs::launch;
use crate::pairs::rooms_of;
use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::binary;
use crate::setup::chat;

#[test]
fn without_a_port_there_is_none() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let launch = PLAIN.launch().switch("--pd-disaggregation");
    let launch = launch.flag("--prefill", prefill.url()).switch("none").flag("--decode", decode.url());
    let gateway = launch.start_listening();
    gateway.wait_healthy(2);
    let told = rooms_of(&mut gateway.client(), (&prefill, &decode), &chat("hello"));
    assert_eq!(told["bootstrap_port"], Value::Null);
}

#[test]
fn pairs_and_other_workers_stand_side_by_side() {
    let (prefill, decode, regular) =
        (Worker::answering_as("big"), Worker::answering_as("big"), Worker::answering_as("small"));
    let launch = binary().switch("--pd-disaggregation").flag("--policy", "round_robin");
    let launch = launch.flag("--prefill", prefill.url()).switch("8998").flag("--decode", decode.url());
    let gateway = launch.worker(regular.url()).start_listening();
    gateway.wait_healthy(3);
    let ask = |path: &str, model: &str| {
        gateway
            .ask(&Request::json(path, format!("{{\"model\":\"{model}\",\"messages\":[],\"input\":\"a\"}}")))
    };
    assert_eq!(ask(CHAT, "big").json()["worker"], decode.url());
    assert_eq!(ask(CHAT, "small").json()["worker"], regular.url());
    assert_eq!(ask("/v1/embeddings", "small").json()["worker"], regular.url());
    let refused = ask("/v1/embeddings", "big");
    assert_eq!((refused.status, refused.error_code().as_deref()), (501, Some("not_implemented")));
    let listed = gateway.get("/workers").json();
    assert_eq!(listed["stats"], json!({"prefill_count": 1, "decode_count": 1, "regular_count": 1}));
    let shown = gateway.workers();
    let of =
        |worker: &Worker| shown.iter().find(|shown| shown["url"] == worker.url()).expect("listed").clone();
    assert_eq!(
        (&of(&prefill)["worker_type"], &of(&prefill)["bootstrap_port"]),
        (&json!("prefill"), &json!(8998))
    );
    assert_eq!((&of(&decode)["worker_type"], of(&decode).get("bootstrap_port")), (&json!("decode"), None));
    let models = gateway.get("/v1/models").json();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_commands_of_sglangs_guide_work() {
    let prefill = [Worker::answering(), Worker::answering()];
    let decode = [Worker::answering(), Worker::answering()];
    let with_workers = |launch: Launch| {
        let launch = launch.switch("--pd-disaggregation");
        let launch =
            launch.flag("--prefill", prefill[0].url()).switch("9001").flag("--prefill", prefill[1].url());
        launch.flag("--decode", decode[0].url()).flag("--decode", decode[1].url())
    };
    let policies = |launch: Launch| launch.flag("--policy", "cache_aware");
    for launch in [
        policies(with_workers(binary()))
            .flag("--prefill-policy", "cache_aware")
            .flag("--decode-policy", "power_of_two"),
        policies(with_workers(binary())),
        with_workers(binary().switch("--mini-lb")),
    ] {
        let gateway = launch.start_listening();
        gateway.wait_healthy(4);
        for n in 0..4 {
            let answer = gateway.ask(&chat(&format!("hello {n}"))).json()["worker"].clone();
            assert!(decode.iter().any(|worker| answer == worker.url()), "{answer}");
        }
        assert_eq!(gateway.get("/workers").json()["stats"]["prefill_count"], 2);
    }
    let asked = || prefill.iter().flat_map(Worker::received);
    // An answer begins with the decode worker, before the prefill worker may have read its request.
    wait::until("every prompt has arrived", || {
        asked().filter(|request| request.line.starts_with("POST")).count() == 12
    });
}

#[test]
fn readiness_takes_a_pair() {
    let (prefill, decode) = (Worker::answering(), Worker::answering());
    let gateway = binary().start_listening();
    let register = |worker: &Worker, kind: &str| {
        let body = json!({"url": worker.url(), "worker_type": kind}).to_string();
        assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    };
    register(&prefill, "prefill");
    wait::until("the prefill worker is up", || gateway.workers()[0]["is_healthy"] == true);
    assert_eq!(gateway.get("/readiness").status, 503);
    let refused = gateway.ask(&chat("hello"));
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("decode workers"), "{}", refused.text());
    register(&decode, "decode");
    gateway.wait_healthy(2);
    wait::until("it is ready", || gateway.get("/readiness").status == 200);
    assert_eq!(gateway.ask(&chat("hello")).json()["worker"], decode.url());
}

#[test]
fn each_role_has_its_policy_and_a_conversation_its_prefill_worker() {
    let prefill = [Worker::answering(), Worker::answering(), Worker::answering()];
    let decode = [Worker::answering(), Worker::answering()];
    let flags = [("--prefill-policy", "cache_aware"), ("--decode-policy", "round_robin")];
    let gateway = launch(PLAIN, &prefill.each_ref(), &decode.each_ref(), &flags);
    let prompt = "tell me a long story about a gateway ".repeat(200);
    for turn in 0..12 {
        assert_eq!(gateway.ask(&chat(&format!("{prompt} {turn}"))).status, 200);
    }
    let asked = || prefill.each_ref().map(|worker| worker.received().len());
    // An answer begins with the decode worker, before the prefill worker may have read its request.
    wait::until("every prompt has arrived", || asked().iter().sum::<usize>() == 12);
    assert!(asked().contains(&12), "{:?}", asked());
    assert_eq!(decode.each_ref().map(|worker| worker.received().len()), [6, 6]);
}

#[test]
fn ranks_of_a_pair_are_named_to_both() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    prefill.set_ranks(2);
    decode.set_ranks(2);
    let launch = PLAIN.launch().switch("--dp-aware").switch("--pd-disaggregation");
    let launch = launch.flag("--prefill", prefill.url()).flag("--decode", decode.url());
    let gateway = launch.start_listening();
    gateway.wait_healthy(4);
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    let (p, d) = (prefill.exchange(), decode.exchange());
    let (told_p, told_d) = (body(&p), body(&d));
    assert!(told_p["data_parallel_rank"].is_u64() && told_d["data_parallel_rank"].is_u64());
    assert_eq!(told_d["disagg_prefill_dp_rank"], told_p["data_parallel_rank"]);
    p.answer("{}");
    d.answer("{}");
    assert_eq!(client.response().status, 200);
}

#[test]
fn flags_and_bodies_that_make_no_pair_are_refused() {
    for (flags, told) in [
        (&["--prefill", "http://127.0.0.1:1"][..], "--prefill needs --pd-disaggregation"),
        (&["--decode-policy", "random"], "--decode-policy needs --pd-disaggregation"),
        (&["--mini-lb", "--decode-policy", "random"], "--decode-policy does not go with --mini-lb"),
        (&["--pd-disaggregation", "--prefill", "9000"], "--prefill begins with a URL"),
        (&["--pd-disaggregation", "--prefill", "http://127.0.0.1:1", "99999"], "99999 is no port"),
        (&["--pd-disaggregation", "--prefill-policy", "best"], "--prefill-policy: unknown policy `best`"),
    ] {
        let launch = flags.iter().fold(binary(), |launch, flag| launch.switch(flag));
        let ended = launch.run_to_end();
        let said = ended.stderr.join("\n");
        assert!(ended.code != Some(0) && said.contains(told), "{flags:?}: {said}");
    }
    let gateway = binary().start_listening();
    let url = "http://127.0.0.1:1";
    for (body, param) in [
        (json!({"url": url, "worker_type": "encode"}), "worker_type"),
        (json!({"url": url, "worker_type": "decode", "bootstrap_port": 1}), "bootstrap_port"),
        (json!({"url": url, "worker_type": "prefill", "bootstrap_port": 70000}), "bootstrap_port"),
        (json!({"url": url, "worker_type": "prefill", "labels": {"kv_connector": "wire"}}), "labels"),
        (
            json!({"url": url, "worker_type": "prefill", "labels": {"kv_connector": "mooncake"}}),
            "kv_engine_id",
        ),
    ] {
        let refused = gateway.ask(&Request::json("/workers", body.to_string()));
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.text().contains(param), "{}", refused.text());
    }
}
