//! Something to try at once: simulated engines in this process behind the gateway, and one of them alone.

use std::sync::Arc;
use std::time::Duration;

use engine_sim::EngineConfig;
use engine_sim::EngineHandle;

use crate::Failure;
use crate::cli;
use crate::cli::Command;
use crate::cli::DemoFlags;
use crate::cli::EngineFlags;
use crate::config;
use crate::metrics::Sources;
use crate::run;

/// Pause between two lines about what goes on.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Most simulated engines in one process.
const ENGINES_MAX: usize = 64;

/// Starts engines and the gateway, says how to talk to it, and reports until it is stopped.
pub(crate) fn run(flags: &DemoFlags) -> Result<(), Failure> {
    if !(1..=ENGINES_MAX).contains(&flags.engines) {
        return Err(Failure::usage(format!("--engines must be between 1 and {ENGINES_MAX}")));
    }
    let engines = (0..flags.engines)
        .map(|_| engine_sim::spawn(EngineConfig { model_id: "demo".to_owned(), ..EngineConfig::default() }))
        .collect::<Result<Vec<EngineHandle>, _>>()
        .map_err(|error| Failure::runtime(format!("cannot start a simulated engine: {error}")))?;
    let config = config::lower(&launch_flags(flags, &engines)?)?;
    let running = run::start(config, None)?;
    welcome(flags);
    let sources = running.sources().clone();
    let done = Arc::new(());
    let watching = Arc::downgrade(&done);
    let reporter = std::thread::Builder::new()
        .name("demo".to_owned())
        .spawn(move || {
            let mut last = 0;
            while watching.strong_count() > 0 {
                std::thread::park_timeout(LINE_EVERY);
                last = report(&sources, &engines, last);
            }
            engines.into_iter().for_each(EngineHandle::stop);
        })
        .map_err(|error| Failure::runtime(format!("cannot start a thread: {error}")))?;
    let result = running.wait();
    drop(done);
    reporter.thread().unpark();
    reporter.join().map_err(|_| Failure::runtime("the demo's reporter panicked"))?;
    result
}

/// The command line that a user would type to get the same gateway.
fn launch_flags(flags: &DemoFlags, engines: &[EngineHandle]) -> Result<cli::LaunchFlags, Failure> {
    let mut argv: Vec<String> =
        ["ringway", "--host", "127.0.0.1", "--log-level", "warn", "--policy", &flags.policy]
            .map(str::to_owned)
            .to_vec();
    argv.extend(["--port".to_owned(), flags.port.to_string()]);
    argv.extend(["--prometheus-host".to_owned(), "127.0.0.1".to_owned()]);
    argv.extend(["--prometheus-port".to_owned(), flags.prometheus_port.to_string()]);
    argv.push("--worker-urls".to_owned());
    argv.extend(engines.iter().map(EngineHandle::url));
    match cli::parse(argv) {
        Ok(Command::Launch(launch)) => Ok(launch.flags),
        Ok(Command::Demo(_) | Command::EngineSim(_) | Command::Replay(_)) | Err(_) => {
            Err(Failure::runtime("the demo's own command line is refused"))
        }
    }
}

fn welcome(flags: &DemoFlags) {
    let DemoFlags { port, engines, policy, prometheus_port } = flags;
    println!(
        "ringway listens on http://127.0.0.1:{port} in front of {engines} simulated engines, policy {policy}.\n\
         Metrics: http://127.0.0.1:{prometheus_port}/metrics   Workers: http://127.0.0.1:{port}/workers\n\n\
         Try a chat:\n\n  \
         curl http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\":\"demo\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello there\"}}]}}'\n\n\
         and a stream:\n\n  \
         curl -N http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\":\"demo\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello there\"}}]}}'\n\n\
         Ctrl-C ends it."
    );
}

/// Prints one line about the engines and returns how many requests there have been; `last` is what it returned before.
fn report(sources: &Sources, engines: &[EngineHandle], last: u64) -> u64 {
    let stats: Vec<_> = engines.iter().map(EngineHandle::stats).collect();
    let requests: u64 = stats.iter().map(|engine| engine.requests).sum();
    let prompt: u64 = stats.iter().map(|engine| engine.prompt_tokens).sum();
    let cached: u64 = stats.iter().map(|engine| engine.cached_tokens).sum();
    let hit_rate = if prompt > 0 { 100.0 * cached as f64 / prompt as f64 } else { 0.0 };
    let fleet = sources.fleet();
    let workers = fleet
        .workers
        .iter()
        .zip(&stats)
        .map(|(worker, engine)| {
            let name = worker.url.trim_start_matches("http://127.0.0.1");
            format!("{name} {} now, {} in all", worker.cells.load(), engine.requests)
        })
        .collect::<Vec<_>>()
        .join(" | ");
    println!("requests {requests} (+{})  cached tokens {hit_rate:.1}%  {workers}", requests - last);
    requests
}

/// Runs one simulated engine until the process is stopped.
pub(crate) fn engine_sim(flags: &EngineFlags) -> Result<(), Failure> {
    let default = EngineConfig::default();
    let config = EngineConfig {
        host: flags.host,
        port: flags.port,
        model_id: flags.model.clone(),
        cache_blocks_max: flags.cache_blocks.unwrap_or(default.cache_blocks_max),
        prefill_tokens_per_s: flags.prefill_tokens_per_s.unwrap_or(default.prefill_tokens_per_s),
        decode_tokens_per_s: flags.decode_tokens_per_s.unwrap_or(default.decode_tokens_per_s),
        concurrency_max: flags.concurrency.unwrap_or(default.concurrency_max),
        ..default
    };
    let at = format!("{}:{}", config.host, config.port);
    let engine = engine_sim::spawn(config)
        .map_err(|error| Failure::usage(format!("cannot listen on {at}: {error}")))?;
    println!("{}", engine.url());
    // The engine serves on its own thread; this one has nothing left to do.
    loop {
        std::thread::park();
    }
}
