//! The sources that say who the workers are, beside settings and admins: each a task of the services thread.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::Failure;
use crate::config::Config;
use crate::control::ControlConfig;
use crate::control::event::Event;
use crate::control::worker::Checks;
use crate::control::worker::Source;
use crate::discovery::Herald;
use crate::discovery::dns;
use crate::discovery::file;
use crate::discovery::kubernetes;
use crate::services::ExtraTask;

/// Finds the cluster whose pods are workers, if any are, before anything listens: without it no worker would ever be
/// found.
///
/// # Errors
/// Why there is none.
pub(super) fn find_cluster(config: &Config) -> Result<Option<kube::Config>, Failure> {
    if config.fleet.pods.is_none() {
        return Ok(None);
    }
    let cluster = kubernetes::find();
    cluster
        .map(Some)
        .map_err(|error| Failure::usage(format!("--service-discovery: no cluster was found: {error}")))
}

/// Looks whether the list of workers can be used, if there is one, before anything listens.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_file(config: &Config, control: &ControlConfig) -> Result<(), Failure> {
    let Some(path) = &config.fleet.worker_file else { return Ok(()) };
    file::check(path, control)
        .map_err(|error| Failure::usage(format!("--worker-file {}: {error}", path.display())))
}

/// What services do for the sources that are asked for.
pub(super) fn tasks(
    config: &Config,
    control: &ControlConfig,
    cluster: Option<kube::Config>,
    results: &Sender<Event>,
) -> Vec<ExtraTask> {
    let herald = |source| {
        let (checks, api_key) = (Checks::from(&config.fleet.health), config.security.api_key.clone());
        Herald { source, results: results.clone(), checks, api_key }
    };
    let mut tasks: Vec<ExtraTask> = Vec::new();
    if let (Some(cluster), Some(pods)) = (cluster, config.fleet.pods.clone()) {
        let herald = herald(Source::Kubernetes);
        tasks.push(Box::new(move || Box::pin(kubernetes::run(cluster, pods, herald))));
    }
    if let Some(path) = config.fleet.worker_file.clone() {
        let (control, herald) = (Arc::new(control.clone()), herald(Source::File));
        tasks.push(Box::new(move || Box::pin(file::run(path, control, herald))));
    }
    if let Some(names) = config.fleet.names.clone() {
        let herald = herald(Source::Dns);
        tasks.push(Box::new(move || Box::pin(dns::run(names, herald))));
    }
    tasks
}
