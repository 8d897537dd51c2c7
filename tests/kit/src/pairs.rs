//! Requests over pairs of prefill and decode workers that fail at random: every request must get its own whole answer or
//! a clear error, and who has failed must be the one who is charged.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::client::Client;
use crate::client::Request;
use crate::draws::Draws;
use crate::gateway::Gateway;
use crate::gateway::Launch;
use crate::worker::Exchange;
use crate::worker::Worker;

/// Events of an answer, the end mark not counted.
const EVENTS: usize = 5;
/// How often a worker looks whether it is still waited for.
const LOOK: Duration = Duration::from_millis(5);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ringway` binary.
    pub program: PathBuf,
    /// Requests in all.
    pub requests: usize,
    /// Client threads.
    pub threads: usize,
    /// Workers of each role.
    pub workers: usize,
    /// Shards of the gateway.
    pub shards: usize,
    /// Of a thousand requests to a prefill worker, how many fail.
    pub prefill_faults: u64,
    /// The same of a decode worker.
    pub decode_faults: u64,
    /// What computing a prompt takes.
    pub prefill_time: Duration,
    /// Where the order of faults comes from.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Whole answers.
    pub complete: usize,
    /// Clear errors, by code, or streams that ended with an error event.
    pub errors: BTreeMap<String, usize>,
    /// Everything else, in words.
    pub wrong: Vec<String>,
    /// Failures that prefill workers made, and that they were charged with.
    pub prefill: (usize, usize),
    /// The same of decode workers.
    pub decode: (usize, usize),
    /// How much later than it left the decode worker the first event came to the client, sorted.
    pub delays: Vec<Duration>,
}

/// What the two workers of a request know of each other.
#[derive(Debug, Default)]
struct Rooms {
    /// Whose prompt is computed.
    filled: Mutex<HashSet<u64>>,
    filling: Condvar,
    /// When the first event of a request left.
    begun: Mutex<BTreeMap<String, Instant>>,
    draws: Mutex<Draws>,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct Half {
    addr: SocketAddr,
    url: String,
    faults: u64,
    made: AtomicUsize,
}

impl Plan {
    /// Runs it.
    pub fn run(&self) -> Report {
        let rooms = Arc::new(Rooms { draws: Mutex::new(Draws::new(self.seed)), ..Rooms::default() });
        let time = self.prefill_time;
        let prefill: Vec<_> = (0..self.workers)
            .map(|_| {
                let one =
                    move |exchange, half: &Half, rooms: &Rooms| prefill_one(exchange, half, rooms, time);
                serve(self.prefill_faults, &rooms, one)
            })
            .collect();
        let decode: Vec<_> =
            (0..self.workers).map(|_| serve(self.decode_faults, &rooms, decode_one)).collect();
        let gateway = self.start(&prefill, &decode);
        let mut report = self.ask(&|| gateway.client(), &rooms);
        gateway.wait_idle();
        rooms.is_over.store(true, Ordering::Relaxed);
        report.prefill = charged(&gateway, &prefill);
        report.decode = charged(&gateway, &decode);
        report.delays.sort_unstable();
        report
    }

    /// The same clients without a gateway, which ask a worker that has the prompt after as long: how late an event comes
    /// on this machine anyway.
    pub fn run_without(&self) -> Report {
        let rooms = Arc::new(Rooms::default());
        let time = self.prefill_time;
        let worker = serve(0, &rooms, move |mut exchange: Exchange, _: &Half, rooms: &Rooms| {
            if !exchange.closes_within(time) {
                stream(exchange, None, rooms);
            }
        });
        let mut report = self.ask(&|| Client::connect(worker.addr), &rooms);
        rooms.is_over.store(true, Ordering::Relaxed);
        report.delays.sort_unstable();
        report
    }

    fn start(&self, prefill: &[Arc<Half>], decode: &[Arc<Half>]) -> Gateway {
        let mut launch = Launch::new(&self.program)
            .flag("--shards", self.shards)
            .flag("--log-level", "error")
            .flag("--policy", "random")
            .flag(
                "--first-token-timeout-secs",
                if self.prefill_faults + self.decode_faults > 0 { 1 } else { 60 },
            )
            // Nobody is left out for failing: every failure is to be seen.
            .flag("--cb-failure-threshold", 16_383)
            .switch("--pd-disaggregation");
        for half in prefill {
            launch = launch.flag("--prefill", &half.url).switch("8998");
        }
        for half in decode {
            launch = launch.flag("--decode", &half.url);
        }
        let gateway = launch.start_listening();
        gateway.wait_healthy(prefill.len() + decode.len());
        gateway
    }

    fn ask(&self, connect: &(dyn Fn() -> Client + Sync), rooms: &Rooms) -> Report {
        let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let mut client = connect();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.requests {
                            return;
                        }
                        let marker = format!("request-{number}-");
                        let answer = ask_one(&mut client, &marker, rooms);
                        let is_over = !matches!(answer, Ok(Answer::Complete(_)));
                        let mut report = report.lock().expect("nobody panics with it");
                        match answer {
                            Ok(Answer::Complete(delay)) => {
                                report.complete += 1;
                                report.delays.extend(delay);
                            }
                            Ok(Answer::Error(code)) => *report.errors.entry(code).or_default() += 1,
                            Err(wrong) => report.wrong.push(wrong),
                        }
                        drop(report);
                        if is_over {
                            client = connect();
                        }
                    }
                });
            }
        });
        report.into_inner().expect("nobody panics with it")
    }
}

enum Answer {
    Complete(Option<Duration>),
    Error(String),
}

fn ask_one(client: &mut Client, marker: &str, rooms: &Rooms) -> Result<Answer, String> {
    let body = format!("{{\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{marker}\"}}]}}");
    let cut = |error: std::io::Error| format!("{marker}: {error}");
    client.try_send(&Request::json("/v1/chat/completions", body)).map_err(cut)?;
    let (status, _) = client.try_head().map_err(cut)?;
    if status != 200 {
        let said = client.try_rest().map_err(cut)?;
        let said: Value =
            serde_json::from_slice(&said).map_err(|_| format!("{marker}: {status} is no JSON"))?;
        let code = said["error"]["code"].as_str().ok_or_else(|| format!("{marker}: {status} {said}"))?;
        return Ok(Answer::Error(code.to_owned()));
    }
    let mut delay = None;
    for number in 0..EVENTS {
        let event = client.try_event().map_err(cut)?.ok_or_else(|| format!("{marker}: ended at {number}"))?;
        if number == 0 {
            let now = Instant::now();
            let begun = rooms.begun.lock().expect("nobody panics with it").remove(marker);
            delay = begun.map(|begun| now.saturating_duration_since(begun));
        }
        if event.contains("\"error\"") {
            return Ok(Answer::Error("error event".to_owned()));
        }
        if event != format!("data: {}", chunk(marker, number)) {
            return Err(format!("{marker}: {event}"));
        }
    }
    match client.try_event().map_err(cut)?.as_deref() {
        Some("data: [DONE]") => {}
        other => return Err(format!("{marker}: {other:?} instead of the end")),
    }
    match client.try_event().map_err(cut)? {
        None => Ok(Answer::Complete(delay)),
        Some(more) => Err(format!("{marker}: {more} after the end")),
    }
}

/// Failures that these workers made, and that they were charged with.
fn charged(gateway: &Gateway, halves: &[Arc<Half>]) -> (usize, usize) {
    let metrics = gateway.metrics();
    let of = |half: &Half| {
        let worker = format!("worker=\"{}\"", half.url);
        metrics.sum("smg_worker_cb_outcomes_total", &[&worker, "outcome=\"failure\""]) as usize
    };
    let made = halves.iter().map(|half| half.made.load(Ordering::Relaxed)).sum();
    (made, halves.iter().map(|half| of(half)).sum())
}

/// Starts a worker of which every request has a thread.
fn serve<F>(faults: u64, rooms: &Arc<Rooms>, one: F) -> Arc<Half>
where
    F: Fn(Exchange, &Half, &Rooms) + Clone + Send + 'static,
{
    let worker = Worker::manual();
    let half = Arc::new(Half { addr: worker.addr(), url: worker.url(), faults, made: AtomicUsize::new(0) });
    let (shared, rooms) = (Arc::clone(&half), Arc::clone(rooms));
    thread::spawn(move || {
        while !rooms.is_over.load(Ordering::Relaxed) {
            let Some(exchange) = worker.exchange_within(Duration::from_millis(100)) else { continue };
            let (half, rooms, one) = (Arc::clone(&shared), Arc::clone(&rooms), one.clone());
            thread::spawn(move || one(exchange, &half, &rooms));
        }
    });
    half
}

impl Half {
    /// The way to fail this time, of so many ways; none for not at all.
    fn fault(&self, rooms: &Rooms, ways: u64) -> Option<u64> {
        let mut draws = rooms.draws.lock().expect("nobody panics with it");
        if draws.below(1000) >= self.faults {
            return None;
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(draws.below(ways))
    }
}

fn prefill_one(mut exchange: Exchange, half: &Half, rooms: &Rooms, time: Duration) {
    let room = told(&exchange)["bootstrap_room"].as_u64().expect("a room");
    match half.fault(rooms, 16) {
        Some(0..5) => return die(exchange),
        Some(5..10) => {
            exchange.send(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
            return exchange.keep();
        }
        Some(10..15) => {
            exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf an answer");
            return exchange.reset();
        }
        Some(_) => return exchange.wait_closed(),
        None => {}
    }
    if exchange.closes_within(time.max(Duration::from_millis(1))) {
        return;
    }
    rooms.filled.lock().expect("nobody panics with it").insert(room);
    rooms.filling.notify_all();
    exchange.answer("{\"prefilled\":1}");
}

/// Ends within the head: before its first byte, a kept connection would count as closed while it rested.
fn die(mut exchange: Exchange) {
    exchange.send(b"HTTP/1.1 2");
    exchange.reset();
}

fn decode_one(mut exchange: Exchange, half: &Half, rooms: &Rooms) {
    let told = told(&exchange);
    let room = told["bootstrap_room"].as_u64().expect("a room");
    let fault = half.fault(rooms, 16);
    match fault {
        Some(0..4) => return die(exchange),
        Some(4..8) => {
            exchange.send(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
            return exchange.keep();
        }
        _ => {}
    }
    if !rooms.wait_filled(room, &mut exchange) {
        return;
    }
    match fault {
        Some(15) => return exchange.wait_closed(),
        Some(8..11) => {
            exchange.open_stream();
            return exchange.reset();
        }
        _ => {}
    }
    stream(exchange, fault, rooms);
}

/// Streams an answer, or breaks off within it.
fn stream(mut exchange: Exchange, fault: Option<u64>, rooms: &Rooms) {
    let marker = told(&exchange)["messages"][0]["content"].as_str().expect("a marker").to_owned();
    exchange.open_stream();
    for number in 0..EVENTS {
        if number == 0 {
            rooms.begun.lock().expect("nobody panics with it").insert(marker.clone(), Instant::now());
        }
        if exchange.try_event(&chunk(&marker, number)).is_err() {
            return;
        }
        if fault.is_some() && number == 1 {
            return exchange.reset();
        }
    }
    exchange.close_stream();
}

impl Rooms {
    /// Whether the prompt is computed before nobody waits for it any more.
    fn wait_filled(&self, room: u64, exchange: &mut Exchange) -> bool {
        loop {
            let filled = self.filled.lock().expect("nobody panics with it");
            let waited = self.filling.wait_timeout_while(filled, LOOK, |filled| !filled.contains(&room));
            let (mut filled, _) = waited.expect("nobody panics with it");
            if filled.remove(&room) {
                return true;
            }
            drop(filled);
            if exchange.closes_within(Duration::from_micros(100)) {
                return false;
            }
        }
    }
}

/// One event of a request's answer.
fn chunk(marker: &str, number: usize) -> String {
    format!("{{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{marker}{number}\"}}}}]}}")
}

fn told(exchange: &Exchange) -> Value {
    serde_json::from_slice(&exchange.request.body).expect("JSON")
}
