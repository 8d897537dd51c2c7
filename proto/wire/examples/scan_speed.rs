//! Prints what the parsers cost on the bodies, heads and events of a usual day.
//!
//! `cargo run --release -p wire --example scan_speed`

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use wire::{
    HeadLimits, SseScanner, head_end,
    json::{Scanner, insert_member},
    parse_request,
};

/// How long one figure is measured, in `ROUNDS_NUM` rounds of which the fastest counts.
const ROUND: Duration = Duration::from_millis(20);
const ROUNDS_NUM: usize = 25;

const HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
    Host: gateway.internal:30000\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: OpenAI/Python 1.99.1\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Runtime: CPython\r\n\
    X-Stainless-Runtime-Version: 3.12.3\r\n\
    Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Content-Length: 612\r\n\r\n";

const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\
    \"chat.completion.chunk\",\"created\":1760000000,\"model\":\"Qwen/Qwen3-8B\",\"choices\":[{\"index\":0,\
    \"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";

fn main() -> Result<(), Box<dyn Error>> {
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "The quick brown fox. ".repeat(3121));
    let escaped = format!(
        r#"{{"model":"m","prompt":"{}"}}"#,
        "a line of code;\\n    and its \\\"next\\\" ".repeat(1770)
    );
    let chat = chat_body();

    for (name, body) in [("one string", &long), ("one escaped string", &escaped), ("chat body", &chat)] {
        report(&format!("json scan, {name}, {} B", body.len()), || {
            let mut scanner = Scanner::new(black_box(body.as_bytes()));
            scanner.skip().is_ok() && scanner.finish().is_ok()
        });
    }
    report(&format!("json splice, chat body, {} B", chat.len()), || {
        insert_member(black_box(chat.as_bytes()), "stream_options", r#"{"include_usage":true}"#).is_ok()
    });
    report(&format!("request head, 11 headers, {} B", HEAD.len()), || {
        let limits = HeadLimits::default();
        let end = head_end(black_box(HEAD), 0).unwrap_or_default();
        parse_request(&HEAD[..end], &limits).is_ok_and(|head| black_box(head).keep_alive)
    });
    let mut scanner = SseScanner::new();
    report(&format!("event, {} B", EVENT.len()), || scanner.feed(black_box(EVENT)).events == 1);
    Ok(())
}

/// A chat request as the OpenAI clients send it.
fn chat_body() -> String {
    let system = "You are a helpful assistant. Answer in one short paragraph, in plain words, and name what you are not sure of.";
    let user = "Explain how a radix tree finds the longest cached prefix of a prompt.\\nUse an example with three \
        prompts that share a system message, and say what happens when the cache is full and a new prompt comes in.";
    format!(
        "{{\"model\": \"Qwen/Qwen3-8B\", \"messages\": [\
            {{\"role\": \"system\", \"content\": \"{system}\"}}, {{\"role\": \"user\", \"content\": \"{user}\"}}], \
            \"temperature\": 0.7, \"top_p\": 0.95, \"max_tokens\": 256, \"stream\": true, \
            \"stream_options\": {{\"include_usage\": true}}, \"user\": \"user-8f14e45fceea167a\"}}"
    )
}

/// Prints the time of one call in the fastest round.
#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn report(name: &str, mut call: impl FnMut() -> bool) {
    assert!(call(), "{name} is accepted");
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS_NUM {
        let start = Instant::now();
        let mut calls = 0u32;
        while start.elapsed() < ROUND {
            for _ in 0..64 {
                black_box(call());
            }
            calls += 64;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    println!("{name:<44} {best:>9.1} ns");
}
