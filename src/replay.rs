//! `ringway replay`: the same requests under one policy after another, over simulated engines.

use std::fs::File;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

use policy::CacheAware;
use policy::Policy;
use replay::engine::EngineConfig;
use replay::gateway::Gateway;
use replay::generate;
use replay::generate::Load;
use replay::limits::CONTENDERS_MAX;
use replay::limits::REQUESTS_MAX;
use replay::limits::WORKERS_MAX;
use replay::oracle::Oracle;
use replay::report::Report;
use replay::report::Row;
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

/// Names of all policies, in the order of the table.
const ALL: [&str; 6] = ["random", "round_robin", "power_of_two", "cache_aware", "oracle", "oracle_ttft"];

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
    let contenders = contenders(flags)?;
    let trace = trace(flags)?;
    if trace.requests().is_empty() {
        return Err(Failure::usage("the trace has no requests"));
    }
    if let Some(path) = &flags.trace.write {
        write_file(path, |file| replay::trace::write(&trace, file))?;
    }
    let mut report = Report::new(source(flags, &trace), plan_in_words(&plan), &trace);
    for Contender { name, kind } in contenders {
        let mut router: Box<dyn Router> = match kind {
            ContenderKind::Policy(policy) => Box::new(Gateway::new(policy, plan.workers, flags.seed)),
            ContenderKind::Oracle(oracle) => Box::new(oracle),
        };
        let outcome = simulate::run(&trace, &plan, router.as_mut());
        report.rows.push(Row { name, outcome });
    }
    print!("{}", replay::report::table::text(&report));
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
    if !(1..=WORKERS_MAX).contains(&engine.workers) {
        return Err(Failure::usage(format!("--workers must be between 1 and {WORKERS_MAX}")));
    }
    let pace = &flags.pace;
    for (flag, value) in [("--speedup", pace.speedup), ("--rate", pace.rate)] {
        if value.is_some_and(|value| !(value.is_finite() && value > 0.0)) {
            return Err(Failure::usage(format!("{flag} must be above 0")));
        }
    }
    if pace.concurrency.is_some_and(|concurrency| !(1..=REQUESTS_MAX).contains(&concurrency)) {
        return Err(Failure::usage(format!("--concurrency must be between 1 and {REQUESTS_MAX}")));
    }
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

fn contenders(flags: &ReplayFlags) -> Result<Vec<Contender>, Failure> {
    let names = flags.policy.iter().map(String::as_str);
    let names: Vec<&str> =
        names.flat_map(|name| if name == "all" { ALL.to_vec() } else { vec![name] }).collect();
    let mut contenders = Vec::new();
    for name in names {
        let kinds = match name {
            "random" => vec![ContenderKind::Policy(Policy::Random)],
            "round_robin" => vec![ContenderKind::Policy(Policy::RoundRobin)],
            "power_of_two" => vec![ContenderKind::Policy(Policy::PowerOfTwo)],
            "oracle" => vec![ContenderKind::Oracle(Oracle::Hits)],
            "oracle_ttft" => vec![ContenderKind::Oracle(Oracle::FirstToken)],
            "cache_aware" => {
                contenders.extend(cache_aware(&flags.thresholds)?);
                continue;
            }
            unknown => {
                let known = ALL.join(", ");
                return Err(Failure::usage(format!("unknown policy `{unknown}`: use {known} or all")));
            }
        };
        contenders.extend(kinds.into_iter().map(|kind| Contender { name: name.to_owned(), kind }));
    }
    if contenders.len() > CONTENDERS_MAX {
        return Err(Failure::usage(format!("more than {CONTENDERS_MAX} policies to compare")));
    }
    Ok(contenders)
}

/// cache_aware under every combination of thresholds. The name tells them apart where there are several.
fn cache_aware(flags: &ThresholdFlags) -> Result<Vec<Contender>, Failure> {
    let (abs, rel) = (&flags.balance_abs_threshold, &flags.balance_rel_threshold);
    if !(0.0..=1.0).contains(&flags.cache_threshold) {
        return Err(Failure::usage("--cache-threshold must be between 0 and 1"));
    }
    if rel.iter().any(|ratio| ratio.is_nan() || *ratio < 1.0) {
        return Err(Failure::usage("--balance-rel-threshold must be at least 1"));
    }
    let is_one = abs.len() * rel.len() == 1;
    let combinations = abs.iter().flat_map(|abs| rel.iter().map(move |rel| (*abs, *rel)));
    Ok(combinations
        .map(|(balance_abs_threshold, balance_rel_threshold)| Contender {
            name: match is_one {
                true => "cache_aware".to_owned(),
                false => format!("cache_aware abs={balance_abs_threshold} rel={balance_rel_threshold}"),
            },
            kind: ContenderKind::Policy(Policy::CacheAware(CacheAware {
                cache_threshold: flags.cache_threshold,
                balance_abs_threshold,
                balance_rel_threshold,
            })),
        })
        .collect())
}

fn trace(flags: &ReplayFlags) -> Result<Trace, Failure> {
    let requests_max = flags.trace.requests.unwrap_or(REQUESTS_MAX);
    if !(1..=REQUESTS_MAX).contains(&requests_max) {
        return Err(Failure::usage(format!("--requests must be between 1 and {REQUESTS_MAX}")));
    }
    if let Some(shape) = &flags.trace.synthetic {
        let default = Load::default();
        return Ok(generate::generate(&Load {
            shape: shape.parse().map_err(|error| Failure::usage(format!("--synthetic: {error}")))?,
            requests: flags.trace.requests.unwrap_or(default.requests),
            requests_per_s: flags.pace.rate.unwrap_or(default.requests_per_s),
            groups: flags.trace.groups,
            prefix_tokens: flags.trace.prefix_tokens,
            turns: flags.trace.turns,
            has_keys: flags.trace.session_keys,
            seed: flags.seed,
        }));
    }
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
    };
    let at = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| at(&error))?;
    let mut trace = replay::trace::read(BufReader::new(file), &options).map_err(|error| at(&error))?;
    trace.truncate(requests_max);
    Ok(trace)
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
