//! Pods that come, change and go in random order, over an API that breaks off: the gateway's workers must be the cluster's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::draws::Draws;
use crate::gateway::Gateway;
use crate::gateway::Launch;
use crate::kubernetes::Cluster;
use crate::kubernetes::Faults;
use crate::kubernetes::Pod;
use crate::wait;
use crate::worker::Worker;
use crate::worker::json_answer;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Churn {
    /// The `ringway` binary.
    pub program: PathBuf,
    /// Pods that there are at first, and about as many at any time.
    pub pods: usize,
    /// Changes after these.
    pub changes: usize,
    /// Whether pods are prefill and decode workers, told apart by a label that changes too.
    pub is_paired: bool,
}

/// What came of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// From the last change until every worker was registered and nobody else.
    pub registered: Duration,
    /// From the last change until all were described and had their roles.
    pub described: Duration,
    /// Workers in the end.
    pub workers: usize,
    /// Lists and watches that the API was asked for.
    pub asked: (usize, usize),
}

impl Churn {
    /// Does it once, in an order that `seed` decides.
    ///
    /// # Errors
    /// How the fleet differs from the cluster's pods, long after the last change.
    pub fn run(&self, seed: u64) -> Result<Settled, String> {
        let engine = Worker::manual_at(SocketAddr::from(([0, 0, 0, 0], 0)));
        engine.answer_with(&json_answer("{}"));
        let cluster = Cluster::start();
        let mut draws = Draws::new(seed);
        let mut count = 0;
        for _ in 0..self.pods {
            cluster.apply(self.pod(&mut draws, &mut count));
        }
        cluster.set_faults(Faults { cuts: 10, ends: 10, expiries: 5, delays: 5, seed });
        let gateway = self.start(&cluster, engine.addr().port());
        for change in 0..self.changes {
            self.change(&cluster, &mut draws, &mut count);
            match draws.below(400) {
                0 => cluster.cut(),
                1 => cluster.compact(),
                _ => {}
            }
            // Bursts, and moments in which the gateway keeps up.
            if change % 40 == 39 {
                let truth = truth(&cluster, self.is_paired);
                wait::holds_within(Duration::from_millis(20), || fleet(&gateway).keys().eq(truth.keys()));
            }
        }
        let last = Instant::now();
        let truth = truth(&cluster, self.is_paired);
        let is_registered = || fleet(&gateway).keys().eq(truth.keys());
        if !wait::holds_within(wait::DEADLINE, is_registered) {
            return Err(difference(&fleet(&gateway), &truth));
        }
        let registered = last.elapsed();
        if !wait::holds_within(wait::DEADLINE * 3, || fleet(&gateway) == truth) {
            return Err(difference(&fleet(&gateway), &truth));
        }
        Ok(Settled { registered, described: last.elapsed(), workers: truth.len(), asked: cluster.asked() })
    }

    fn start(&self, cluster: &Cluster, port: u16) -> Gateway {
        let launch = Launch::new(&self.program)
            .env("KUBECONFIG", cluster.kubeconfig().display())
            .flag("--log-level", "error")
            .switch("--service-discovery")
            .flag("--service-discovery-port", port);
        let launch = if self.is_paired {
            launch
                .switch("--pd-disaggregation")
                .flag("--prefill-selector", "role=prefill")
                .flag("--decode-selector", "role=decode")
        } else {
            launch.flag("--selector", "app=engine")
        };
        launch.start_listening()
    }

    fn pod(&self, draws: &mut Draws, count: &mut usize) -> Pod {
        *count += 1;
        let n = *count;
        let ip = format!("127.{}.{}.{}", 100 + n / 40_000, n / 200 % 200, n % 200 + 1);
        let pod = Pod::new(&format!("pod-{n}"), &ip, &[("app", "engine")]);
        let mut pod = pod.annotated("sglang.ai/bootstrap-port", &(9000 + n % 100).to_string());
        self.relabel(&mut pod, draws);
        pod.is_ready = draws.below(4) > 0;
        pod
    }

    fn relabel(&self, pod: &mut Pod, draws: &mut Draws) {
        let role = ["prefill", "decode", "other"][draws.index(3)];
        pod.labels.insert("role".to_owned(), role.to_owned());
        if !self.is_paired {
            let app = if role == "other" { "database" } else { "engine" };
            pod.labels.insert("app".to_owned(), app.to_owned());
        }
    }

    fn change(&self, cluster: &Cluster, draws: &mut Draws, count: &mut usize) {
        let pods = cluster.pods();
        let Some(mut pod) = pods.get(draws.index(pods.len())).cloned() else {
            return cluster.apply(self.pod(draws, count));
        };
        match draws.below(6) {
            0 => return cluster.apply(self.pod(draws, count)),
            1 => return cluster.delete(&pod.name),
            2 => pod.is_ready = !pod.is_ready,
            3 => self.relabel(&mut pod, draws),
            4 => pod.is_terminating = true,
            _ => pod.ip = self.pod(draws, count).ip,
        }
        cluster.apply(pod);
    }
}

/// Role and bootstrap port of every worker, by its address.
pub type Fleet = BTreeMap<String, (String, u64)>;

fn truth(cluster: &Cluster, is_paired: bool) -> Fleet {
    let serving = cluster.pods().into_iter().filter(|pod| pod.is_ready && !pod.is_terminating);
    serving
        .filter_map(|pod| {
            let label = |name: &str| pod.labels.get(name).map_or("", String::as_str);
            let role = match (is_paired, label("role"), label("app")) {
                (true, role @ ("prefill" | "decode"), _) => role,
                (false, _, "engine") => "regular",
                _ => return None,
            };
            let port = pod.annotations.values().next().and_then(|port| port.parse().ok());
            let port = port.filter(|_| role == "prefill").unwrap_or(0);
            Some((pod.ip?, (role.to_owned(), port)))
        })
        .collect()
}

/// The gateway's workers in that form.
pub fn fleet(gateway: &Gateway) -> Fleet {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = |worker: Value| {
        let url = text(&worker["url"]);
        let address =
            url.trim_start_matches("http://").rsplit_once(':').map_or("", |(host, _)| host).to_owned();
        (address, (text(&worker["worker_type"]), worker["bootstrap_port"].as_u64().unwrap_or(0)))
    };
    gateway.workers().into_iter().map(shown).collect()
}

fn difference(fleet: &Fleet, truth: &Fleet) -> String {
    let missing: Vec<_> = truth.iter().filter(|(ip, is)| fleet.get(*ip) != Some(is)).take(5).collect();
    let extra: Vec<_> = fleet.iter().filter(|(ip, _)| !truth.contains_key(*ip)).take(5).collect();
    format!("{} workers of {}: not as they are {missing:?}, not there {extra:?}", fleet.len(), truth.len())
}
