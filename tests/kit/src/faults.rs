//! Requests over engines that fail in every way: every one must get its own complete answer or a clear error, whoever
//! leaves must be let go of, and the gateway must be as before when all is over.

mod aborts;
mod engines;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

pub use crate::faults::aborts::Latencies;
pub use crate::faults::aborts::PHASES;

use crate::chaos::Engine;
use crate::chaos::Outcome;
use crate::chaos::judge::Judge;
use crate::client::Client;
use crate::faults::engines::Breaker;
use crate::gateway::Gateway;
use crate::gateway::Launch;
use crate::place;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ringway` binary.
    pub program: PathBuf,
    /// Flags of the gateway, as name and value.
    pub flags: Vec<(String, String)>,
    /// How long faults and requests go on.
    pub time: Duration,
    /// Engines.
    pub engines: usize,
    /// Client threads; some read slowly, some leave early.
    pub threads: usize,
    /// Where the order of faults comes from.
    pub seed: u64,
    /// How often leaving is measured in each phase while nothing else goes on.
    pub quiet_rounds: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Of requests whose clients stayed.
    pub answers: Outcome,
    /// Clients that left early.
    pub left: usize,
    /// Faults, by what they were.
    pub faults: BTreeMap<&'static str, usize>,
    /// Seconds since the start, resident bytes, and open descriptors of the gateway.
    pub samples: Vec<(f64, u64, usize)>,
    /// The same once everything was over.
    pub end: (u64, usize),
    /// From the leaving of a client to its worker's connection being closed, by phase: without load, and beside it.
    pub leaving: [Latencies; 2],
    /// Counters of the gateway that say what it did, by name.
    pub counters: Vec<(&'static str, f64)>,
}

/// What all threads see.
struct Scene<'a> {
    addr: SocketAddr,
    judge: &'a Judge,
    slow: &'a Judge,
    is_over: &'a AtomicBool,
    left: &'a AtomicUsize,
    answers: &'a Mutex<Outcome>,
}

const PROMPTS_PER_THREAD: usize = 8;
/// Words of an answer, and of one to a client that reads slowly: more than sockets hold.
const WORDS: usize = 60;
const SLOW_WORDS: usize = 1_500;
const SLOW_PAUSE: Duration = Duration::from_micros(500);
/// What a slow client lets come before it reads.
const SLOW_BUFFER_BYTES: usize = 4096;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const COUNTERS: [&str; 8] = [
    "smg_worker_retries_total",
    "smg_worker_retries_exhausted_total",
    "smg_worker_retries_denied_total",
    "smg_http_streams_resumed_total",
    "smg_http_streams_moved_total",
    "smg_http_client_aborts_total",
    "smg_worker_cb_transitions_total",
    "smg_http_broken_responses_total",
];

impl Plan {
    /// Carries it out, and waits until the gateway has nothing in flight any more.
    #[track_caller]
    pub fn run(&self) -> Report {
        // Addresses of their own: while one is dead, no outgoing connection takes its port.
        let start = |_| Engine::start_at(&self.program, place::free_port(place::own_ip()));
        let engines: Vec<Engine> = (0..self.engines).map(start).collect();
        let prompts = self.threads * PROMPTS_PER_THREAD;
        let judge = Judge::ask_for(engines[0].addr(), prompts, WORDS);
        let slow = Judge::ask_for(engines[0].addr(), prompts, SLOW_WORDS).unhurried(SLOW_PAUSE);
        let launch = self.flags.iter().fold(Launch::new(&self.program), |launch, (name, value)| {
            if value.is_empty() { launch.switch(name) } else { launch.flag(name, value) }
        });
        let gateway = engines.iter().fold(launch, |launch, engine| launch.worker(engine.url())).start();
        let mut report = Report::default();
        report.leaving[0] = aborts::measure(&self.program, |rounds| rounds < self.quiet_rounds);
        let (is_over, left, answers) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::default());
        let scene = Scene {
            addr: gateway.addr(),
            judge: &judge,
            slow: &slow,
            is_over: &is_over,
            left: &left,
            answers: &answers,
        };
        let start = Instant::now();
        thread::scope(|scope| {
            let breaker = Breaker::new(&self.program, engines, self.seed);
            let breaking = scope.spawn(|| breaker.run(&is_over));
            let sampling = scope.spawn(|| sample(&gateway, start, &is_over));
            let leaving =
                scope.spawn(|| aborts::measure(&self.program, |_| !is_over.load(Ordering::Relaxed)));
            let scene = &scene;
            let clients: Vec<_> = (0..self.threads).map(|at| scope.spawn(move || drive(scene, at))).collect();
            thread::sleep(self.time);
            is_over.store(true, Ordering::Relaxed);
            let ends: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
            assert!(ends.iter().all(Result::is_ok), "a client thread panicked");
            report.leaving[1] = leaving.join().expect("leaving is measured");
            report.samples = sampling.join().expect("the sampler ends");
            let (faults, engines) = breaking.join().expect("the breaker ends");
            report.faults = faults;
            gateway.wait_idle();
            engines.iter().for_each(engines::wait_idle);
        });
        report.answers = answers.into_inner().expect("its holders do not panic");
        report.answers.elapsed = start.elapsed();
        report.left = left.into_inner();
        report.end = (gateway.resident_bytes(), gateway.descriptors());
        let metrics = gateway.metrics();
        report.counters = COUNTERS.map(|name| (name, metrics.sum(name, &[]))).to_vec();
        report
    }
}

/// One client: every fourth reads slowly, every fourth leaves early.
fn drive(scene: &Scene<'_>, thread: usize) {
    let mut kept = None;
    let mut mine = Outcome::default();
    let mut round = 0;
    while !scene.is_over.load(Ordering::Relaxed) {
        let prompt = thread * PROMPTS_PER_THREAD + round % PROMPTS_PER_THREAD;
        let is_stream = (round + round / PROMPTS_PER_THREAD).is_multiple_of(2);
        match thread % 4 {
            2 => {
                let mut narrow = Some(narrow_client(scene.addr));
                scene.slow.exchange(&mut narrow, scene.addr, prompt, true, &mut mine);
            }
            3 => leave_early(scene, prompt, is_stream, round),
            _ => scene.judge.exchange(&mut kept, scene.addr, prompt, is_stream, &mut mine),
        }
        round += 1;
    }
    let mut answers = scene.answers.lock().expect("its holders do not panic");
    answers.complete += mine.complete;
    answers.wrong.append(&mut mine.wrong);
    for (code, count) in mine.errors {
        *answers.errors.entry(code).or_default() += count;
    }
}

/// Sends a request and leaves: after part of it, at once, after a while, or after some events.
fn leave_early(scene: &Scene<'_>, prompt: usize, is_stream: bool, round: usize) {
    let mut client = Client::connect(scene.addr);
    let bytes = scene.judge.request(prompt, is_stream).bytes();
    let sent = if round.is_multiple_of(5) { &bytes[..bytes.len() / 2] } else { &bytes[..] };
    let is_sent = client.try_send_bytes(sent).is_ok();
    match round % 5 {
        2 => thread::sleep(Duration::from_millis(3 * (round as u64 % 30))),
        3 | 4 if is_stream && is_sent && client.try_head().is_ok_and(|(status, _)| status == 200) => {
            let events = 1 + round % 20;
            let _ = (0..events).try_for_each(|_| client.try_event().map(drop));
        }
        _ => {}
    }
    if round.is_multiple_of(2) {
        client.reset();
    }
    scene.left.fetch_add(1, Ordering::Relaxed);
}

/// A client whose socket holds little.
#[track_caller]
fn narrow_client(addr: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(SLOW_BUFFER_BYTES).expect("a socket option");
    socket.connect(&addr.into()).expect("the gateway listens");
    Client::over(TcpStream::from(socket))
}

/// Watches the gateway's memory and descriptors.
fn sample(gateway: &Gateway, start: Instant, is_over: &AtomicBool) -> Vec<(f64, u64, usize)> {
    let mut samples = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        samples.push((start.elapsed().as_secs_f64(), gateway.resident_bytes(), gateway.descriptors()));
        thread::sleep(SAMPLE_EVERY);
    }
    samples
}
