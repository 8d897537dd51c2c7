//! Pairs of vLLM workers: one after the other, or told of each other beforehand.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::worker::Worker;

use crate::pairs::body;
use crate::setup::CHAT;
use crate::setup::binary;
use crate::setup::chat_stream;

#[test]
fn vllm_workers_go_one_after_the_other() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = binary().flag("--policy", "round_robin").start_listening();
    for (worker, kind, labels) in
        [(&prefill, "prefill", json!({"kv_connector": "nixl"})), (&decode, "decode", json!({}))]
    {
        let body = json!({"url": worker.url(), "worker_type": kind, "labels": labels});
        assert_eq!(gateway.ask(&Request::json("/workers", body.to_string())).status, 202);
    }
    gateway.wait_healthy(2);
    let mut client = gateway.client();
    let asked = json!({"model": "mock", "messages": [], "max_tokens": 50, "stream": true});
    client.send(&Request::json(CHAT, asked.to_string()).bytes());
    let p = prefill.exchange();
    let told = body(&p);
    assert_eq!((&told["max_tokens"], &told["max_completion_tokens"]), (&json!(1), &json!(1)));
    assert_eq!((&told["stream"], &told["stream_options"]), (&json!(false), &Value::Null));
    assert_eq!(told["kv_transfer_params"]["do_remote_decode"], true);
    assert_eq!(told["kv_transfer_params"]["remote_block_ids"], Value::Null);
    assert!(decode.exchange_now().is_none());
    p.answer(
        "{\"choices\":[],\"kv_transfer_params\":{\"remote_engine_id\":\"e\",\"remote_block_ids\":[1,2]}}",
    );
    let mut d = decode.exchange();
    let told = body(&d);
    assert_eq!((&told["max_tokens"], &told["stream"]), (&json!(50), &json!(true)));
    let params = json!({"remote_engine_id": "e", "remote_block_ids": [1, 2], "remote_host": "127.0.0.1"});
    assert_eq!(told["kv_transfer_params"], params);
    d.open_stream();
    d.event("1");
    d.close_stream();
    assert_eq!(client.head().0, 200);
    assert_eq!(client.events(), ["1", "[DONE]"]);
    // A failure of the first step is retried before the second begins, and told as its own.
    client.send(&Request::json(CHAT, asked.to_string()).bytes());
    prefill.exchange().reset();
    prefill.exchange().answer("{}");
    let d = decode.exchange();
    assert_eq!(body(&d)["kv_transfer_params"], Value::Null);
    d.answer("{}");
    assert_eq!(client.response().status, 200);
    gateway.wait_idle();
}

#[test]
fn mooncake_workers_are_told_of_each_other_at_once() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = binary().start_listening();
    let labels = json!({"kv_connector": "mooncake", "kv_engine_id": "engine \"7\""});
    for (worker, kind, labels) in [(&prefill, "prefill", labels), (&decode, "decode", json!({}))] {
        let body = json!({"url": worker.url(), "worker_type": kind, "labels": labels});
        assert_eq!(gateway.ask(&Request::json("/workers", body.to_string())).status, 202);
    }
    gateway.wait_healthy(2);
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    let (p, mut d) = (prefill.exchange(), decode.exchange());
    let (asked, told) = (body(&p), body(&d));
    assert_eq!((&asked["max_tokens"], &asked["stream"]), (&json!(1), &json!(false)));
    let transfer = asked["kv_transfer_params"]["transfer_id"].as_str().expect("an id");
    let params = json!({"do_remote_decode": true, "do_remote_prefill": false, "transfer_id": transfer});
    assert_eq!(asked["kv_transfer_params"], params);
    let params = json!({
        "do_remote_decode": false,
        "do_remote_prefill": true,
        "transfer_id": transfer,
        "remote_engine_id": "engine \"7\"",
        "remote_bootstrap_addr": "http://127.0.0.1:8998"
    });
    assert_eq!((&told["kv_transfer_params"], &told["stream"]), (&params, &json!(true)));
    d.open_stream();
    d.event("1");
    d.close_stream();
    p.answer("{}");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.events(), ["1", "[DONE]"]);
    gateway.wait_idle();
}
