//! Reads the start-up workers out of the configuration, refusing what cannot work before anything listens.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use fleet::snapshot::Role;

use crate::control::config::ConfigError;
use crate::control::config::ControlConfig;
use crate::control::config::FixedWorker;
use crate::control::config::PairWorker;
use crate::control::limits::KEY_BYTES_MAX;
use crate::control::limits::WORKERS_MAX;
use crate::control::url::WorkerUrl;
use crate::control::url::shown;
use crate::control::worker::Checks;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;

/// What SGLang's gateway shows for a worker that was given none.
const PRIORITY_DEFAULT: u32 = 50;
const COST_DEFAULT: f64 = 1.0;

/// The workers of `config`.
pub(crate) fn worker_specs(config: &ControlConfig) -> Result<Vec<WorkerSpec>, ConfigError> {
    if !config.health.endpoint.starts_with('/')
        || !config.health.endpoint.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(ConfigError::HealthEndpoint);
    }
    if config.api_key.as_deref().is_some_and(|key| !is_key(key)) {
        return Err(ConfigError::Key);
    }
    let workers = config.worker_urls.len() + config.pair_workers.len() + config.fixed_workers.len();
    if workers > WORKERS_MAX {
        return Err(ConfigError::TooManyWorkers);
    }
    let mut seen = HashSet::new();
    let mut spec = |given: &String, role, bootstrap_port| {
        let refused = |error| ConfigError::Url { url: shown(given), error };
        let url = WorkerUrl::parse(given).map_err(refused)?;
        config.destinations.check(&url).map_err(refused)?;
        if !seen.insert(url.key()) {
            return Err(ConfigError::Duplicate { url: given.clone() });
        }
        Ok(WorkerSpec {
            api_key: config.api_key.clone(),
            source: Source::Settings,
            role,
            bootstrap_port,
            ..WorkerSpec::new(url, Checks::from(&config.health))
        })
    };
    let mut specs = Vec::with_capacity(workers);
    for url in &config.worker_urls {
        specs.push(spec(url, Role::Regular, None)?);
    }
    for PairWorker { url, role, bootstrap_port } in &config.pair_workers {
        specs.push(spec(url, *role, *bootstrap_port)?);
    }
    for FixedWorker { url, role, connector, fixed } in &config.fixed_workers {
        let mut spec = spec(url, *role, None)?;
        if let Some(connector) = connector {
            spec.set_connector(connector);
        }
        specs.push(WorkerSpec { fixed: Some(Arc::clone(fixed)), ..spec });
    }
    Ok(specs)
}

/// Whether a key can be sent in a header as it is.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic())
}

impl WorkerSpec {
    /// A worker of which nothing but its URL is said.
    pub(crate) fn new(url: WorkerUrl, checks: Checks) -> Self {
        Self {
            url,
            api_key: None,
            model_id: None,
            role: Role::Regular,
            bootstrap_port: None,
            priority: PRIORITY_DEFAULT,
            cost: COST_DEFAULT,
            labels: BTreeMap::new(),
            fixed: None,
            declared: BTreeMap::new(),
            checks,
            source: Source::Admin,
        }
    }
}
