//! Workers among the pods of a Kubernetes cluster.
//!
//! Pods are listed and watched by their labels, by one watch for each role; of each pod only what makes it a worker is
//! kept. Whatever changes, control is told all of them: pods that come, become ready or not, move to another address or
//! role, or go. As long as a watch cannot be had, its pods stay as they were last seen: a cluster whose API is away has
//! not lost its workers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use fleet::snapshot::Role;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::Client;
use kube::runtime::watcher;
use kube::runtime::watcher::Event as Change;
use rand::RngExt;
use tokio::sync::Notify;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::config::PodsConfig;
use crate::control::url::WorkerUrl;
use crate::control::worker::WorkerSpec;
use crate::discovery::Herald;
use crate::discovery::limits;

/// The annotation that says at which port a prefill worker's bootstrap server listens, as in SGLang's gateway.
const BOOTSTRAP_PORT: &str = "sglang.ai/bootstrap-port";

/// The label of a pod whose engine sleeps, as the production-stack's router has it.
const SLEEPING: &str = "sleeping";

/// Which pods are workers of which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) role: Role,
    /// The connector by which they hand over prompts, if that is known.
    pub(crate) connector: Option<&'static str>,
    /// `key=value` with commas between.
    pub(crate) labels: String,
}

/// What of a pod makes it a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ready {
    address: IpAddr,
    bootstrap_port: Option<u16>,
}

/// Pods that can serve, by namespace and name.
type Pods = BTreeMap<Box<str>, Ready>;

/// What the watches have seen.
#[derive(Debug, Default)]
struct Seen {
    /// By selector; none until all of its pods were listed.
    pods: RefCell<Vec<Option<Pods>>>,
    changed: Notify,
}

/// Finds the cluster that this process runs in, or the one of `KUBECONFIG`.
///
/// # Errors
/// Why there is none.
pub(crate) fn find() -> Result<kube::Config, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut config = runtime.block_on(kube::Config::infer()).map_err(|error| one_line(&error))?;
    config.connect_timeout = Some(limits::CONNECT_TIMEOUT);
    config.read_timeout = Some(limits::READ_TIMEOUT);
    // Whoever watches tries again by itself, and says so.
    config.default_retry = false;
    Ok(config)
}

/// Tells control of the cluster's workers for as long as the process lives.
pub(crate) async fn run(cluster: kube::Config, pods: PodsConfig, herald: Herald) {
    let client = match Client::try_from(cluster) {
        Ok(client) => client,
        Err(error) => return error!(error = %one_line(&error), "the cluster's API cannot be used"),
    };
    let seen = Rc::new(Seen { pods: RefCell::new(vec![None; pods.selectors.len()]), ..Seen::default() });
    for (index, selector) in pods.selectors.iter().enumerate() {
        let api = match &pods.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        tokio::task::spawn_local(watch(api, selector.clone(), pods.clone(), (index, Rc::clone(&seen))));
    }
    let mut told = None;
    loop {
        seen.changed.notified().await;
        tokio::time::sleep(limits::GATHER).await;
        let Some(workers) = seen.workers(&pods, &herald) else { continue };
        if told.as_ref() != Some(&workers) {
            debug!(workers = workers.len(), "the cluster's workers have changed");
            told = Some(workers.clone());
            herald.tell(workers).await;
        }
    }
}

/// Follows the pods of one selector.
async fn watch(api: Api<Pod>, selector: Selector, pods: PodsConfig, (index, seen): (usize, Rc<Seen>)) {
    let config = watcher::Config {
        page_size: Some(limits::PAGE_PODS),
        ..watcher::Config::default().labels(&selector.labels).timeout(pods.watch_s)
    };
    let mut listed = Pods::new();
    let (mut failures, mut is_told) = (0, false);
    loop {
        let mut changes = pin!(watcher(api.clone(), config.clone()));
        while let Some(change) = changes.next().await {
            let error = match change {
                Ok(change) => {
                    if !matches!(change, Change::Init | Change::InitApply(_)) {
                        failures = 0;
                        if std::mem::take(&mut is_told) {
                            info!(selector = selector.labels, "pods are watched again");
                        }
                    }
                    seen.take(index, change, &mut listed);
                    continue;
                }
                Err(error) => error,
            };
            failures += 1;
            let reason = explained(&error, pods.namespace.as_deref());
            if !is_told && !is_expired(&error) {
                is_told = true;
                warn!(selector = selector.labels, %reason, "pods cannot be watched: tried again and again");
            } else {
                debug!(selector = selector.labels, %reason, failures, "pods cannot be watched");
            }
            tokio::time::sleep(pause(failures, rand::rng().random_range(0.5..1.0))).await;
            if matches!(error, watcher::Error::WatchStartFailed(_)) && is_expired(&error) {
                // Said before the watch began, it does not bring the watcher to list anew.
                break;
            }
        }
    }
}

/// The pause after so many failures in a row. `share` is a draw, so that not every gateway comes at once.
fn pause(failures: u32, share: f64) -> Duration {
    let doubled = limits::WATCH_PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(limits::WATCH_PAUSE_MAX).mul_f64(share)
}

/// Whether the server has forgotten where a watch stood (410): that is usual, and the pods are listed anew.
fn is_expired(error: &watcher::Error) -> bool {
    const GONE: u16 = 410;
    match error {
        watcher::Error::WatchError(status) => status.code == GONE,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == GONE,
        _ => false,
    }
}

/// What went wrong, and what to do about it if it is a missing permission.
fn explained(error: &watcher::Error, namespace: Option<&str>) -> String {
    use watcher::Error::InitialListFailed;
    use watcher::Error::WatchFailed;
    use watcher::Error::WatchStartFailed;
    let said = one_line(error);
    let (InitialListFailed(kube::Error::Api(status))
    | WatchStartFailed(kube::Error::Api(status))
    | WatchFailed(kube::Error::Api(status))) = error
    else {
        return said;
    };
    let place = namespace.map_or("the whole cluster".to_owned(), |name| format!("the namespace {name}"));
    match status.code {
        401 => format!("{said}; the cluster does not know this process's credentials"),
        403 => format!("{said}; this process needs the rights get, list and watch on pods in {place}"),
        _ => said,
    }
}

/// An error with its causes, as one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text.lines().collect::<Vec<_>>().join(" ")
}

// === impl Seen ===

impl Seen {
    /// Takes in one change of a selector's pods. `listed` is what has come of a list that is not complete.
    fn take(&self, index: usize, change: Change<Pod>, listed: &mut Pods) {
        let mut pods = self.pods.borrow_mut();
        match change {
            Change::Init => return listed.clear(),
            Change::InitApply(pod) => return put(listed, &pod),
            Change::InitDone => pods[index] = Some(std::mem::take(listed)),
            Change::Apply(pod) => put(pods[index].get_or_insert_default(), &pod),
            Change::Delete(pod) => drop(pods[index].get_or_insert_default().remove(&*key(&pod))),
        }
        self.changed.notify_one();
    }

    /// All workers; none as long as not every selector's pods have been listed.
    fn workers(&self, config: &PodsConfig, herald: &Herald) -> Option<Vec<WorkerSpec>> {
        let pods = self.pods.borrow();
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        let mut workers = Vec::new();
        for (selector, pods) in config.selectors.iter().zip(&*pods) {
            for (name, ready) in pods.as_ref()? {
                // A pod has one role, and an address one pod: of two that had it, one is about to be seen gone.
                if !names.insert(name) || !addresses.insert(ready.address) {
                    continue;
                }
                match WorkerUrl::parse(&url(ready.address, config.port)) {
                    Ok(url) => {
                        let mut worker = WorkerSpec { role: selector.role, ..herald.worker(url) };
                        if selector.role == Role::Prefill {
                            worker.bootstrap_port = ready.bootstrap_port;
                            selector.connector.into_iter().for_each(|name| worker.set_connector(name));
                        }
                        workers.push(worker);
                    }
                    Err(error) => warn!(pod = %name, %error, "the pod's address cannot be used"),
                }
            }
        }
        Some(workers)
    }
}

fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}", std::net::SocketAddr::new(address, port))
}

/// Has `pods` know this pod, if it can serve.
fn put(pods: &mut Pods, pod: &Pod) {
    let key = key(pod);
    match ready(pod) {
        Some(ready) => drop(pods.insert(key, ready)),
        None => drop(pods.remove(&key)),
    }
}

fn key(pod: &Pod) -> Box<str> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    format!("{}/{}", name(&pod.metadata.namespace), name(&pod.metadata.name)).into()
}

/// What makes a pod a worker: it runs, is ready, has an address, and neither sleeps nor is about to go.
fn ready(pod: &Pod) -> Option<Ready> {
    let status = pod.status.as_ref()?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let is_asleep =
        pod.metadata.labels.iter().flatten().any(|(name, value)| name == SLEEPING && value == "true");
    if is_asleep
        || pod.metadata.deletion_timestamp.is_some()
        || status.phase.as_deref() != Some("Running")
        || !is_ready
    {
        return None;
    }
    let address = status.pod_ip.as_deref()?.parse().ok()?;
    let annotated = pod.metadata.annotations.iter().flatten().find(|(name, _)| *name == BOOTSTRAP_PORT);
    let bootstrap_port = annotated.and_then(|(_, value)| {
        let port = value.trim().parse().ok().filter(|&port: &u16| port != 0);
        if port.is_none() {
            warn!(pod = %key(pod), value, "the annotation {BOOTSTRAP_PORT} is no port");
        }
        port
    });
    Some(Ready { address, bootstrap_port })
}

#[cfg(test)]
mod tests;
