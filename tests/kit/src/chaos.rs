//! Many requests over a fleet that changes all the time: every one must get its own complete answer or a clear error.
//!
//! A simulated engine's answer follows from the prompt alone, so what each prompt must be answered with is asked of
//! an engine directly, before. Threads share no prompt: an answer that went to the wrong request is a wrong answer.
//! Engines are processes of their own, so that killing one is what it is in life.

mod disturb;
pub(crate) mod judge;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::chaos::disturb::Disturber;
use crate::chaos::judge::Judge;
use crate::gateway::Gateway;
use crate::gateway::Launch;
use crate::gateway::Signal;
use crate::gateway::send_signal;
use crate::wait;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ringway` binary.
    pub program: PathBuf,
    /// Flags of the gateway, as name and value.
    pub flags: Vec<(String, String)>,
    /// Requests in all.
    pub requests: usize,
    /// Most engines at a time.
    pub engines_max: usize,
    /// Client threads, each with a connection.
    pub threads: usize,
    /// Changes of the fleet, spread evenly over the requests.
    pub disturbances: usize,
    /// Whether engines are killed too, not only added and removed.
    pub kills: bool,
    /// Where the order of disturbances comes from.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that got their own complete answer.
    pub complete: usize,
    /// Requests that got a clear error, by its code.
    pub errors: BTreeMap<String, usize>,
    /// What must not be: wrong, cut or unclear answers.
    pub wrong: Vec<String>,
    /// Workers added, removed and killed.
    pub disturbances: Disturbances,
    /// Requests done and the gateway's resident bytes, sampled.
    pub resident: Vec<(usize, u64)>,
    /// From the first request to the last.
    pub elapsed: Duration,
}

/// Changes of the fleet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbances {
    /// Workers added through the API.
    pub added: usize,
    /// Workers removed through the API.
    pub removed: usize,
    /// Engines killed.
    pub killed: usize,
}

/// A simulated engine in a process of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    url: String,
}

/// How far the clients have come.
struct Progress {
    requests: usize,
    started: AtomicUsize,
    done: AtomicUsize,
    is_over: AtomicBool,
}

/// Prompts per thread: each comes again and again, as conversations do.
const PROMPTS_PER_THREAD: usize = 16;
/// How often memory is sampled, in samples over the whole run.
const SAMPLES: usize = 100;

// === impl Plan ===

impl Plan {
    /// Carries it out, and waits until the gateway has nothing in flight any more.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        let engines: Vec<Engine> = (0..self.engines_max).map(|_| Engine::start(&self.program)).collect();
        let judge = Judge::ask(engines[0].addr(), self.threads * PROMPTS_PER_THREAD);
        let mut launch = Launch::new(&self.program).flag("--log-level", "warn");
        for (name, value) in &self.flags {
            launch = launch.flag(name, value);
        }
        let gateway = engines.iter().fold(launch, |launch, engine| launch.worker(&engine.url)).start();
        let progress = Progress {
            requests: self.requests,
            started: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        let outcome = Mutex::new(Outcome::default());
        let start = Instant::now();
        thread::scope(|scope| {
            let disturber = Disturber::new(self, &gateway, engines);
            let disturbing = scope.spawn(|| disturber.run(&progress));
            let sampling = scope.spawn(|| sample(&gateway, &progress));
            let clients: Vec<_> = (0..self.threads)
                .map(|at| {
                    let (judge, progress, outcome, addr) = (&judge, &progress, &outcome, gateway.addr());
                    scope.spawn(move || drive(judge, progress, outcome, addr, at))
                })
                .collect();
            let has_panicked =
                clients.into_iter().map(thread::ScopedJoinHandle::join).any(|end| end.is_err());
            progress.is_over.store(true, Ordering::Relaxed);
            let mut outcome = outcome.lock().expect("its holders do not panic");
            outcome.elapsed = start.elapsed();
            outcome.disturbances = disturbing.join().expect("the disturber ends");
            outcome.resident = sampling.join().expect("the sampler ends");
            assert!(!has_panicked, "a client thread panicked");
        });
        gateway.wait_idle();
        outcome.into_inner().expect("its holders do not panic")
    }
}

/// One client thread: a connection, and one request after another.
fn drive(judge: &Judge, progress: &Progress, outcome: &Mutex<Outcome>, addr: SocketAddr, thread: usize) {
    let mut client = None;
    let mut mine = Outcome::default();
    let mut round = 0;
    while progress.started.fetch_add(1, Ordering::Relaxed) < progress.requests {
        let prompt = thread * PROMPTS_PER_THREAD + round % PROMPTS_PER_THREAD;
        // Both kinds come with every prompt.
        let is_stream = (round + round / PROMPTS_PER_THREAD).is_multiple_of(2);
        judge.exchange(&mut client, addr, prompt, is_stream, &mut mine);
        progress.done.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
    let mut outcome = outcome.lock().expect("its holders do not panic");
    outcome.complete += mine.complete;
    outcome.wrong.append(&mut mine.wrong);
    for (code, count) in mine.errors {
        *outcome.errors.entry(code).or_default() += count;
    }
}

/// Watches the gateway's memory.
fn sample(gateway: &Gateway, progress: &Progress) -> Vec<(usize, u64)> {
    let mut samples = Vec::new();
    for sample in 0..SAMPLES {
        if !progress.reaches(progress.requests * sample / SAMPLES) {
            break;
        }
        samples.push((progress.done.load(Ordering::Relaxed), gateway.resident_bytes()));
    }
    samples.push((progress.done.load(Ordering::Relaxed), gateway.resident_bytes()));
    samples
}

// === impl Progress ===

impl Progress {
    /// Waits until so many requests are done; false when the run is over before.
    fn reaches(&self, requests: usize) -> bool {
        let has_come = || self.done.load(Ordering::Relaxed) >= requests;
        while !self.is_over.load(Ordering::Relaxed) {
            if has_come() {
                return true;
            }
            thread::sleep(Duration::from_millis(2));
        }
        has_come()
    }
}

// === impl Outcome ===

impl Outcome {
    /// Resident bytes when a share of the requests was done, and at the end.
    pub fn resident_from(&self, share: f64) -> Option<(u64, u64)> {
        let end = self.resident.last()?;
        let from = self.resident.iter().find(|(done, _)| *done as f64 >= share * end.0 as f64)?;
        Some((from.1, end.1))
    }
}

// === impl Engine ===

impl Engine {
    /// Starts `ringway engine-sim`, a fast one, and waits until it says where it listens.
    #[track_caller]
    pub fn start(program: &Path) -> Engine {
        Engine::start_at(program, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// As [`Engine::start`], at this address. The kernel may close the listener of one that was killed there a moment
    /// after its process has ended: then it is tried again.
    #[track_caller]
    pub fn start_at(program: &Path, addr: SocketAddr) -> Engine {
        wait::some("an engine to start", || Engine::try_start(program, addr))
    }

    fn try_start(program: &Path, addr: SocketAddr) -> Option<Engine> {
        let mut child = Command::new(program)
            .args(["engine-sim", "--model", "sim", "--concurrency", "256"])
            .args(["--host", &addr.ip().to_string(), "--port", &addr.port().to_string()])
            .args(["--prefill-tokens-per-s", "10000000", "--decode-tokens-per-s", "10000"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut url = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut url).expect("it says where it listens, or ends");
        let engine = Engine { child, url: url.trim().to_owned() };
        engine.url.starts_with("http://").then_some(engine)
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().expect("an address")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Only our own child, by its handle.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
