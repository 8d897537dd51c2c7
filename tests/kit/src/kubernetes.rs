//! A cluster's API server with nothing but pods: lists in pages, watches with bookmarks, and every way in which a real one
//! breaks off.

mod serve;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::thread;

use serde_json::Value;
use serde_json::json;

use crate::draws::Draws;
use crate::place;

/// A pod, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address; none yet.
    pub ip: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether it is about to go.
    pub is_terminating: bool,
}

/// How the server treats who watches, in thousandths of all events sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The connection ends in the middle of a line.
    pub cuts: u64,
    /// The watch ends in order.
    pub ends: u64,
    /// The server says 410: it has forgotten where the watch stood.
    pub expiries: u64,
    /// The next event takes a while.
    pub delays: u64,
    /// Where the order of faults comes from.
    pub seed: u64,
}

/// The server. It ends with the process.
#[derive(Debug)]
pub struct Cluster {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// One change, as the history keeps it.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    before: Option<Pod>,
    after: Option<Pod>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    pods: BTreeMap<String, Pod>,
    history: VecDeque<Change>,
    /// Changes up to this version are forgotten.
    compacted: u64,
    /// Rests of lists, by their token.
    lists: HashMap<String, (u64, Vec<Value>)>,
    faults: Faults,
    draws: Draws,
    /// Answer everything with this status.
    status: Option<u16>,
    /// Counts up when all connections are to end.
    cut: u64,
    lists_asked: usize,
    watches_asked: usize,
}

// === impl Pod ===

impl Pod {
    /// A ready pod in the namespace `default`.
    pub fn new(name: &str, ip: &str, labels: &[(&str, &str)]) -> Pod {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Pod {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ip: Some(ip.to_owned()),
            labels,
            annotations: BTreeMap::new(),
            is_ready: true,
            is_terminating: false,
        }
    }

    /// The same with an annotation.
    pub fn annotated(mut self, name: &str, value: &str) -> Pod {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Whether its labels are among others these.
    pub fn has(&self, selector: &[(String, String)]) -> bool {
        selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }

    fn object(&self, version: u64) -> Value {
        let ready = if self.is_ready { "True" } else { "False" };
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
            "uid": format!("uid-{}", self.name),
            "resourceVersion": version.to_string(),
            "labels": self.labels,
            "annotations": self.annotations
        });
        if self.is_terminating {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"containers": [{"name": "engine", "image": "engine"}]},
            "status": {
                "phase": if self.ip.is_some() { "Running" } else { "Pending" },
                "podIP": self.ip,
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}]
            }
        })
    }
}

// === impl Cluster ===

impl Cluster {
    /// An empty cluster.
    #[track_caller]
    pub fn start() -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        lock(&shared).version = 1;
        let accepting = Arc::clone(&shared);
        thread::spawn(move || serve::accept_all(&listener, &accepting));
        Cluster { addr, shared }
    }

    /// A file for `KUBECONFIG` that leads here.
    #[track_caller]
    pub fn kubeconfig(&self) -> PathBuf {
        let path = place::temporary(&format!("kubeconfig-{}", self.addr.port()));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.addr)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {"token": "secret"}}]
        });
        std::fs::write(&path, config.to_string()).expect("a place for files");
        path
    }

    /// Adds a pod or changes it.
    pub fn apply(&self, pod: Pod) {
        self.change(pod.name.clone(), Some(pod));
    }

    /// Deletes a pod.
    pub fn delete(&self, name: &str) {
        self.change(name.to_owned(), None);
    }

    fn change(&self, name: String, after: Option<Pod>) {
        let mut state = lock(&self.shared);
        let before = match &after {
            Some(pod) => state.pods.insert(name, pod.clone()),
            None => state.pods.remove(&name),
        };
        if before.is_none() && after.is_none() {
            return;
        }
        state.version += 1;
        let version = state.version;
        state.history.push_back(Change { version, before, after });
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The pods there are.
    pub fn pods(&self) -> Vec<Pod> {
        lock(&self.shared).pods.values().cloned().collect()
    }

    /// Forgets all changes so far: whoever wants to go on from one of them is told 410.
    pub fn compact(&self) {
        let mut state = lock(&self.shared);
        state.compacted = state.version;
        state.history.clear();
        state.lists.clear();
    }

    /// Breaks off every connection, in the middle of whatever it says.
    pub fn cut(&self) {
        lock(&self.shared).cut += 1;
        self.shared.changed.notify_all();
    }

    /// Answers every request with this status from now on, or properly again.
    pub fn set_status(&self, status: Option<u16>) {
        lock(&self.shared).status = status;
    }

    /// Treats watches so from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = lock(&self.shared);
        state.faults = faults;
        state.draws = Draws::new(faults.seed);
    }

    /// Lists and watches asked for so far.
    pub fn asked(&self) -> (usize, usize) {
        let state = lock(&self.shared);
        (state.lists_asked, state.watches_asked)
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().expect("no holder panics")
}
