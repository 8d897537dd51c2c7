//! What the command line of vLLM's production-stack router means: other flags, and what no other front end has.

mod asks;
mod engines;

use std::env::VarError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::secret::Secret;
use fleet::stack::Pairs;
use fleet::stack::Stack;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use shard::guard::Guard;
use shard::guard::GuardConfig;

use super::Config;
use crate::Failure;
use crate::batches;
use crate::cli::stack::Discovery;
use crate::cli::stack::Logic;
use crate::cli::stack::StackFlags;
use crate::control::is_key;

/// Longest time for a request: this router sets none, and whoever waits for days waits for nobody.
const REQUEST_TIMEOUT_S: u64 = 7 * 24 * 3600;
/// Most engines that one request is sent to, one after another.
const REROUTES_MAX: u32 = 99;
/// Longest window of request statistics: a day.
const WINDOW_S_MAX: u64 = 24 * 3600;

/// What the process does in this front end, beside serving.
#[derive(Clone, Debug)]
pub(crate) struct StackConfig {
    /// How far back requests are looked at.
    pub(crate) window: Duration,
    /// How often a block of statistics is logged, if it is.
    pub(crate) log_stats: Option<Duration>,
    /// The file whose changes hold at once.
    pub(crate) dynamic: Option<PathBuf>,
}

/// The same command line in the flags of the other front end.
///
/// # Errors
/// What is missing, or cannot be used, in one line.
pub(crate) fn arguments(flags: &StackFlags) -> Result<Vec<String>, String> {
    discovery(flags)?;
    let Some(logic) = flags.routing_logic else { return Err("--routing-logic is required".to_owned()) };
    let policy = match logic {
        Logic::Roundrobin | Logic::DisaggregatedPrefill | Logic::DisaggregatedPrefillOrchestrated => {
            "round_robin"
        }
        Logic::Session if flags.session_key.is_none() => {
            return Err("--routing-logic session needs --session-key".to_owned());
        }
        Logic::Session => "session",
        Logic::Prefixaware => "prefixaware",
        Logic::Kvaware => return Err("--routing-logic kvaware is not supported".to_owned()),
    };
    let positive = |name: &str, seconds: u64| {
        if seconds > 0 { Ok(()) } else { Err(format!("{name} must be above 0")) }
    };
    positive("--engine-stats-interval", flags.engine_stats_interval)?;
    positive("--log-stats-interval", flags.log_stats_interval)?;
    positive("--request-stats-window", flags.request_stats_window)?;
    if flags.request_stats_window > WINDOW_S_MAX {
        return Err(format!("--request-stats-window must be at most {WINDOW_S_MAX}"));
    }
    let level = match flags.log_level.as_str() {
        "critical" => "error",
        "trace" => "debug",
        level => level,
    };
    let attempts = flags.max_instance_failover_reroute_attempts.min(REROUTES_MAX) + 1;
    let mut arguments: Vec<String> = [
        "ringway",
        "--enable-igw",
        "--disable-circuit-breaker",
        "--disable-audit-logging",
        "--disable-health-check",
        // No session but that of the session key.
        "--affinity-keys",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut flag =
        |name: &str, value: &dyn ToString| arguments.push(format!("--{name}={}", value.to_string()));
    flag("host", &flags.host);
    flag("port", &flags.port);
    flag("io-driver", &flags.io_driver);
    flag("policy", &policy);
    flag("prefix-min-match-length", &flags.prefix_min_match_length);
    flag("prefix-memory", &flags.prefix_memory);
    flag("load-monitor-interval", &flags.engine_stats_interval);
    flag("request-id-headers", &"x-request-id");
    flag("request-timeout-secs", &REQUEST_TIMEOUT_S);
    flag("inter-token-timeout-secs", &0);
    flag("slow-worker-factor", &0);
    flag("recovery-ramp-secs", &0);
    flag("retry-max-retries", &attempts);
    flag("log-level", &level);
    flag("shutdown-grace-period-secs", &flags.shutdown_grace_period_secs);
    flag("file-storage-class", &flags.batches.file_storage_class);
    flag("file-storage-path", &flags.batches.file_storage_path.display());
    flag("batch-processor", &flags.batches.batch_processor);
    let mut given = |name: &str, value: Option<String>| {
        arguments.extend(value.map(|value| format!("--{name}={value}")));
    };
    given("session-key", flags.session_key.clone());
    given("shards", flags.shards.map(|shards| shards.to_string()));
    given("cpu-affinity", flags.cpu_affinity.clone());
    given("otlp-traces-endpoint", flags.otel_endpoint.as_deref().map(collector));
    arguments.extend(flags.otel_endpoint.as_ref().map(|_| "--enable-trace".to_owned()));
    if flags.log_format == "json" {
        arguments.push("--log-json".to_owned());
    }
    if flags.batches.enable_batch_api {
        arguments.push("--enable-batch-api".to_owned());
    }
    Ok(arguments)
}

/// Where engines are found. Sources other than the flags belong here.
fn discovery(flags: &StackFlags) -> Result<(), String> {
    match flags.service_discovery {
        Some(Discovery::Static | Discovery::K8s) => Ok(()),
        Some(other) => Err(format!("--service-discovery {} is not supported yet", other.name())),
        None => Err("--service-discovery is required".to_owned()),
    }
}

/// Has `config`, which the arguments have been lowered to, say what they cannot.
///
/// # Errors
/// The first flag that cannot be used, as one line.
pub(crate) fn apply(flags: &StackFlags, config: &mut Config) -> Result<(), Failure> {
    let engines = engines::read(flags).map_err(Failure::runtime)?;
    config.security.api_key = key()?;
    config.fleet.pods = engines.pods;
    config.fleet.fixed_workers = engines.workers;
    // A connection that fails says nothing about the next, and an engine stays where it was named.
    config.fleet.worker_failures_max = 0;
    config.fleet.health.interval = Duration::from_secs(flags.static_backend_health_check_interval.max(1));
    let timeout_s = match flags.service_discovery {
        Some(Discovery::K8s) => flags.backend_health_check_timeout_seconds,
        _ => flags.static_backend_health_check_timeout_seconds,
    };
    config.fleet.health.timeout = Duration::from_secs(timeout_s.max(1));
    config.fleet.health.disabled = !flags.static_backend_health_checks;
    config.fleet.health.failure_threshold = 1;
    config.fleet.health.success_threshold = 1;
    config.shard.retry.is_plain = true;
    config.shard.guard = Arc::new(Guard::new(GuardConfig {
        is_cors_silent: true,
        batch_key: config.batches.is_some().then(batches::key),
        ..GuardConfig::default()
    }));
    if let Some(batches) = &mut config.batches {
        batches.has_short_errors = true;
    }
    let aliases = engines.aliases.into_iter().map(|(alias, model)| (alias.into(), model.into()));
    config.fleet.aliases = Arc::new(aliases.collect());
    config.shard.has_stack = true;
    config.fleet.stack = Some(Arc::new(Stack {
        session_key: flags.session_key.as_deref().map(|key| key.to_ascii_lowercase().into()),
        pairs: pairs(flags.routing_logic),
        health: health(flags, None),
    }));
    config.metrics = None;
    // Every request has its line at its choice; what became of it is told beside that to whoever looks for faults.
    config.logs.has_access = config.logs.level >= tracing::Level::DEBUG;
    config.stack = Some(StackConfig {
        window: Duration::from_secs(flags.request_stats_window),
        log_stats: flags.log_stats.then(|| Duration::from_secs(flags.log_stats_interval)),
        dynamic: flags.dynamic_config().map(ToOwned::to_owned),
    });
    Ok(())
}

/// What engines are shown by whoever asks how they are; clients show their own.
fn key() -> Result<Option<Secret>, Failure> {
    const VARIABLE: &str = "VLLM_API_KEY";
    match std::env::var(VARIABLE) {
        Ok(key) if key.is_empty() => Ok(None),
        Ok(key) if is_key(&key) => Ok(Some(key.into())),
        Err(VarError::NotPresent) => Ok(None),
        Ok(_) | Err(VarError::NotUnicode(_)) => {
            Err(Failure::runtime(format!("{VARIABLE} must be printable ASCII without spaces")))
        }
    }
}

/// How prefill engines hand over, if there are any.
fn pairs(logic: Option<Logic>) -> Option<Pairs> {
    match logic? {
        Logic::DisaggregatedPrefill => Some(Pairs::Shared),
        Logic::DisaggregatedPrefillOrchestrated => Some(Pairs::Orchestrated),
        Logic::Roundrobin | Logic::Session | Logic::Kvaware | Logic::Prefixaware => None,
    }
}

/// The answer of `/health`: with a file of settings also what holds now, and why a later state of the file does not.
pub(crate) fn health(flags: &StackFlags, error: Option<&str>) -> Bytes {
    let mut health = Map::new();
    health.insert("status".to_owned(), "healthy".into());
    if flags.dynamic_config().is_some() {
        health.insert("dynamic_config".to_owned(), settings(flags));
        if let Some(error) = error {
            health.insert("dynamic_config_error".to_owned(), error.into());
        }
    }
    Value::Object(health).to_string().into()
}

/// Every setting that may change, as it is now.
fn settings(flags: &StackFlags) -> Value {
    json!({
        "callbacks": null,
        "decode_model_labels": flags.decode_model_labels,
        "k8s_label_selector": flags.k8s_label_selector,
        "k8s_namespace": flags.k8s_namespace,
        "k8s_port": flags.k8s_port,
        "prefill_model_labels": flags.prefill_model_labels,
        "routing_logic": flags.routing_logic.map(Logic::name),
        "service_discovery": flags.service_discovery.map(Discovery::name),
        "session_key": flags.session_key,
        "static_aliases": flags.static_aliases,
        "static_backend_health_check_interval": flags.static_backend_health_check_interval,
        "static_backend_health_check_timeout_seconds": flags.static_backend_health_check_timeout_seconds,
        "static_backend_health_checks": flags.static_backend_health_checks,
        "static_backends": flags.static_backends,
        "static_model_labels": flags.static_model_labels,
        "static_model_types": flags.static_model_types,
        "static_models": flags.static_models,
    })
}

/// The collector's address without its scheme and path.
fn collector(endpoint: &str) -> String {
    let address = endpoint.split_once("://").map_or(endpoint, |(_, address)| address);
    address.trim_end_matches('/').to_owned()
}
