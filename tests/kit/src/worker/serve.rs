//! The threads of a worker: one accepts, one serves each connection.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread;

use crate::http::Body;
use crate::http::Wire;
use crate::worker::Exchange;
use crate::worker::Mode;
use crate::worker::Received;
use crate::worker::Shared;
use crate::worker::json_answer;
use crate::worker::lock;

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

pub(super) fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, hand_over: &Sender<Exchange>) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let id = shared.accepted.fetch_add(1, Ordering::Relaxed);
        if let Ok(twin) = stream.try_clone() {
            lock(&shared.connections).insert(id, twin);
        }
        let (shared, hand_over) = (Arc::clone(shared), hand_over.clone());
        thread::spawn(move || {
            serve(Wire::new(stream), &shared, &hand_over, id);
            lock(&shared.connections).remove(&id);
        });
    }
}

/// Serves a connection until either end is done with it.
fn serve(mut wire: Wire, shared: &Arc<Shared>, hand_over: &Sender<Exchange>, id: usize) {
    // A kept connection may rest for as long as the test runs.
    let _ = wire.stream.set_read_timeout(None);
    while let Ok(Some(head)) = wire.head() {
        let line = head.start.trim_end_matches(" HTTP/1.1").to_owned();
        let Ok(mut body) = head.body(Body::Done) else { return };
        if let Some(answer) = own_answer(shared, &line) {
            if wire.rest(&mut body).is_err() {
                return;
            }
            lock(&shared.asked).push(line);
            if wire.send(&answer).is_err() {
                return;
            }
            continue;
        }
        let mode = lock(&shared.mode).clone();
        let unread = if let Mode::HandOverUnread = mode {
            std::mem::replace(&mut body, Body::Done)
        } else {
            Body::Done
        };
        let Ok(body) = wire.rest(&mut body) else { return };
        let request = Received::of(head, body);
        lock(&shared.received).push(request.clone());
        if let Mode::Answer(answer) = mode {
            if wire.send(&answer).is_err() || says_close(&answer) {
                return;
            }
            continue;
        }
        // The test alone decides when this connection ends, also if it ends it by dropping it.
        lock(&shared.connections).remove(&id);
        let (back, returned) = channel();
        if hand_over.send(Exchange::new(request, wire, unread, back)).is_err() {
            return;
        }
        let Ok(kept) = returned.recv() else { return };
        wire = kept;
        let _ = wire.stream.set_read_timeout(None);
        if let Ok(twin) = wire.stream.try_clone() {
            lock(&shared.connections).insert(id, twin);
        }
    }
}

/// Whether an answer ends its connection.
fn says_close(answer: &[u8]) -> bool {
    const CLOSE: &[u8] = b"connection: close\r\n";
    let head = &answer[..answer.len().min(1024)];
    head.windows(CLOSE.len()).any(|window| window.eq_ignore_ascii_case(CLOSE))
}

/// What a worker answers to the gateway itself.
fn own_answer(shared: &Shared, line: &str) -> Option<Vec<u8>> {
    let model = &shared.model;
    match line {
        "GET /health" => {
            let status = shared.health.load(Ordering::Relaxed);
            Some(format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n").into_bytes())
        }
        "GET /v1/models" => Some(json_answer(&format!(
            "{{\"object\":\"list\",\"data\":[{{\"id\":\"{model}\",\"object\":\"model\",\"owned_by\":\"sglang\",\
             \"max_model_len\":4096}}]}}"
        ))),
        "GET /get_server_info" => {
            let ranks = shared.ranks.load(Ordering::Relaxed);
            Some(json_answer(&format!(
                "{{\"version\":\"0.0.0+mock\",\"served_model_name\":\"{model}\",\"tp_size\":1,\
                 \"dp_size\":{ranks}}}"
            )))
        }
        "GET /get_model_info" => Some(json_answer(&format!(
            "{{\"model_path\":\"{model}\",\"tokenizer_path\":\"{model}\",\"is_generation\":true}}"
        ))),
        "GET /get_load" => {
            Some(json_answer("[{\"dp_rank\":0,\"num_reqs\":1,\"num_waiting_reqs\":0,\"num_tokens\":7}]"))
        }
        "GET /metrics" => {
            let Some(page) = lock(&shared.metrics).clone() else { return Some(NOT_FOUND.to_vec()) };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
            Some(format!("{head}{page}").into_bytes())
        }
        "POST /flush_cache" => Some(json_answer("{}")),
        _ if line.starts_with("GET ") => Some(NOT_FOUND.to_vec()),
        _ => None,
    }
}
