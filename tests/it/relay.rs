//! Requests reach a worker byte for byte, and answers come back as they were.

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    bodies_arrive_byte_for_byte
    answers_come_back_byte_for_byte
    a_chunked_request_arrives_whole
}

/// Bytes of every value, so that nothing can take them for text.
fn binary_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect()
}

fn form(field: &str, file: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "--XyZ\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"f.bin\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(file);
    body.extend_from_slice(
        b"\r\n--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nmock\r\n--XyZ--\r\n",
    );
    body
}

fn bodies_arrive_byte_for_byte(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    let long_text = "x\\n\u{1F600} ".repeat(140_000);
    let long = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{long_text}\"}}]}}");
    assert!(long.len() > 1024 * 1024);
    let multipart = "multipart/form-data; boundary=XyZ";
    let json = "application/json";
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("/v1/audio/transcriptions", multipart, form("file", &binary_bytes(300_000))),
        ("/v1/audio/transcriptions", multipart, form("file", b"\r\n--Xy\r\n\r\n\0\0")),
        ("/v1/images/edits", multipart, form("image", &binary_bytes(70_000))),
        (
            CHAT,
            json,
            b" {\n\t\"messages\" : [ ] ,\r\n \"temperature\":1.0e+0 , \"model\" :\"mock\" } \n".to_vec(),
        ),
        (CHAT, json, br#"{"user":"a","messages":[],"user":"b","user":null}"#.to_vec()),
        (
            CHAT,
            json,
            br#"{"messages":[{"role":"user","content":"\u0041\ud83d\ude00\/"}],"x":[[],{}]}"#.to_vec(),
        ),
        (CHAT, json, long.into_bytes()),
        ("/detokenize", json, br#"{"tokens":[1,2,3]}"#.to_vec()),
    ];
    let mut client = gateway.client();
    for (path, content_type, body) in cases {
        let request = Request::new("POST", path).header("content-type", content_type).body(body.clone());
        let response = client.ask(&request);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        let received = worker.received().pop().expect("the worker got it");
        assert_eq!(received.line, format!("POST {path}"));
        assert_eq!(received.headers.all("content-type"), [content_type]);
        assert!(received.body == body, "{path}: {} bytes sent, {} received", body.len(), received.body.len());
    }
}

fn answers_come_back_byte_for_byte(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    for (content_type, len) in [
        ("application/json", 0),
        ("application/json", 10),
        ("application/json", 900_000),
        ("application/json", 3_000_000),
        ("audio/mpeg", 1),
        ("audio/mpeg", 200_000),
        ("audio/mpeg", 3_000_000),
    ] {
        let body = binary_bytes(len);
        for framing in ["length", "chunks", "close"] {
            worker.answer_with(&answer(content_type, framing, &body));
            let response = client.ask(&chat("hello"));
            assert_eq!(response.status, 201, "{content_type} {len} {framing}");
            assert_eq!(response.headers.all("content-type"), [content_type]);
            assert!(response.body == body, "{content_type} {len} {framing}: {} bytes", response.body.len());
        }
    }
}

/// An answer in one of the three framings of HTTP/1.1.
fn answer(content_type: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 201 Created\r\nContent-Type: {content_type}\r\n").into_bytes();
    match framing {
        "length" => {
            answer.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            answer.extend_from_slice(body);
        }
        "chunks" => {
            answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(60_001) {
                answer.extend_from_slice(format!("{:X};x=y\r\n", chunk.len()).as_bytes());
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
        }
        _ => {
            answer.extend_from_slice(b"Connection: close\r\n\r\n");
            answer.extend_from_slice(body);
        }
    }
    answer
}

fn a_chunked_request_arrives_whole(setup: Setup) {
    let worker = Worker::answering();
    let gateway = setup.start(&[&worker]);
    let mut client = gateway.client();
    let body = br#"{"messages":[{"role":"user","content":"in pieces"}]}"#;
    let mut bytes =
        format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n").into_bytes();
    bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    for chunk in body.chunks(7) {
        bytes.extend_from_slice(format!("{:x};ext=\"v\"\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nx-trailer: dropped\r\n\r\n");
    // In one piece, and with every byte of its own.
    client.send(&bytes);
    assert_eq!(client.response().status, 200);
    for byte in &bytes {
        client.send(std::slice::from_ref(byte));
    }
    assert_eq!(client.response().status, 200);
    let received = worker.received();
    assert_eq!(received.len(), 2);
    for received in received {
        assert_eq!(received.body, body);
        assert_eq!(received.headers.all("transfer-encoding"), [""; 0]);
        assert_eq!(received.headers.all("content-length"), [body.len().to_string().as_str()]);
        assert_eq!(received.headers.get("x-trailer"), None);
    }
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_it_sends() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    let body = br#"{"messages":[]}"#;
    client.send(expecting(body.len()).as_bytes());
    assert_eq!(client.interim(), 100);
    client.send(body);
    assert_eq!(client.response().status, 200);
    let received = worker.received();
    assert_eq!(received[0].body, body);
    assert_eq!(received[0].headers.get("expect"), None);
}

#[test]
fn a_client_that_expects_100_continue_for_too_much_is_refused_at_once() {
    let worker = Worker::answering();
    let gateway = PLAIN.launch().worker(worker.url()).flag("--max-payload-size", 1000).start();
    let mut client = gateway.client();
    client.send(expecting(1001).as_bytes());
    assert_eq!(client.response().status, 413);
    assert!(client.is_closed());
    assert!(worker.received().is_empty());
}

fn expecting(len: usize) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {len}\r\n\r\n"
    )
}

#[test]
fn every_endpoint_reaches_the_worker_under_its_own_path_and_query() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let mut client = gateway.client();
    for path in [
        CHAT,
        "/v1/completions",
        "/generate",
        "/v1/embeddings",
        "/v1/rerank",
        "/rerank",
        "/v1/score",
        "/v1/classify",
        "/tokenize",
        "/detokenize",
        "/v1/responses",
        "/v1/messages",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/generations",
        "/v1/images/edits",
    ] {
        for query in ["", "?", "?a=b%20c&a=%2F"] {
            let target = format!("{path}{query}");
            let response = client.ask(&Request::json(&target, "{\"input\":\"x\"}"));
            assert_eq!(response.status, 200, "{target}: {}", response.text());
            assert_eq!(worker.received().pop().expect("received").line, format!("POST {target}"));
        }
    }
}

#[test]
fn a_worker_under_a_path_is_asked_under_that_path() {
    let worker = Worker::answering();
    // The mock's health stands at the root: this worker is taken in unprobed.
    let url = format!("{}/engines/one", worker.url());
    let gateway = PLAIN.launch().worker(url).flag("--health-check-endpoint", "/health").start_listening();
    // Its health is asked under the path too, which this worker does not have.
    testkit::wait::until("its health is asked", || worker.asked("GET /engines/one/health") > 0);
    assert_eq!(gateway.get("/readiness").status, 503);
}

#[test]
fn an_error_of_the_worker_is_passed_on_as_it_is() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    for status in [400, 404, 422, 429, 500, 503] {
        let body = format!("{{\"object\":\"error\",\"message\":\"mine\",\"code\":{status}}}");
        let head = format!("HTTP/1.1 {status} Own Words\r\ncontent-type: application/json\r\nx-mine: 1\r\n");
        worker.answer_with(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let response = gateway.ask(&chat("hello"));
        assert_eq!((response.status, response.text()), (status, body));
        assert_eq!(response.headers.get("x-mine"), Some("1"));
        assert_eq!(response.headers.get("x-smg-error-code"), None);
    }
}

#[test]
fn interim_answers_of_the_worker_are_dropped() {
    let worker = Worker::answering();
    let gateway = PLAIN.start(&[&worker]);
    let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    worker.answer_with(&[&interim[..], &json_answer("{\"a\":1}")].concat());
    let mut client = gateway.client();
    client.send(&chat("hello").bytes());
    assert_eq!(client.head().0, 200);
    assert_eq!(client.piece().as_deref(), Some(&b"{\"a\":1}"[..]));
}

#[test]
fn the_gateway_answers_over_ipv6_too() {
    let worker = Worker::answering();
    let free = std::net::TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr());
    // A machine without IPv6 has nothing to test.
    let Ok(addr) = free else { return };
    let gateway: Gateway = PLAIN.launch().listen(addr).worker(worker.url()).start();
    assert_eq!(Client::connect(addr).ask(&chat("hello")).status, 200);
    drop(gateway);
}
