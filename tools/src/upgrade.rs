//! `tools upgrade`: one process of the gateway after another under load, and what the clients noticed.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use argh::FromArgs;
use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::place;

/// An upgrade, or the end of a process, that takes longer has failed.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);
/// Bytes of what each turn of a conversation adds.
const TURN_BYTES: usize = 1200;
/// Turns after which a conversation is over and another begins.
const TURNS: usize = 24;

/// Replace the gateway again and again under a load of conversations, half of them streams; no request may fail, no
/// stream may be cut, and prompts must find their caches as before.
#[derive(FromArgs)]
#[argh(subcommand, name = "upgrade")]
pub(crate) struct Args {
    /// binary to try [default: the release build]
    #[argh(option)]
    binary: Option<PathBuf>,
    /// upgrades
    #[argh(option, default = "20")]
    upgrades: usize,
    /// simulated engines
    #[argh(option, default = "4")]
    engines: usize,
    /// conversations at a time
    #[argh(option, default = "32")]
    threads: usize,
    /// shards of the gateway
    #[argh(option, default = "2")]
    shards: usize,
    /// seconds between two upgrades
    #[argh(option, default = "3")]
    pause_secs: u64,
}

/// What clients saw while one process was the newest.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    requests: usize,
    streams: usize,
    prompt_tokens: u64,
    cached_tokens: u64,
}

/// What clients saw.
#[derive(Debug, Default)]
struct Tally {
    /// By upgrade.
    seen: Vec<Seen>,
    failed: Vec<String>,
    cut: Vec<String>,
}

/// An engine as a child process. Dropped, it is killed.
struct Engine {
    child: Child,
    url: String,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it; true when nobody noticed anything.
pub(crate) fn run(args: &Args) -> bool {
    let binary = crate::binary(args.binary.as_ref());
    let engines: Vec<Engine> = (0..args.engines).filter_map(|_| engine(&binary).ok()).collect();
    let socket = place::temporary("handover");
    let launch = Launch::new(&binary)
        .flag("--policy", "cache_aware")
        .flag("--shards", args.shards)
        .flag("--log-level", "info")
        .env("RUST_LOG", "info,access=off")
        .flag("--handover-socket", socket.display());
    let launch = engines.iter().fold(launch, |launch, engine| launch.worker(&engine.url));
    let mut gateway = launch.start();
    let tally = Mutex::new(Tally { seen: vec![Seen::default()], ..Tally::default() });
    let is_over = AtomicBool::new(false);
    let mut times = Vec::new();
    let ended = thread::scope(|scope| {
        let addr = gateway.addr();
        for at in 0..args.threads {
            let (tally, is_over) = (&tally, &is_over);
            scope.spawn(move || converse(at, addr, tally, is_over));
        }
        let ended = upgrade_all(args, &launch, &mut gateway, &tally, &mut times);
        is_over.store(true, Ordering::Relaxed);
        ended
    });
    let _ = std::fs::remove_file(&socket);
    let Ok(tally) = tally.into_inner() else { return false };
    report(&tally, &mut times);
    let rate = |seen: &[Seen]| hit_rate(seen);
    let (before, after) = tally.seen.split_at(1);
    let checks = [
        ("no request failed", tally.failed.is_empty()),
        ("no stream was cut", tally.cut.is_empty()),
        ("every process came up, and every one before it ended with 0", ended),
        ("prompts find their caches as before, within 2 points", rate(after) + 0.02 >= rate(before)),
    ];
    for (what, holds) in checks {
        println!("{} {what}", if holds { "ok    " } else { "FAILED" });
    }
    checks.iter().all(|(_, holds)| *holds)
}

/// Upgrades one after the other; true if all went well.
fn upgrade_all(
    args: &Args,
    launch: &Launch,
    gateway: &mut Gateway,
    tally: &Mutex<Tally>,
    times: &mut Vec<Duration>,
) -> bool {
    // The first conversations have to have something in caches.
    thread::sleep(Duration::from_secs(2 * args.pause_secs));
    let mut leaving: Vec<Gateway> = Vec::new();
    for _ in 0..args.upgrades {
        let begin = Instant::now();
        let next = launch.spawn();
        while !next.has_logged(&["listens", "after="]) {
            if begin.elapsed() > GIVEN_UP_AFTER || !next.stderr().is_empty() {
                println!("an upgrade failed: {:?}", next.stderr());
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        times.push(begin.elapsed());
        if let Ok(mut tally) = tally.lock() {
            tally.seen.push(Seen::default());
        }
        leaving.push(std::mem::replace(gateway, next));
        thread::sleep(Duration::from_secs(args.pause_secs));
    }
    leaving.iter_mut().all(|before| before.wait_exit().code() == Some(0))
}

/// One conversation after the other, each turn longer than the one before, over one connection as long as it lasts.
fn converse(at: usize, gateway: std::net::SocketAddr, tally: &Mutex<Tally>, is_over: &AtomicBool) {
    let mut client = None;
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let mut text = String::new();
        for turn in 0..TURNS {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let words = format!("{at} in {number} says {turn} and goes on. ");
            text.extend(words.chars().cycle().take(TURN_BYTES));
            let is_stream = (at + turn).is_multiple_of(2);
            let body = format!(
                "{{\"model\":\"sim\",\"max_tokens\":24,\"stream\":{is_stream},\
                 \"stream_options\":{{\"include_usage\":true}},\
                 \"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
            );
            let request = Request::json("/v1/chat/completions", body);
            let done = ask(&mut client, gateway, &request, is_stream);
            let Ok(mut tally) = tally.lock() else { return };
            match done {
                Ok((prompt_tokens, cached_tokens)) => {
                    if let Some(seen) = tally.seen.last_mut() {
                        seen.requests += 1;
                        seen.streams += usize::from(is_stream);
                        // A first turn has nothing to find.
                        if turn > 0 {
                            seen.prompt_tokens += prompt_tokens;
                            seen.cached_tokens += cached_tokens;
                        }
                    }
                }
                Err((error, true)) => tally.cut.push(error),
                Err((error, false)) => tally.failed.push(error),
            }
        }
    }
}

/// Asks once. An error says whether a stream had begun.
fn ask(
    kept: &mut Option<Client>,
    gateway: std::net::SocketAddr,
    request: &Request,
    is_stream: bool,
) -> Result<(u64, u64), (String, bool)> {
    let failed = |error: io::Error| (error.to_string(), false);
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::try_connect(gateway).map_err(failed)?,
    };
    client.try_send(request).map_err(failed)?;
    let (status, headers) = client.try_head().map_err(failed)?;
    if status != 200 {
        return Err((format!("status {status}"), false));
    }
    let mut usage = String::new();
    if is_stream {
        let mut is_done = false;
        while let Some(event) = client.try_event().map_err(|error| (error.to_string(), true))? {
            is_done |= event.contains("[DONE]");
            if event.contains("\"usage\"") {
                usage = event;
            }
        }
        if !is_done {
            return Err(("a stream ended without [DONE]".to_owned(), true));
        }
    } else {
        let body = client.try_rest().map_err(failed)?;
        usage = String::from_utf8_lossy(&body).into_owned();
    }
    if headers.get("connection") != Some("close") {
        *kept = Some(client);
    }
    Ok((number(&usage, "\"prompt_tokens\":"), number(&usage, "\"cached_tokens\":")))
}

/// The number behind `name` in `text`.
fn number(text: &str, name: &str) -> u64 {
    let rest = text.rsplit_once(name).map_or("", |(_, rest)| rest).trim_start();
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(0)
}

fn hit_rate(seen: &[Seen]) -> f64 {
    let prompt: u64 = seen.iter().map(|seen| seen.prompt_tokens).sum();
    let cached: u64 = seen.iter().map(|seen| seen.cached_tokens).sum();
    if prompt > 0 { cached as f64 / prompt as f64 } else { 0.0 }
}

fn report(tally: &Tally, times: &mut [Duration]) {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (before, after) = tally.seen.split_at(1);
    let requests: usize = tally.seen.iter().map(|seen| seen.requests).sum();
    let streams: usize = tally.seen.iter().map(|seen| seen.streams).sum();
    println!(
        "{} upgrades: from start to the end of the handover {:.0} ms in the middle, {:.0} ms at most",
        times.len(),
        ms(times.get(times.len() / 2)),
        ms(times.last())
    );
    println!("{requests} requests answered, {streams} of them streams");
    println!("{} requests failed, {} streams cut", tally.failed.len(), tally.cut.len());
    for error in tally.failed.iter().chain(&tally.cut).take(10) {
        println!("  {error}");
    }
    let worst = after.iter().map(|seen| hit_rate(std::slice::from_ref(seen))).fold(1.0, f64::min);
    println!(
        "prompt tokens found in caches: {:.1} % before the first upgrade, {:.1} % after, {:.1} % after the worst one",
        100.0 * hit_rate(before),
        100.0 * hit_rate(after),
        100.0 * worst
    );
}

/// One simulated engine of the binary's own.
fn engine(binary: &Path) -> io::Result<Engine> {
    use std::io::BufRead;
    let mut child =
        Command::new(binary).args(["engine-sim", "--model", "sim"]).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    if let Some(stdout) = child.stdout.take() {
        io::BufReader::new(stdout).read_line(&mut url)?;
    }
    Ok(Engine { child, url: url.trim().to_owned() })
}
