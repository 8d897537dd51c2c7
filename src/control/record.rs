//! A worker as one process tells another of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use engine::metadata::Dialect;
use engine::metadata::Metadata;
use engine::metadata::Model;
use engine::metadata::label_name;
use fleet::secret::Secret;
use fleet::snapshot::Role;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::admin::body::declared_name;
use crate::control::worker::Checks;
use crate::control::worker::Entry;
use crate::control::worker::Recovery;
use crate::control::worker::Source;
use crate::control::worker::Stage;

/// Everything about a worker that the next process goes on with.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct WorkerRecord {
    /// Its index in the process that tells, by which the prefix tree and the sticky table name it.
    pub(crate) index: u32,
    pub(crate) uuid: String,
    pub(crate) url: String,
    pub(crate) api_key: Option<String>,
    pub(crate) model_id: Option<String>,
    pub(crate) role: RoleRecord,
    pub(crate) bootstrap_port: Option<u16>,
    pub(crate) priority: u32,
    pub(crate) cost: f64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) declared: BTreeMap<String, String>,
    pub(crate) checks: ChecksRecord,
    pub(crate) source: Source,
    pub(crate) health: HealthRecord,
    pub(crate) since_ms: u64,
    pub(crate) is_expected_back: bool,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) models: Vec<String>,
    /// The policy of the first of them, which the workers that were there first decided on.
    pub(crate) policy: Option<String>,
    pub(crate) metadata: MetadataRecord,
    /// The word of its circuit breaker.
    pub(crate) breaker: u64,
    /// Since when it is on its way back from trouble.
    pub(crate) recovers_since_ms: Option<u64>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
pub(crate) struct ChecksRecord {
    timeout_ms: u64,
    interval_ms: u64,
    success_threshold: u32,
    failure_threshold: u32,
    disabled: bool,
}

/// What part of a request a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum RoleRecord {
    Regular,
    Prefill,
    Decode,
}

/// Where a worker stands, without what it has counted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum HealthRecord {
    Pending,
    Ready,
    Unhealthy,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct MetadataRecord {
    dialect: Dialect,
    version: Option<String>,
    models: Vec<Model>,
    model_path: Option<String>,
    served_model_name: Option<String>,
    tokenizer_path: Option<String>,
    is_generation: Option<bool>,
    speaks_http2: bool,
    labels: BTreeMap<String, String>,
}

/// Its key is not shown.
impl fmt::Debug for WorkerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRecord").field("url", &self.url).finish_non_exhaustive()
    }
}

impl WorkerRecord {
    /// What there is to tell of a registered worker whose first model has `policy`; none of one that drains.
    pub(crate) fn of(entry: &Entry, policy: Option<&str>) -> Option<Self> {
        let health = match entry.stage {
            Stage::Pending { .. } | Stage::Reached => HealthRecord::Pending,
            Stage::Ready { .. } => HealthRecord::Ready,
            Stage::Unhealthy { .. } => HealthRecord::Unhealthy,
            Stage::Draining => return None,
        };
        let spec = &entry.spec;
        let owned = |(name, value): (&&'static str, &String)| ((*name).to_owned(), value.clone());
        Some(Self {
            index: entry.id.index,
            uuid: entry.uuid.to_string(),
            url: spec.url.text.to_string(),
            api_key: spec.api_key.as_ref().map(|key| (**key).to_owned()),
            model_id: spec.model_id.clone(),
            role: spec.role.into(),
            bootstrap_port: spec.bootstrap_port,
            priority: spec.priority,
            cost: spec.cost,
            labels: spec.labels.clone(),
            declared: spec.declared.iter().map(owned).collect(),
            checks: ChecksRecord::of(&spec.checks),
            source: spec.source,
            health,
            since_ms: millis(entry.since),
            is_expected_back: entry.is_expected_back,
            addresses: entry.published.addresses.to_vec(),
            models: entry.pools.iter().map(|pool| pool.model.to_string()).collect(),
            policy: policy.map(str::to_owned),
            metadata: MetadataRecord::of(&entry.metadata),
            breaker: entry.cells.breaker().save(),
            recovers_since_ms: match entry.recovery {
                Recovery::Since(since) => Some(millis(since)),
                Recovery::Over | Recovery::Awaited => None,
            },
        })
    }

    pub(crate) fn uuid(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.uuid).ok()
    }

    pub(crate) fn key(&self) -> Option<Secret> {
        self.api_key.as_deref().map(Secret::from)
    }

    /// Fields that are shown as they were given, those that this version knows.
    pub(crate) fn declared(&self) -> BTreeMap<&'static str, String> {
        let known = |(name, value): (&String, &String)| Some((declared_name(name)?, value.clone()));
        self.declared.iter().filter_map(known).collect()
    }
}

impl From<Role> for RoleRecord {
    fn from(role: Role) -> Self {
        match role {
            Role::Regular => Self::Regular,
            Role::Prefill => Self::Prefill,
            Role::Decode => Self::Decode,
        }
    }
}

impl From<RoleRecord> for Role {
    fn from(role: RoleRecord) -> Self {
        match role {
            RoleRecord::Regular => Self::Regular,
            RoleRecord::Prefill => Self::Prefill,
            RoleRecord::Decode => Self::Decode,
        }
    }
}

impl ChecksRecord {
    fn of(checks: &Checks) -> Self {
        Self {
            timeout_ms: millis(checks.timeout),
            interval_ms: millis(checks.interval),
            success_threshold: checks.success_threshold,
            failure_threshold: checks.failure_threshold,
            disabled: checks.disabled,
        }
    }

    pub(crate) fn checks(self) -> Checks {
        Checks {
            timeout: Duration::from_millis(self.timeout_ms),
            interval: Duration::from_millis(self.interval_ms),
            success_threshold: self.success_threshold,
            failure_threshold: self.failure_threshold,
            disabled: self.disabled,
        }
    }
}

impl MetadataRecord {
    fn of(metadata: &Metadata) -> Self {
        let Metadata { dialect, version, models, model_path, .. } = metadata.clone();
        let Metadata { served_model_name, tokenizer_path, is_generation, speaks_http2, labels, .. } =
            metadata.clone();
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            dialect,
            version,
            models,
            model_path,
            served_model_name,
            tokenizer_path,
            is_generation,
            speaks_http2,
            labels,
        }
    }

    pub(crate) fn metadata(self) -> Metadata {
        let Self { dialect, version, models, model_path, .. } = self;
        let labels = self.labels.into_iter().filter_map(|(name, value)| Some((label_name(&name)?, value)));
        Metadata {
            dialect,
            version,
            models,
            model_path,
            served_model_name: self.served_model_name,
            tokenizer_path: self.tokenizer_path,
            is_generation: self.is_generation,
            speaks_http2: self.speaks_http2,
            labels: labels.collect(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
