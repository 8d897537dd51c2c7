//! Bodies of the workers API: what is read from them, and which field a refusal names.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Role;
use serde_json::Map;
use serde_json::Value;

use crate::control::config::ControlConfig;
use crate::control::limits::CHECK_INTERVAL_MIN;
use crate::control::limits::DECLARED_BYTES_MAX;
use crate::control::limits::LABELS_BYTES_MAX;
use crate::control::limits::LABELS_MAX;
use crate::control::state::start::is_key;
use crate::control::url::UrlError;
use crate::control::url::WorkerUrl;
use crate::control::worker::Checks;
use crate::control::worker::WorkerSpec;
use engine::metadata::NAME_BYTES_MAX;

/// Fields that have no effect on routing and are shown as they were given.
const DECLARED: [&str; 4] = ["tokenizer_path", "reasoning_parser", "tool_parser", "chat_template"];
/// Engines that a worker may be said to run.
const RUNTIMES: [&str; 3] = ["sglang", "vllm", "external"];
/// Longest check timeout or interval, in seconds: a day.
const SECONDS_MAX: u64 = 86_400;

/// The field that is shown as it was given and has this name.
pub(crate) fn declared_name(name: &str) -> Option<&'static str> {
    DECLARED.into_iter().find(|declared| *declared == name)
}

/// Fields that a new worker may have, beside those that are shown as they were given.
const FIELDS: [&str; 16] = [
    "api_key",
    "bootstrap_port",
    "cost",
    "disable_health_check",
    "dp_aware",
    "health_check_interval_secs",
    "health_check_timeout_secs",
    "health_failure_threshold",
    "health_success_threshold",
    "labels",
    "max_connection_attempts",
    "model_id",
    "priority",
    "runtime",
    "url",
    "worker_type",
];

/// Whether a new worker may have a field of this name.
pub(crate) fn is_field(name: &str) -> bool {
    FIELDS.contains(&name) || DECLARED.contains(&name)
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BodyError {
    pub(crate) param: Option<&'static str>,
    pub(crate) message: String,
}

type Result<T> = std::result::Result<T, BodyError>;

/// Reads the body of `POST /workers`.
pub(crate) fn new_worker(body: &[u8], config: &ControlConfig) -> Result<WorkerSpec> {
    let fields = Fields::parse(body)?;
    let url = fields.text("url")?.ok_or_else(|| about("url", "is required".to_owned()))?;
    let unusable = |error: UrlError| about("url", format!("cannot be used: {error}"));
    let url = WorkerUrl::parse(url).map_err(unusable)?;
    config.destinations.check(&url).map_err(unusable)?;
    let role = match fields.text("worker_type")? {
        None | Some("regular") => Role::Regular,
        Some("prefill") => Role::Prefill,
        Some("decode") => Role::Decode,
        Some(kind) => {
            return Err(about("worker_type", format!("{kind:?} is not one of regular, prefill, decode")));
        }
    };
    let bootstrap_port = fields.integer("bootstrap_port", 1..=u64::from(u16::MAX))?;
    if bootstrap_port.is_some() && role != Role::Prefill {
        return Err(about("bootstrap_port", "is for workers of the type prefill".to_owned()));
    }
    // Which engine a worker runs is found out by asking it.
    if let Some(runtime) = fields.text("runtime")?
        && !RUNTIMES.contains(&runtime)
    {
        let runtimes = RUNTIMES.join(", ");
        return Err(about("runtime", format!("{runtime:?} is not one of {runtimes}")));
    }
    // The gateway decides for all of them.
    if fields.boolean("dp_aware")? == Some(true) && !config.dp_aware {
        return Err(about("dp_aware", "needs --dp-aware".to_owned()));
    }
    fields.integer("max_connection_attempts", 1..=u64::from(u32::MAX))?;
    let mut spec = WorkerSpec::new(url, Checks::from(&config.health));
    spec.role = role;
    spec.bootstrap_port = bootstrap_port.map(|port| port as u16);
    spec.model_id = fields.text("model_id")?.map(str::to_owned);
    if spec.model_id.as_ref().is_some_and(|model| model.is_empty() || model.len() > NAME_BYTES_MAX) {
        return Err(about("model_id", format!("must have 1 to {NAME_BYTES_MAX} bytes")));
    }
    let mut declared_bytes = 0;
    for name in DECLARED {
        let Some(value) = fields.text(name)? else { continue };
        declared_bytes += value.len();
        if declared_bytes > DECLARED_BYTES_MAX {
            let names = DECLARED.join(", ");
            let what = format!("is too long: {names} may have {DECLARED_BYTES_MAX} bytes together");
            return Err(about(name, what));
        }
        spec.declared.insert(name, value.to_owned());
    }
    fields.change(&mut spec)?;
    Ok(spec)
}

/// Reads the body of `PUT /workers/{id}`: `spec` with what the body changes.
pub(crate) fn changed_worker(body: &[u8], mut spec: WorkerSpec) -> Result<WorkerSpec> {
    Fields::parse(body)?.change(&mut spec)?;
    Ok(spec)
}

/// The fields of a JSON object. Null is as good as absent, and fields nobody asks for are ignored.
struct Fields(Map<String, Value>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(BodyError { param: None, message: "the body must be a JSON object".to_owned() }),
            Err(error) => Err(BodyError { param: None, message: format!("the body is not JSON: {error}") }),
        }
    }

    /// Takes over the fields that may change later too.
    fn change(&self, spec: &mut WorkerSpec) -> Result<()> {
        if let Some(key) = self.text("api_key")? {
            if !is_key(key) {
                return Err(about("api_key", "must be printable ASCII without spaces".to_owned()));
            }
            spec.api_key = Some(key.into());
        }
        if let Some(priority) = self.integer("priority", 0..=u64::from(u32::MAX))? {
            spec.priority = priority as u32;
        }
        if let Some(cost) = self.get("cost") {
            let cost = cost.as_f64().filter(|cost| cost.is_finite() && *cost >= 0.0);
            spec.cost =
                cost.ok_or_else(|| about("cost", "must be a number that is not negative".to_owned()))?;
        }
        if let Some(labels) = self.get("labels") {
            spec.labels = read_labels(labels)?;
            if let Some(name) = spec.policy().filter(|name| Rules::default().policy(name).is_none()) {
                let names = Policy::NAMES.join(", ");
                return Err(about("labels", format!("name the unknown policy {name:?}: use {names}")));
            }
            spec.handoff().map_err(|what| about("labels", what))?;
        }
        self.change_checks(&mut spec.checks)
    }

    fn change_checks(&self, checks: &mut Checks) -> Result<()> {
        if let Some(timeout) = self.integer("health_check_timeout_secs", 1..=SECONDS_MAX)? {
            checks.timeout = Duration::from_secs(timeout);
        }
        if let Some(interval) = self.integer("health_check_interval_secs", 1..=SECONDS_MAX)? {
            checks.interval = Duration::from_secs(interval).max(CHECK_INTERVAL_MIN);
        }
        if let Some(threshold) = self.integer("health_success_threshold", 1..=1000)? {
            checks.success_threshold = threshold as u32;
        }
        if let Some(threshold) = self.integer("health_failure_threshold", 1..=1000)? {
            checks.failure_threshold = threshold as u32;
        }
        if let Some(disabled) = self.boolean("disable_health_check")? {
            checks.disabled = disabled;
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>> {
        let value = self.get(name);
        value
            .map(|value| value.as_str().ok_or_else(|| about(name, "must be a string".to_owned())))
            .transpose()
    }

    fn boolean(&self, name: &'static str) -> Result<Option<bool>> {
        let value = self.get(name);
        value
            .map(|value| value.as_bool().ok_or_else(|| about(name, "must be true or false".to_owned())))
            .transpose()
    }

    fn integer(&self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let integer = value.as_u64().filter(|integer| range.contains(integer));
        let message = || format!("must be an integer from {} to {}", range.start(), range.end());
        integer.map(Some).ok_or_else(|| about(name, message()))
    }
}

fn read_labels(labels: &Value) -> Result<BTreeMap<String, String>> {
    let error = || about("labels", format!("must be an object of at most {LABELS_MAX} strings"));
    let labels = labels.as_object().filter(|labels| labels.len() <= LABELS_MAX).ok_or_else(error)?;
    let label =
        |(name, value): (&String, &Value)| Ok((name.clone(), value.as_str().ok_or_else(error)?.to_owned()));
    let labels: BTreeMap<String, String> = labels.iter().map(label).collect::<Result<_>>()?;
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > LABELS_BYTES_MAX {
        return Err(about(
            "labels",
            format!("are too long: they may have {LABELS_BYTES_MAX} bytes together"),
        ));
    }
    Ok(labels)
}

fn about(param: &'static str, what: String) -> BodyError {
    BodyError { param: Some(param), message: format!("{param} {what}") }
}
