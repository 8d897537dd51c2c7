//! `ringway replay`: the same requests under one policy after another, over simulated engines.

use std::fs::File;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

use fleet::rules::CacheAware;
use fleet::rules::Rules;
use policy::Policy;
use replay::engine::EngineConfig;
use replay::gateway::Gateway;
use replay::generate;
use replay::generate::Load;
use replay::limits;
use replay::limits::CONTENDERS_MAX;
use replay::limits::REQUESTS_MAX;
use replay::oracle::Oracle;
use replay::report::Report;
use replay::report::Row;
use replay::reproduce::reproduce;
use replay::router::Router;
use replay::simulate;
use replay::simulate::Pace;
use replay::simulate::Plan;
use replay::trace::ReadOptions;
use replay::trace::TimeUnit;
use replay::trace::Trace;

use crate::Failure;
use crate::cli::ReplayFlags;
use crate::cli::ThresholdFlags;

/// The routers that know every engine's cache, by name.
const ORACLES: [(&str, Oracle); 2] = [("oracle", Oracle::Hits), ("oracle_ttft", Oracle::FirstToken)];

/// A policy of the comparison, by the name it has in the table.
#[derive(Clone, Debug)]
struct Contender {
    name: String,
    kind: ContenderKind,
}

#[derive(Clone, Copy, Debug)]
enum ContenderKind {
    Policy(Policy),
    Oracle(Oracle),
}

/// Replays the trace under every policy asked for and prints the table.
pub(crate) fn run(flags: &ReplayFlags) -> Result<(), Failure> {
    let plan = plan(flags)?;
    // What is asked for is checked before a long trace is read.
    contenders(flags, true)?;
    let trace = trace(flags)?;
    if trace.requests().is_empty() {
        return Err(Failure::usage("the trace has no requests"));
    }
    let contenders = contenders(flags, trace.requests().iter().any(|request| request.key.is_some()))?;
    if let Some(path) = &flags.trace.write {
        write_file(path, |file| replay::trace::write(&trace, file))?;
    }
    let mut report = Report::new(source(flags, &trace), plan_in_words(&plan), &trace);
    for Contender { name, kind } in contenders {
        let mut router: Box<dyn Router> = match kind {
            ContenderKind::Policy(policy) => {
                Box::new(Gateway::new(policy, plan.workers, flags.engine.shards, flags.seed))
            }
            ContenderKind::Oracle(oracle) => Box::new(oracle),
        };
        let outcome = simulate::run(&trace, &plan, router.as_mut());
        report.rows.push(Row { name, outcome });
    }
    print!("{}", replay::report::table::text(&report));
    if !trace.captured().is_empty() {
        println!("\n{}", reproduce(trace.captured()));
    }
    if let Some(path) = &flags.json {
        let json = replay::report::json::value(&report);
        write_file(path, |file| writeln!(file, "{json}"))?;
    }
    if let Some(path) = &flags.plot {
        let svg = replay::report::svg::text(&report);
        write_file(path, |file| file.write_all(svg.as_bytes()))?;
    }
    Ok(())
}

fn plan(flags: &ReplayFlags) -> Result<Plan, Failure> {
    let engine = &flags.engine;
    within("--workers", engine.workers, 1, limits::WORKERS_MAX)?;
    within("--shards", engine.shards, 1, limits::SHARDS_MAX)?;
    within("--cache-tokens", engine.cache_tokens, 1, limits::CACHE_TOKENS_MAX)?;
    let (speed_min, speed_max) = (limits::PREFILL_TOKENS_PER_S_MIN, limits::PREFILL_TOKENS_PER_S_MAX);
    within("--prefill-tokens-per-s", engine.prefill_tokens_per_s, speed_min, speed_max)?;
    within("--chunk-tokens", engine.chunk_tokens, 1, limits::CHUNK_TOKENS_MAX)?;
    within("--step-us", engine.step_us, 0, limits::STEP_US_MAX)?;
    within("--step-per-request-us", engine.step_per_request_us, 0, limits::STEP_PER_REQUEST_US_MAX)?;
    within("--running-max", engine.running_max, 1, limits::RUNNING_MAX)?;
    let pace = &flags.pace;
    for (flag, value) in [("--speedup", pace.speedup), ("--rate", pace.rate)] {
        if value.is_some_and(|value| !(value.is_finite() && value > 0.0)) {
            return Err(Failure::usage(format!("{flag} must be above 0")));
        }
    }
    within("--concurrency", pace.concurrency.unwrap_or(1), 1, REQUESTS_MAX)?;
    Ok(Plan {
        pace: match (pace.concurrency, pace.rate) {
            (Some(concurrency), _) => Pace::Closed { concurrency },
            // A made trace is made at its rate, so that pauses between turns keep their length.
            (None, Some(requests_per_s)) if flags.trace.synthetic.is_none() => Pace::Rate { requests_per_s },
            (None, _) => Pace::Recorded { speedup: pace.speedup.unwrap_or(1.0) },
        },
        workers: engine.workers,
        engine: EngineConfig {
            cache_tokens_max: engine.cache_tokens,
            prefill_tokens_per_s: engine.prefill_tokens_per_s,
            chunk_tokens: engine.chunk_tokens,
            step_us: engine.step_us,
            step_per_request_us: engine.step_per_request_us,
            running_max: engine.running_max,
        },
    })
}

/// Refuses what is not between two bounds, or is no number.
fn within<T: PartialOrd + std::fmt::Display>(flag: &str, value: T, least: T, most: T) -> Result<(), Failure> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(Failure::usage(format!("{flag} must be between {least} and {most}")))
}

/// The policies asked for. `has_keys` says whether policies by key have anything to go by.
fn contenders(flags: &ReplayFlags, has_keys: bool) -> Result<Vec<Contender>, Failure> {
    let mut names: Vec<&str> = Vec::new();
    for name in &flags.policy {
        if name == "all" {
            names.extend(Policy::NAMES.iter().filter(|name| has_keys || !is_by_key(name)));
            names.extend(ORACLES.map(|(name, _)| name));
        } else {
            names.push(name);
        }
    }
    let cache_aware = cache_aware(&flags.thresholds)?;
    let mut contenders = Vec::new();
    for name in names {
        if let Some((name, oracle)) = ORACLES.iter().find(|(oracle, _)| *oracle == name) {
            let kind = ContenderKind::Oracle(*oracle);
            contenders.push(Contender { name: (*name).to_owned(), kind });
            continue;
        }
        let policy = Rules::default().policy(name).ok_or_else(|| {
            let known = Policy::NAMES.join(", ");
            Failure::usage(format!("unknown policy `{name}`: use {known}, oracle, oracle_ttft or all"))
        })?;
        let policies = match policy {
            Policy::CacheAware(_) => cache_aware.iter().copied().map(Policy::CacheAware).collect(),
            other => vec![other],
        };
        contenders.extend(policies.into_iter().map(|policy| Contender {
            name: contender_name(&policy, &flags.thresholds),
            kind: ContenderKind::Policy(policy),
        }));
    }
    if contenders.len() > CONTENDERS_MAX {
        return Err(Failure::usage(format!("more than {CONTENDERS_MAX} policies to compare")));
    }
    Ok(contenders)
}

fn is_by_key(name: &str) -> bool {
    matches!(name, "consistent_hashing" | "manual" | "session")
}

/// The settings of cache_aware: every combination of thresholds.
fn cache_aware(flags: &ThresholdFlags) -> Result<Vec<CacheAware>, Failure> {
    let require = |holds: bool, message: &str| if holds { Ok(()) } else { Err(Failure::usage(message)) };
    require((0.0..=1.0).contains(&flags.cache_threshold), "--cache-threshold must be between 0 and 1")?;
    let all_at_least_1 = |ratios: &[f32]| ratios.iter().all(|ratio| *ratio >= 1.0);
    require(all_at_least_1(&flags.balance_rel_threshold), "--balance-rel-threshold must be at least 1")?;
    let factors: Vec<f32> =
        flags.affinity_load_factor.iter().copied().filter(|factor| *factor != 0.0).collect();
    require(all_at_least_1(&factors), "--affinity-load-factor must be at least 1, or 0 for no bound")?;
    let mut settings = Vec::new();
    for &balance_abs_threshold in &flags.balance_abs_threshold {
        for &balance_rel_threshold in &flags.balance_rel_threshold {
            settings.extend(flags.affinity_load_factor.iter().map(|&affinity_load_factor| CacheAware {
                cache_threshold: flags.cache_threshold,
                balance_abs_threshold,
                balance_rel_threshold,
                affinity_load_factor,
            }));
        }
    }
    Ok(settings)
}

/// A policy's name, with the thresholds that tell it apart from others of the table.
fn contender_name(policy: &Policy, flags: &ThresholdFlags) -> String {
    let mut name = policy.name().to_owned();
    if let Policy::CacheAware(config) = policy {
        let parts = [
            ("abs", f64::from(config.balance_abs_threshold), flags.balance_abs_threshold.len()),
            ("rel", f64::from(config.balance_rel_threshold), flags.balance_rel_threshold.len()),
            ("factor", f64::from(config.affinity_load_factor), flags.affinity_load_factor.len()),
        ];
        for (part, value, count) in parts {
            if count > 1 {
                name += &format!(" {part}={value:.2}");
            }
        }
    }
    name
}

fn trace(flags: &ReplayFlags) -> Result<Trace, Failure> {
    let requests_max = flags.trace.requests.unwrap_or(REQUESTS_MAX);
    within("--requests", requests_max, 1, REQUESTS_MAX)?;
    if let Some(shape) = &flags.trace.synthetic {
        return Ok(generate::generate(&load(flags, shape)?));
    }
    within("--block-tokens", flags.trace.block_tokens, 1, limits::PROMPT_TOKENS_MAX)?;
    within("--output-tokens", flags.trace.output_tokens, 1, limits::OUTPUT_TOKENS_MAX)?;
    let Some(path) = &flags.trace.file else {
        return Err(Failure::usage("name a trace file, or --synthetic"));
    };
    let options = ReadOptions {
        block_tokens: flags.trace.block_tokens,
        time_unit: match flags.trace.time_unit.as_str() {
            "ms" => TimeUnit::Milliseconds,
            "s" => TimeUnit::Seconds,
            unit => return Err(Failure::usage(format!("unknown --time-unit `{unit}`: use ms or s"))),
        },
        output_tokens: flags.trace.output_tokens,
        model: flags.trace.model.clone(),
    };
    let at = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| at(&error))?;
    let mut trace = replay::trace::read(BufReader::new(file), &options).map_err(|error| at(&error))?;
    trace.truncate(requests_max);
    Ok(trace)
}

/// The trace to make.
fn load(flags: &ReplayFlags, shape: &str) -> Result<Load, Failure> {
    within("--groups", flags.trace.groups, 1, limits::GROUPS_MAX)?;
    within("--prefix-tokens", flags.trace.prefix_tokens, 0, limits::PREFIX_TOKENS_MAX)?;
    within("--turns", flags.trace.turns, 1, limits::TURNS_MAX)?;
    let default = Load::default();
    let load = Load {
        shape: shape.parse().map_err(|error| Failure::usage(format!("--synthetic: {error}")))?,
        requests: flags.trace.requests.unwrap_or(default.requests),
        requests_per_s: flags.pace.rate.unwrap_or(default.requests_per_s),
        groups: flags.trace.groups,
        prefix_tokens: flags.trace.prefix_tokens,
        turns: flags.trace.turns,
        has_keys: flags.trace.session_keys,
        seed: flags.seed,
    };
    let (blocks, most) = (load.blocks(), limits::BLOCKS_MAX);
    if blocks > most as u64 {
        let flags = "--requests with --turns or --prefix-tokens";
        return Err(Failure::usage(format!("{flags} make about {blocks} prompt blocks, more than {most}")));
    }
    Ok(load)
}

fn source(flags: &ReplayFlags, trace: &Trace) -> String {
    let name = match (&flags.trace.file, &flags.trace.synthetic) {
        (Some(path), _) => path.display().to_string(),
        (None, shape) => format!("{} (made, seed {})", shape.as_deref().unwrap_or("trace"), flags.seed),
    };
    let rate = trace.requests_per_s().map_or("at once".to_owned(), |rate| format!("{rate:.2} a second"));
    format!("{name}: {} requests, recorded at {rate}", trace.requests().len())
}

fn plan_in_words(plan: &Plan) -> String {
    let pace = match plan.pace {
        Pace::Recorded { speedup: 1.0 } => "as recorded".to_owned(),
        Pace::Recorded { speedup } => format!("{speedup} times as fast"),
        Pace::Rate { requests_per_s } => format!("{requests_per_s} requests a second"),
        Pace::Closed { concurrency } => format!("{concurrency} requests in flight"),
    };
    let EngineConfig { cache_tokens_max, prefill_tokens_per_s, .. } = plan.engine;
    let workers = plan.workers;
    format!(
        "{workers} engines, {cache_tokens_max} cache tokens, {prefill_tokens_per_s} prompt tokens/s each; {pace}"
    )
}

fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    File::create(path)
        .map(BufWriter::new)
        .and_then(|mut file| write(&mut file).and_then(|()| file.flush()))
        .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
