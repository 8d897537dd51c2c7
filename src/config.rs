//! What the command line means: validated once, lowered to what each part of the process needs.

mod admission;
pub(crate) mod batches;
mod discovery;
mod edge;
mod pairs;
mod reliability;
mod security;
pub(crate) mod stack;
mod tenants;
mod traces;
mod yaml;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet::blocks::BLOCK_BYTES;
use fleet::breaker::BreakerRules;
use fleet::rules::AssignmentMode;
use fleet::rules::Bucket;
use fleet::rules::CacheAware;
use fleet::rules::Manual;
use fleet::rules::Policy;
use fleet::rules::PrefixAware;
use fleet::rules::PrefixHash;
use fleet::rules::Rules;
use fleet::snapshot::Aliases;
use fleet::stack::Stack;
use shard::ShardConfig;
use shard::guard::Guard;
use shard::rt::cpu;
use shard::rt::driver::IoDriver;

use crate::Failure;
use crate::cli::Launch;
use crate::cli::LaunchFlags;
use crate::config::batches::BatchConfig;
pub(crate) use crate::config::discovery::PodsConfig;
use crate::config::security::SecurityConfig;
use crate::config::stack::StackConfig;
use crate::control::FixedWorker;
use crate::control::HealthConfig;
use crate::control::PairWorker;
use crate::control::pace::PaceRules;
use crate::discovery::dns::NamesConfig;
use crate::tls::Tls;

/// Upper bounds of duration histograms in seconds, when none are given: the SGLang gateway's.
const DURATION_BUCKETS_S: [f64; 20] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0,
    120.0, 180.0, 240.0,
];
/// Longest duration a flag may ask for: a year, so that no sum of durations overflows.
const SECONDS_MAX: u64 = 365 * 24 * 3600;
/// What an admin call that waits for a worker's start may take beyond the start itself.
const ADMIN_MARGIN: Duration = Duration::from_secs(30);
/// Largest payload bound: beyond any machine's memory, and far from overflow.
const PAYLOAD_BYTES_MAX: usize = 1 << 46;
/// Most client connections of one shard.
const CONNECTIONS_PER_SHARD_MAX: u64 = 65_536;
/// Names that are looked for in every request at most.
const SESSION_KEYS_MAX: usize = 8;
/// The field of a body that names the answer which it continues.
const ANSWER_FIELD: &str = "previous_response_id";
/// Bytes that a token of text is taken for.
const BYTES_PER_TOKEN: u32 = 4;
/// Longest idle time of a key, 46 days: well within the time after which the sticky table's clock begins again.
const MAX_IDLE_S_MAX: u32 = 4_000_000;
/// Most shards: a sanity bound far above any machine's CPUs.
const SHARDS_MAX: usize = 1024;

/// Everything the process runs by.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    /// CPU of each shard, if there is one to pin to; as long as there are shards.
    pub(crate) cpus: Vec<Option<usize>>,
    pub(crate) driver: IoDriver,
    pub(crate) shard: ShardConfig,
    pub(crate) tls: Tls,
    pub(crate) fleet: FleetConfig,
    /// How requests are admitted; none when all are at once.
    pub(crate) admission: Option<fleet::admission::GateRules>,
    pub(crate) logs: LogConfig,
    /// Where files and batches are kept, if there are any.
    pub(crate) batches: Option<BatchConfig>,
    pub(crate) retry_budget_percent: u32,
    /// `host:port` of who collects spans, if requests are traced.
    pub(crate) collector: Option<String>,
    pub(crate) security: SecurityConfig,
    /// Where metrics have a listener of their own.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) duration_bounds_us: Arc<[u64]>,
    /// Where processes hand over, if they do.
    pub(crate) handover: Option<PathBuf>,
    /// What the front end of vLLM's production-stack has beside.
    pub(crate) stack: Option<StackConfig>,
}

/// What control runs by.
#[derive(Debug)]
pub(crate) struct FleetConfig {
    pub(crate) rules: Rules,
    pub(crate) bucket_adjust_interval: Duration,
    pub(crate) worker_urls: Vec<String>,
    pub(crate) pair_workers: Vec<PairWorker>,
    pub(crate) fixed_workers: Vec<FixedWorker>,
    pub(crate) aliases: Arc<Aliases>,
    pub(crate) stack: Option<Arc<Stack>>,
    /// Pods that are workers, if any are looked for.
    pub(crate) pods: Option<PodsConfig>,
    /// Names that stand for workers, if any do.
    pub(crate) names: Option<NamesConfig>,
    /// A list of workers that is watched, if there is one.
    pub(crate) worker_file: Option<PathBuf>,
    pub(crate) dp_aware: bool,
    pub(crate) health: HealthConfig,
    pub(crate) startup_timeout: Duration,
    pub(crate) startup_check_interval: Duration,
    pub(crate) prefix_bytes_max: usize,
    pub(crate) blocks_per_holder_max: usize,
    pub(crate) eviction_interval: Duration,
    pub(crate) load_monitor_interval: Option<Duration>,
    pub(crate) breaker: Option<BreakerRules>,
    pub(crate) recovery_ramp: Duration,
    pub(crate) pace: Option<PaceRules>,
    pub(crate) worker_failures_max: u32,
    pub(crate) drain_settle: Duration,
    pub(crate) shutdown_grace: Duration,
}

/// What logging runs by.
#[derive(Debug)]
pub(crate) struct LogConfig {
    pub(crate) level: tracing::Level,
    pub(crate) is_json: bool,
    pub(crate) dir: Option<PathBuf>,
    /// Whether the end of every request is logged.
    pub(crate) has_access: bool,
}

/// Validates what was typed, in whichever front end's words.
///
/// # Errors
/// The first flag that cannot be used, as one line.
pub(crate) fn of_launch(launch: &Launch) -> Result<Config, Failure> {
    let Some(flags) = &launch.stack else { return lower(&launch.flags) };
    // This front end ends with the same code whatever is wrong.
    let mut config = lower(&launch.flags).map_err(|error| Failure::runtime(error.to_string()))?;
    stack::apply(flags, &mut config)?;
    Ok(config)
}

/// Validates flags.
///
/// # Errors
/// The first flag that cannot be used, as one line.
pub(crate) fn lower(flags: &LaunchFlags) -> Result<Config, Failure> {
    if flags.workers.backend != "sglang" {
        return Err(Failure::usage(format!("--backend {} is not supported yet", flags.workers.backend)));
    }
    let rules = rules(flags)?;
    let batches = batches::lower(&flags.batches, &flags.clients)?;
    let security = security::lower(&flags.security, batches.is_some())?;
    let tls = edge::tls(&flags.tls)?;
    let driver: IoDriver = flags.listen.io_driver.parse().map_err(Failure::usage)?;
    Ok(Config {
        listen: SocketAddr::new(
            host("--host", &flags.listen.host)?,
            nonzero_port("--port", flags.listen.port)?,
        ),
        cpus: cpus(flags)?,
        driver,
        shard: shard_config(flags, &tls, Arc::clone(&security.guard))?,
        tls,
        security,
        fleet: fleet_config(flags, rules)?,
        admission: admission::rules(&flags.admission)?,
        logs: LogConfig {
            level: log_level(flags)?,
            is_json: flags.logs.log_json,
            dir: flags.logs.log_dir.clone(),
            has_access: true,
        },
        batches,
        retry_budget_percent: flags.retries.retry_budget_percent,
        collector: traces::collector(&flags.traces)?,
        metrics: Some(SocketAddr::new(
            host("--prometheus-host", &flags.metrics.prometheus_host)?,
            nonzero_port("--prometheus-port", flags.metrics.prometheus_port)?,
        )),
        duration_bounds_us: duration_bounds(&flags.metrics.prometheus_duration_buckets)?,
        handover: flags.life.handover_socket.clone(),
        stack: None,
    })
}

/// The settings of every policy, and the default one.
fn rules(flags: &LaunchFlags) -> Result<Rules, Failure> {
    let (routing, keys) = (&flags.routing, &flags.keys);
    require((0.0..=1.0).contains(&routing.cache_threshold), "--cache-threshold must be between 0 and 1")?;
    require(routing.balance_rel_threshold >= 1.0, "--balance-rel-threshold must be at least 1")?;
    let factor = routing.affinity_load_factor;
    require(factor == 0.0 || factor >= 1.0, "--affinity-load-factor must be at least 1, or 0 for no bound")?;
    require(keys.prefix_hash_load_factor >= 1.0, "--prefix-hash-load-factor must be at least 1")?;
    require(keys.prefix_token_count > 0, "--prefix-token-count must be above 0")?;
    require(
        (1..=MAX_IDLE_S_MAX).contains(&keys.max_idle_secs),
        &format!("--max-idle-secs must be between 1 and {MAX_IDLE_S_MAX}"),
    )?;
    let rules = Rules {
        default: Policy::Random,
        prefill: None,
        decode: None,
        cache_aware: CacheAware {
            cache_threshold: routing.cache_threshold,
            balance_abs_threshold: routing.balance_abs_threshold,
            balance_rel_threshold: routing.balance_rel_threshold,
            affinity_load_factor: factor,
        },
        prefix_hash: PrefixHash {
            prefix_bytes: keys.prefix_token_count.saturating_mul(BYTES_PER_TOKEN),
            load_factor: keys.prefix_hash_load_factor,
        },
        manual: Manual { assignment: assignment(&keys.assignment_mode)?, max_idle_s: keys.max_idle_secs },
        bucket: Bucket {
            balance_abs_threshold: routing.balance_abs_threshold,
            balance_rel_threshold: routing.balance_rel_threshold,
        },
        prefix_aware: PrefixAware { match_bytes_min: keys.prefix_min_match_length },
    };
    let name = &routing.policy;
    let default = rules.policy(name).ok_or_else(|| {
        Failure::usage(format!("unknown policy `{name}`: use {}", Policy::NAMES.join(", ")))
    })?;
    let [prefill, decode] = pairs::policies(&flags.pairs, &rules)?;
    let rules = Rules { prefill, decode, ..rules };
    match default {
        // Where models come and go, so do workers.
        Policy::PowerOfTwo
            if flags.workers.worker_urls.len() < 2
                && !routing.enable_igw
                && !flags.pairs.are_wanted()
                && !flags.discovery.service_discovery =>
        {
            Err(Failure::usage("--policy power_of_two needs at least 2 workers in --worker-urls"))
        }
        Policy::Session if keys.session_key.is_none() => {
            Err(Failure::usage("--policy session needs --session-key"))
        }
        default => Ok(Rules { default, ..rules }),
    }
}

fn assignment(mode: &str) -> Result<AssignmentMode, Failure> {
    match mode {
        "random" => Ok(AssignmentMode::Random),
        "min_load" => Ok(AssignmentMode::MinLoad),
        "min_group" => Ok(AssignmentMode::MinGroup),
        other => Err(Failure::usage(format!(
            "unknown --assignment-mode `{other}`: use random, min_load or min_group"
        ))),
    }
}

/// What names a session: `--session-key` before `--affinity-keys`.
fn session_keys(flags: &LaunchFlags) -> Result<Vec<String>, Failure> {
    let keys = &flags.keys;
    let names: Vec<String> = keys.session_key.iter().chain(&keys.affinity_keys).cloned().collect();
    let is_name = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\:,;".contains(&byte))
    };
    require(names.iter().all(is_name), "--session-key and --affinity-keys take names of headers or fields")?;
    require(
        names.len() <= SESSION_KEYS_MAX,
        &format!("--affinity-keys takes {SESSION_KEYS_MAX} names at most"),
    )?;
    Ok(names)
}

fn require(holds: bool, message: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::usage(message)) }
}

fn nonzero_port(flag: &str, port: u16) -> Result<u16, Failure> {
    require(port > 0, &format!("{flag} must be above 0"))?;
    Ok(port)
}

fn host(flag: &str, host: &str) -> Result<IpAddr, Failure> {
    if host == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| Failure::usage(format!("{flag} {host} is not an IP address")))
}

/// The CPU of each shard. Without a list, shards take the usable CPUs in order; more shards than CPUs share them
/// unpinned, as the user asked for it.
fn cpus(flags: &LaunchFlags) -> Result<Vec<Option<usize>>, Failure> {
    let usable = cpu::usable()
        .map_err(|error| Failure::usage(format!("cannot read the CPU affinity mask: {error}")))?;
    let listed = flags
        .listen
        .cpu_affinity
        .as_deref()
        .map(|list| cpu::parse_list(list, &usable))
        .transpose()
        .map_err(|error| Failure::usage(format!("--cpu-affinity: {error}")))?;
    let shards = flags.listen.shards.unwrap_or_else(|| listed.as_ref().unwrap_or(&usable).len());
    require((1..=SHARDS_MAX).contains(&shards), &format!("--shards must be between 1 and {SHARDS_MAX}"))?;
    if let Some(listed) = &listed {
        require(
            shards <= listed.len(),
            &format!("--shards {shards} needs as many CPUs in --cpu-affinity, which lists {}", listed.len()),
        )?;
    }
    let cpus = listed.unwrap_or(usable);
    let is_pinned = shards <= cpus.len();
    Ok((0..shards).map(|shard| is_pinned.then(|| cpus[shard])).collect())
}

fn shard_config(flags: &LaunchFlags, tls: &Tls, guard: Arc<Guard>) -> Result<ShardConfig, Failure> {
    let limits = &flags.limits;
    require(
        (1..=PAYLOAD_BYTES_MAX).contains(&limits.max_payload_size),
        &format!("--max-payload-size must be between 1 and {PAYLOAD_BYTES_MAX}"),
    )?;
    require(flags.workers.max_worker_retries > 0, "--max-worker-retries must be above 0")?;
    let session_keys = session_keys(flags)?;
    let seed = rand::random();
    Ok(ShardConfig {
        session_headers: session_keys.iter().map(|name| name.to_ascii_lowercase()).collect(),
        body_keys: std::iter::once(ANSWER_FIELD.to_owned()).chain(session_keys).collect(),
        has_session_key: flags.keys.session_key.is_some(),
        has_exact_models: flags.routing.enable_igw,
        explain_routing: flags.keys.explain_routing,
        // The descriptors that the system grants may lower it at start.
        connections_max: CONNECTIONS_PER_SHARD_MAX,
        payload_bytes_max: limits.max_payload_size,
        request_timeout: seconds("--request-timeout-secs", limits.request_timeout_secs)?,
        connect_timeout: seconds("--connect-timeout-secs", limits.connect_timeout_secs)?,
        head_timeout: seconds("--head-timeout-secs", limits.head_timeout_secs)?,
        body_timeout: seconds("--body-timeout-secs", limits.body_timeout_secs)?,
        admin_timeout: seconds("--worker-startup-timeout-secs", flags.workers.worker_startup_timeout_secs)?
            + ADMIN_MARGIN,
        keep_alive_timeout: seconds("--keep-alive-timeout-secs", limits.keep_alive_timeout_secs)?,
        request_id_headers: limits.request_id_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
        peers: edge::peers(&flags.clients, seed),
        body_rate_min: flags.clients.min_body_rate,
        worker_tls: Arc::clone(&tls.client.config),
        tls: tls.server.as_ref().map(|server| Arc::clone(&server.config)),
        retry: reliability::retry(&flags.retries)?,
        stream_resume: flags.retries.stream_resume,
        breaker: reliability::breaker(&flags.breakers)?,
        first_token_timeout: reliability::optional(
            "--first-token-timeout-secs",
            flags.breakers.first_token_timeout_secs,
        )?,
        inter_token_timeout: reliability::optional(
            "--inter-token-timeout-secs",
            flags.breakers.inter_token_timeout_secs,
        )?,
        guard,
        tenant_header: admission::tenant_header(&flags.admission)?,
        tenant_policies: tenants::policies(&flags.admission)?,
        has_stack: false,
        seed,
    })
}

/// Other names of models.
fn aliases(given: &[String]) -> Result<Aliases, Failure> {
    let mut aliases = Aliases::new();
    for pair in given {
        let (alias, model) = match pair.split_once('=') {
            Some((alias, model)) if !alias.is_empty() && !model.is_empty() => (alias, model),
            _ => return Err(Failure::usage(format!("--model-alias {pair} is not ALIAS=MODEL"))),
        };
        if aliases.insert(alias.into(), model.into()).is_some_and(|other| *other != *model) {
            return Err(Failure::usage(format!("--model-alias {alias} is given for two models")));
        }
    }
    Ok(aliases)
}

fn fleet_config(flags: &LaunchFlags, rules: Rules) -> Result<FleetConfig, Failure> {
    let (workers, routing, health) = (&flags.workers, &flags.routing, &flags.health);
    require(routing.max_tree_size > 0, "--max-tree-size must be above 0")?;
    require(health.health_failure_threshold > 0, "--health-failure-threshold must be above 0")?;
    require(health.health_success_threshold > 0, "--health-success-threshold must be above 0")?;
    require(health.health_check_endpoint.starts_with('/'), "--health-check-endpoint must begin with /")?;
    Ok(FleetConfig {
        rules,
        bucket_adjust_interval: seconds(
            "--bucket-adjust-interval-secs",
            flags.keys.bucket_adjust_interval_secs,
        )?,
        worker_urls: workers.worker_urls.clone(),
        pair_workers: pairs::workers(&flags.pairs)?,
        fixed_workers: Vec::new(),
        aliases: Arc::new(aliases(&workers.model_alias)?),
        stack: None,
        pods: discovery::pods(&flags.discovery, &flags.pairs)?,
        names: discovery::names(&flags.discovery)?,
        worker_file: flags.discovery.worker_file.clone(),
        dp_aware: workers.dp_aware,
        health: HealthConfig {
            failure_threshold: health.health_failure_threshold,
            success_threshold: health.health_success_threshold,
            timeout: seconds("--health-check-timeout-secs", health.health_check_timeout_secs)?,
            interval: seconds("--health-check-interval-secs", health.health_check_interval_secs)?,
            endpoint: health.health_check_endpoint.clone(),
            disabled: health.disable_health_check,
        },
        startup_timeout: seconds("--worker-startup-timeout-secs", workers.worker_startup_timeout_secs)?,
        startup_check_interval: seconds(
            "--worker-startup-check-interval",
            workers.worker_startup_check_interval,
        )?,
        prefix_bytes_max: bytes("--prefix-memory", &routing.prefix_memory)?,
        blocks_per_holder_max: routing.max_tree_size.div_ceil(BLOCK_BYTES),
        eviction_interval: seconds("--eviction-interval", routing.eviction_interval)?,
        load_monitor_interval: (workers.load_monitor_interval > 0)
            .then(|| seconds("--load-monitor-interval", workers.load_monitor_interval))
            .transpose()?,
        breaker: reliability::breaker(&flags.breakers)?,
        recovery_ramp: reliability::recovery_ramp(&flags.breakers),
        pace: reliability::pace(&flags.breakers)?,
        worker_failures_max: workers.max_worker_retries,
        drain_settle: Duration::from_secs(flags.life.drain_settle_secs.min(SECONDS_MAX)),
        shutdown_grace: Duration::from_secs(flags.limits.shutdown_grace_period_secs.min(SECONDS_MAX)),
    })
}

fn seconds(flag: &str, seconds: u64) -> Result<Duration, Failure> {
    require((1..=SECONDS_MAX).contains(&seconds), &format!("{flag} must be between 1 and {SECONDS_MAX}"))?;
    Ok(Duration::from_secs(seconds))
}

/// A size such as `1048576`, `512MiB`, `64MB` or `2GiB`.
fn bytes(flag: &str, text: &str) -> Result<usize, Failure> {
    const UNITS: [(&str, usize); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
        .unwrap_or((text, 1));
    digits
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| Failure::usage(format!("{flag} {text} is not a size such as 268435456 or 256MiB")))
}

fn log_level(flags: &LaunchFlags) -> Result<tracing::Level, Failure> {
    if flags.logs.verbose {
        return Ok(tracing::Level::DEBUG);
    }
    match flags.logs.log_level.as_str() {
        "debug" => Ok(tracing::Level::DEBUG),
        "info" => Ok(tracing::Level::INFO),
        "warn" | "warning" => Ok(tracing::Level::WARN),
        "error" => Ok(tracing::Level::ERROR),
        other => Err(Failure::usage(format!("unknown log level `{other}`: use debug, info, warn or error"))),
    }
}

fn duration_bounds(buckets_s: &[f64]) -> Result<Arc<[u64]>, Failure> {
    let buckets_s = if buckets_s.is_empty() { &DURATION_BUCKETS_S[..] } else { buckets_s };
    let is_ascending = buckets_s.windows(2).all(|pair| pair[0] < pair[1]);
    require(
        is_ascending && buckets_s.iter().all(|bound| bound.is_finite() && *bound > 0.0),
        "--prometheus-duration-buckets must be above 0 and ascending",
    )?;
    Ok(buckets_s.iter().map(|bound| (bound * 1e6) as u64).collect())
}

#[cfg(test)]
mod tests;
