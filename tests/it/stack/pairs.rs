//! Prefill and decode engines told apart by labels.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::worker::Exchange;
use testkit::worker::Worker;

use super::choices;
use super::launch;
use crate::setup::CHAT;

#[track_caller]
fn start(prefill: &Worker, decode: &Worker, logic: &str) -> Gateway {
    launch(&[(prefill, "m"), (decode, "m")], logic)
        .flag("--static-model-labels", "p,d")
        .flag("--prefill-model-labels", "p")
        .flag("--decode-model-labels", "d")
        .start_listening()
}

fn body(exchange: &Exchange) -> Value {
    serde_json::from_slice(&exchange.request.body).expect("JSON")
}

const STREAM: &str = "{\"model\":\"m\",\"stream\":true,\"max_tokens\":9,\"messages\":[]}";

#[test]
fn a_shared_store_needs_the_prefill_engine_to_go_first() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(&prefill, &decode, "disaggregated_prefill");
    // The model is not looked at.
    for model in ["m", "whatever"] {
        let mut client = gateway.client();
        let sent = STREAM.replace("\"m\"", &format!("\"{model}\""));
        client.send(&Request::json(CHAT, sent.as_str()).header("x-request-id", "id-1").bytes());
        let p = prefill.exchange();
        assert_eq!(p.request.line, format!("POST {CHAT}"));
        assert_eq!(p.request.headers.get("x-request-id"), Some("id-1"));
        let asked = body(&p);
        assert_eq!((&asked["max_tokens"], &asked["stream"]), (&1.into(), &false.into()));
        assert!(decode.exchange_now().is_none(), "it is not asked before");
        p.answer("{}");
        let mut d = decode.exchange();
        assert_eq!(String::from_utf8_lossy(&d.request.body), sent, "as it came");
        d.open_stream();
        d.event("1");
        d.close_stream();
        let (status, headers) = client.head();
        assert_eq!((status, headers.get("content-type")), (200, Some("text/event-stream")));
        assert_eq!(client.events(), ["1", "[DONE]"]);
    }
    let logged = choices(&gateway, 4);
    let expect = |url: String| ("id-1".to_owned(), "None".to_owned(), url);
    assert_eq!(logged[..2], [expect(prefill.url()), expect(decode.url())], "two lines a request");
}

#[test]
fn a_prefill_engine_tells_the_decode_engine_where_its_work_is() {
    let (prefill, decode) = (Worker::manual(), Worker::manual());
    let gateway = start(&prefill, &decode, "disaggregated_prefill_orchestrated");
    let mut client = gateway.client();
    client.send(&Request::json(CHAT, STREAM).bytes());
    let p = prefill.exchange();
    let asked = body(&p);
    assert_eq!((&asked["max_tokens"], &asked["stream"]), (&1.into(), &false.into()));
    let wanted = json!({
        "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
        "remote_block_ids": null, "remote_host": null, "remote_port": null,
    });
    assert_eq!(asked["kv_transfer_params"], wanted);
    p.answer("{\"kv_transfer_params\":{\"remote_engine_id\":\"e\",\"remote_host\":\"localhost\",\"remote_port\":5}}");
    let d = decode.exchange();
    let told = body(&d);
    let expect = json!({ "remote_engine_id": "e", "remote_host": "127.0.0.1", "remote_port": 5 });
    assert_eq!((&told["kv_transfer_params"], &told["max_tokens"]), (&expect, &9.into()));
    d.answer("{\"ok\":1}");
    assert_eq!(client.response().text(), "{\"ok\":1}");
    choices(&gateway, 2);
}

#[test]
fn what_is_not_shared_goes_to_who_decodes() {
    let (prefill, decode) = (Worker::answering(), Worker::answering());
    for logic in ["disaggregated_prefill", "disaggregated_prefill_orchestrated"] {
        let gateway = start(&prefill, &decode, logic);
        for path in ["/v1/embeddings", "/v1/rerank", "/score", "/v1/responses", "/v1/images/generations"] {
            let answer = gateway.ask(&Request::json(path, "{\"model\":\"m\",\"input\":\"a\"}"));
            assert_eq!(
                (answer.status, answer.json()["worker"].as_str()),
                (200, Some(&*decode.url())),
                "{path}"
            );
        }
    }
    assert!(prefill.received().is_empty());
}

#[test]
fn errors_say_which_of_the_two_it_was() {
    for (logic, expect) in [
        (
            "disaggregated_prefill",
            json!({ "error": { "message": "Prefiller error: {\"no\":1}", "type": "prefiller_error", "code": 422 } }),
        ),
        ("disaggregated_prefill_orchestrated", json!({ "error": "Prefill failed: {\"no\":1}" })),
    ] {
        let (prefill, decode) = (Worker::manual(), Worker::answering());
        let gateway = start(&prefill, &decode, logic);
        let mut client = gateway.client();
        client.send(&Request::json(CHAT, STREAM).bytes());
        let mut p = prefill.exchange();
        p.send(b"HTTP/1.1 422 No\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"no\":1}");
        p.keep();
        let answer = client.response();
        assert_eq!((answer.status, answer.json()), (422, expect), "{logic}");
        assert!(decode.received().is_empty());
        // A decode engine's error is the answer, under its own status.
        decode.answer_with(b"HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\nno");
        client.send(&Request::json(CHAT, STREAM).bytes());
        prefill.exchange().answer("{}");
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (400, "no"), "{logic}");
    }
}
