//! A running engine, seen through plain sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// Longest wait of a test for bytes or a counter.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer as it was received, and whether its framing came to its end.
struct Answer {
    status: u16,
    head: String,
    body: String,
    is_whole: bool,
}

fn fast() -> EngineConfig {
    EngineConfig {
        prefill_tokens_per_s: 0.0,
        decode_tokens_per_s: 0.0,
        base_ttft: Duration::ZERO,
        block_tokens: 4,
        ..EngineConfig::default()
    }
}

fn connect(engine: &EngineHandle) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(engine.addr()).expect("the engine listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    BufReader::new(stream)
}

fn send(socket: &mut BufReader<TcpStream>, method: &str, path: &str, headers: &str, body: &str) {
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: sim\r\n{headers}content-length: {}\r\n\r\n", body.len());
    // An engine that refuses may have reset the connection: that shows when the answer is read.
    let _ = socket.get_mut().write_all(format!("{head}{body}").as_bytes());
}

fn receive(socket: &mut BufReader<TcpStream>) -> Option<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if socket.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let status = head[9..12].parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let (body, is_whole) = match length {
        Some(length) => {
            let mut body = Vec::new();
            let length = length.parse::<u64>().ok()?;
            let read = socket.take(length).read_to_end(&mut body).is_ok();
            let is_whole = read && body.len() as u64 == length;
            (body, is_whole)
        }
        None => read_chunks(socket),
    };
    Some(Answer { status, head, body: String::from_utf8(body).ok()?, is_whole })
}

fn read_chunks(socket: &mut BufReader<TcpStream>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).unwrap_or(0) == 0 {
            return (body, false);
        }
        let bytes = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
        let mut chunk = vec![0; bytes + 2];
        if socket.read_exact(&mut chunk).is_err() {
            return (body, false);
        }
        body.extend_from_slice(&chunk[..bytes]);
        if bytes == 0 {
            return (body, true);
        }
    }
}

fn ask(engine: &EngineHandle, path: &str, headers: &str, body: &Value) -> Option<Answer> {
    let mut socket = connect(engine);
    send(&mut socket, "POST", path, headers, &body.to_string());
    receive(&mut socket)
}

fn ask_json(engine: &EngineHandle, path: &str, body: &Value) -> Value {
    let answer = ask(engine, path, "", body).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

fn events(body: &str) -> Vec<Value> {
    body.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

/// Yields until the counters satisfy `wanted`.
fn until(engine: &EngineHandle, wanted: impl Fn(EngineStats) -> bool) {
    let end = clock::now() + PATIENCE;
    while !wanted(engine.stats()) {
        assert!(clock::now() < end, "the counters never got there: {:?}", engine.stats());
        std::thread::yield_now();
    }
}

fn chat(content: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 8})
}

#[test]
fn a_conversation_hits_its_own_answer() {
    let engine = spawn(fast()).expect("the engine starts");
    let mut body = chat("tell me something rather long, please");
    let first = ask_json(&engine, "/v1/chat/completions", &body);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(first["usage"]["completion_tokens"], 8);
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.push(first["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "go on"}));
    let second = ask_json(&engine, "/v1/chat/completions", &body);
    let before = first["usage"]["total_tokens"].as_u64().expect("a count");
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], before / 4 * 4);
    assert_eq!(engine.stats().requests, 2);
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let engine = spawn(fast()).expect("the engine starts");
    let whole = ask_json(&engine, "/v1/chat/completions", &chat("hello"));
    let mut body = chat("hello");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    for fault in ["", "x-sim-fault: drip\r\n"] {
        let answer = ask(&engine, "/v1/chat/completions", fault, &body).expect("an answer");
        assert!(answer.is_whole && answer.body.ends_with("data: [DONE]\n\n"));
        assert!(answer.head.contains("content-type: text/event-stream"));
        assert!(answer.head.contains(&format!("x-sim-engine: {}", engine.addr().port())));
        let events = events(&answer.body);
        assert_eq!(events.len(), 1 + 8 + 1 + 1, "role, words, finish, usage");
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let said: String = events[1..9]
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(said, whole["choices"][0]["message"]["content"]);
        assert_eq!(events[9]["choices"][0]["finish_reason"], "length");
        assert_eq!(events[10]["usage"]["completion_tokens"], 8);
    }
}

#[test]
fn events_leave_one_by_one() {
    // The second word is due in a day: only a stream that holds nothing back shows the first.
    let engine = spawn(EngineConfig { decode_tokens_per_s: 1e-5, ..fast() }).expect("the engine starts");
    let mut body = chat("hello");
    body["stream"] = json!(true);
    let mut socket = connect(&engine);
    send(&mut socket, "POST", "/v1/chat/completions", "", &body.to_string());
    let mut seen = String::new();
    while seen.matches("data: ").count() < 2 {
        assert!(socket.read_line(&mut seen).expect("more of the stream") > 0);
    }
    until(&engine, |stats| stats.running == 1);
    drop(socket);
    until(&engine, |stats| stats.running == 0 && stats.aborted == 1);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let slow =
        EngineConfig { base_ttft: Duration::from_secs(3_600), concurrency_max: 1, queue_max: 1, ..fast() };
    let engine = spawn(slow).expect("the engine starts");
    let mut computed = connect(&engine);
    send(&mut computed, "POST", "/v1/chat/completions", "", &chat("a").to_string());
    until(&engine, |stats| stats.running == 1);
    let mut queued = connect(&engine);
    send(&mut queued, "POST", "/generate", "", &json!({"text": "b"}).to_string());
    until(&engine, |stats| stats.waiting == 1);
    let refused = ask(&engine, "/v1/chat/completions", "", &chat("c")).expect("an answer");
    assert_eq!(refused.status, 503);
    drop(queued);
    until(&engine, |stats| stats.waiting == 0 && stats.aborted == 1);
    drop(computed);
    until(&engine, |stats| stats.running == 0 && stats.aborted == 2);
}

#[test]
fn faults_happen_where_they_are_asked_for() {
    let engine = spawn(fast()).expect("the engine starts");
    let path = "/v1/chat/completions";
    assert!(ask(&engine, path, "x-sim-fault: close-before\r\n", &chat("a")).is_none());
    let status = ask(&engine, path, "x-sim-fault: status:429\r\n", &chat("a")).expect("an answer");
    assert_eq!(status.status, 429);
    let cut = ask(&engine, path, "x-sim-fault: close-mid:1\r\n", &chat("a")).expect("a head");
    assert!(!cut.is_whole);
    let mut stream = chat("a");
    stream["stream"] = json!(true);
    let cut = ask(&engine, path, "x-sim-fault: close-mid:3\r\n", &stream).expect("a head");
    assert!(!cut.is_whole);
    assert_eq!(events(&cut.body).len(), 3);
    engine.set_faults(FaultPlan { refuse: true, ..FaultPlan::default() });
    assert!(ask(&engine, path, "", &chat("a")).is_none());
    engine.set_faults(FaultPlan { error_rate: 1.0, ..FaultPlan::default() });
    assert_eq!(ask(&engine, path, "", &chat("a")).expect("an answer").status, 503);
}

#[test]
fn every_endpoint_answers_json() {
    let engine = spawn(fast()).expect("the engine starts");
    let both = json!({"text": ["a", "b"], "sampling_params": {"max_new_tokens": 2}});
    assert_eq!(ask_json(&engine, "/generate", &both)[1]["meta_info"]["completion_tokens"], 2);
    let text = ask_json(&engine, "/v1/completions", &json!({"prompt": "abc"}));
    assert_eq!(text["usage"]["completion_tokens"], 16);
    let message = ask_json(&engine, "/v1/messages", &chat("a"));
    assert_eq!(message["stop_reason"], "max_tokens");
    let response = ask_json(&engine, "/v1/responses", &json!({"input": "hi"}));
    assert_eq!(response["status"], "completed");
    let embedding = ask_json(&engine, "/v1/embeddings", &json!({"input": ["a", "b"]}));
    assert_eq!(embedding["data"].as_array().map(Vec::len), Some(2));
    let ranked = ask_json(&engine, "/rerank", &json!({"query": "q", "documents": ["a", "b"]}));
    assert_eq!(ranked["results"].as_array().map(Vec::len), Some(2));
    ask_json(&engine, "/v1/score", &json!({"text_1": "q", "text_2": ["a", "b"]}));
    ask_json(&engine, "/v1/classify", &json!({"input": "q"}));
    let tokens = ask_json(&engine, "/tokenize", &json!({"prompt": "hello you"}));
    let text = ask_json(&engine, "/detokenize", &json!({"tokens": tokens["tokens"]}));
    assert_eq!(text["text"], "hello you");
    let mut socket = connect(&engine);
    for path in [
        "/v1/models",
        "/get_model_info",
        "/server_info",
        "/get_load",
        "/version",
        "/_sim/last",
        "/_sim/stats",
    ] {
        send(&mut socket, "GET", path, "", "");
        let answer = receive(&mut socket).expect("an answer on the same connection");
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_str::<Value>(&answer.body).expect("JSON");
    }
    send(&mut socket, "GET", "/metrics", "", "");
    let page = receive(&mut socket).expect("an answer").body;
    assert!(page.contains("vllm:num_requests_running") && page.contains("sglang:token_usage"));
}

#[test]
fn bad_json_is_a_bad_request() {
    let engine = spawn(fast()).expect("the engine starts");
    let mut socket = connect(&engine);
    send(&mut socket, "POST", "/v1/chat/completions", "", "{");
    let answer = receive(&mut socket).expect("an answer");
    assert_eq!(answer.status, 400);
    let error: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(error["error"]["message"].is_string());
}

#[test]
fn a_large_body_arrives_whole() {
    let engine = spawn(fast()).expect("the engine starts");
    let body = json!("x".repeat(3_000_000));
    let answer = ask_json(&engine, "/v1/audio/transcriptions", &body);
    assert_eq!(answer["received_bytes"], 3_000_002);
    let mut socket = connect(&engine);
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: sim\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.get_mut().write_all(format!("{head}3\r\nfoo\r\n3\r\nbar\r\n0\r\n\r\n").as_bytes()).expect("read");
    let answer: Value = serde_json::from_str(&receive(&mut socket).expect("an answer").body).expect("JSON");
    assert_eq!(answer["received_fnv1a64"], "85944171f73967e8");
}

#[test]
fn a_stop_closes_everything_at_once() {
    let slow = EngineConfig { base_ttft: Duration::from_secs(3_600), ..fast() };
    let engine = spawn(slow).expect("the engine starts");
    let addr = engine.addr();
    let mut socket = connect(&engine);
    send(&mut socket, "POST", "/v1/chat/completions", "", &chat("a").to_string());
    until(&engine, |stats| stats.running == 1);
    engine.stop();
    assert!(receive(&mut socket).is_none());
    assert!(TcpStream::connect(addr).is_err());
    spawn(EngineConfig { port: addr.port(), ..fast() }).expect("the port is free again");
}
