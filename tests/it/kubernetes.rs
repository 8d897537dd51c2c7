//! Workers found among pods: whatever happens to pods or to the cluster's API, the fleet is what the cluster says.

use std::net::SocketAddr;

use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::kubernetes::Cluster;
use testkit::kubernetes::Pod;
use testkit::pods::Churn;
use testkit::pods::Fleet;
use testkit::pods::fleet;
use testkit::wait;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use crate::setup::CHAT;
use crate::setup::binary;
use crate::setup::chat;

const ENGINE: (&str, &str) = ("app", "engine");

/// An engine that answers at every loopback address.
fn everywhere() -> Worker {
    let worker = Worker::manual_at(SocketAddr::from(([0, 0, 0, 0], 0)));
    worker.answer_with(&json_answer("{\"answered\":1}"));
    worker
}

fn launch(cluster: &Cluster, engine: &Worker) -> Launch {
    let launch = binary().env("KUBECONFIG", cluster.kubeconfig().display()).switch("--service-discovery");
    launch.flag("--service-discovery-port", engine.addr().port())
}

fn start(cluster: &Cluster, engine: &Worker) -> Gateway {
    launch(cluster, engine).flag("--selector", "app=engine").start_listening()
}

#[track_caller]
fn expect(gateway: &Gateway, workers: &[(&str, &str, u64)]) {
    let expect: Fleet =
        workers.iter().map(|(ip, kind, port)| ((*ip).to_owned(), ((*kind).to_owned(), *port))).collect();
    wait::until(&format!("the fleet is {expect:?}"), || fleet(gateway) == expect);
}

#[test]
fn pods_come_change_and_go() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    cluster.apply(Pod::new("a", "127.9.0.1", &[ENGINE]));
    cluster.apply(Pod::new("other", "127.9.0.99", &[("app", "database")]));
    let gateway = start(&cluster, &engine);
    expect(&gateway, &[("127.9.0.1", "regular", 0)]);
    gateway.wait_healthy(1);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    // A pod without an address, then with one, then ready.
    let b = Pod { ip: None, is_ready: false, ..Pod::new("b", "", &[ENGINE]) };
    cluster.apply(b.clone());
    let b = Pod { ip: Some("127.9.0.2".to_owned()), ..b };
    cluster.apply(b.clone());
    cluster.apply(Pod::new("c", "127.9.0.3", &[ENGINE]));
    expect(&gateway, &[("127.9.0.1", "regular", 0), ("127.9.0.3", "regular", 0)]);
    cluster.apply(Pod { is_ready: true, ..b.clone() });
    expect(
        &gateway,
        &[("127.9.0.1", "regular", 0), ("127.9.0.2", "regular", 0), ("127.9.0.3", "regular", 0)],
    );
    // It moves to another address; another is about to go; a third is no worker any more.
    cluster.apply(Pod { is_ready: true, ip: Some("127.9.0.22".to_owned()), ..b });
    cluster.apply(Pod { is_terminating: true, ..Pod::new("c", "127.9.0.3", &[ENGINE]) });
    cluster.apply(Pod::new("a", "127.9.0.1", &[("app", "database")]));
    expect(&gateway, &[("127.9.0.22", "regular", 0)]);
    cluster.apply(Pod { is_ready: false, ..Pod::new("b", "127.9.0.22", &[ENGINE]) });
    expect(&gateway, &[]);
    cluster.apply(Pod::new("b", "127.9.0.22", &[ENGINE]));
    expect(&gateway, &[("127.9.0.22", "regular", 0)]);
    cluster.delete("b");
    expect(&gateway, &[]);
}

#[test]
fn prefill_and_decode_pods_are_told_apart() {
    const PREFILL: (&str, &str) = ("component", "prefill");
    const DECODE: (&str, &str) = ("component", "decode");
    let (cluster, engine) = (Cluster::start(), everywhere());
    let port = |pod: Pod, port: &str| pod.annotated("sglang.ai/bootstrap-port", port);
    cluster.apply(port(Pod::new("p", "127.9.1.1", &[ENGINE, PREFILL]), "8998"));
    cluster.apply(port(Pod::new("d", "127.9.1.2", &[ENGINE, DECODE]), "8998"));
    let gateway = launch(&cluster, &engine)
        .switch("--pd-disaggregation")
        .flag("--prefill-selector", "app=engine")
        .switch("component=prefill")
        .flag("--decode-selector", "app=engine")
        .switch("component=decode")
        .start_listening();
    expect(&gateway, &[("127.9.1.1", "prefill", 8998), ("127.9.1.2", "decode", 0)]);
    gateway.wait_healthy(2);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    // Each does the other's part now, and the port is no port.
    cluster.apply(Pod::new("p", "127.9.1.1", &[ENGINE, DECODE]));
    cluster.apply(port(Pod::new("d", "127.9.1.2", &[ENGINE, PREFILL]), "none"));
    expect(&gateway, &[("127.9.1.1", "decode", 0), ("127.9.1.2", "prefill", 0)]);
    wait::until("the log names the pod", || gateway.has_logged(&["WARN", "default/d", "is no port"]));
    cluster.apply(port(Pod::new("d", "127.9.1.2", &[ENGINE, PREFILL]), "9000"));
    expect(&gateway, &[("127.9.1.1", "decode", 0), ("127.9.1.2", "prefill", 9000)]);
}

#[test]
fn the_commands_of_sglangs_guides_work() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    let inference = [("app", "sglang-worker"), ("role", "inference")];
    let at = |namespace: &str, pod: Pod| Pod { namespace: namespace.to_owned(), ..pod };
    cluster.apply(at("sglang-system", Pod::new("a", "127.9.6.1", &inference)));
    cluster.apply(at("sglang-system", Pod::new("half", "127.9.6.2", &inference[..1])));
    cluster.apply(at("default", Pod::new("b", "127.9.6.3", &inference)));
    for (namespace, found) in [("sglang-system", "127.9.6.1"), ("default", "127.9.6.3")] {
        let gateway = launch(&cluster, &engine)
            .flag("--selector", "app=sglang-worker")
            .switch("role=inference")
            .flag("--service-discovery-namespace", namespace)
            .start_listening();
        expect(&gateway, &[(found, "regular", 0)]);
        gateway.wait_healthy(1);
        assert_eq!(gateway.ask(&chat("hello")).status, 200);
    }
    cluster.apply(Pod::new("p", "127.9.6.4", &[("app", "sglang"), ("component", "prefill")]));
    cluster.apply(Pod::new("d", "127.9.6.5", &[("app", "sglang"), ("component", "decode")]));
    let pairs = ["--pd-disaggregation", "--prefill-selector", "app=sglang", "component=prefill"];
    let pairs = pairs.into_iter().chain(["--decode-selector", "app=sglang", "component=decode"]);
    let gateway = pairs.fold(launch(&cluster, &engine), |launch, word| launch.switch(word)).start_listening();
    expect(&gateway, &[("127.9.6.4", "prefill", 0), ("127.9.6.5", "decode", 0)]);
    gateway.wait_healthy(2);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
}

#[test]
fn workers_of_others_are_left_alone() {
    let (cluster, engine, own) = (Cluster::start(), everywhere(), Worker::answering());
    cluster.apply(Pod::new("a", "127.9.2.1", &[ENGINE]));
    let gateway = start(&cluster, &engine);
    expect(&gateway, &[("127.9.2.1", "regular", 0)]);
    let added = format!("/add_worker?url={}", own.url());
    assert_eq!(gateway.ask(&Request::new("POST", &added)).status, 200);
    cluster.apply(Pod::new("b", "127.9.2.2", &[ENGINE]));
    expect(
        &gateway,
        &[("127.0.0.1", "regular", 0), ("127.9.2.1", "regular", 0), ("127.9.2.2", "regular", 0)],
    );
    cluster.delete("a");
    cluster.delete("b");
    expect(&gateway, &[("127.0.0.1", "regular", 0)]);
}

#[test]
fn an_api_that_is_away_takes_no_worker_away() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    cluster.set_status(Some(503));
    let gateway = start(&cluster, &engine);
    wait::until("it is asked again", || gateway.has_logged(&["WARN", "pods cannot be watched"]));
    for n in 1..=9 {
        cluster.apply(Pod::new(&format!("pod-{n}"), &format!("127.9.3.{n}"), &[ENGINE]));
    }
    cluster.set_status(None);
    wait::until("all are found", || fleet(&gateway).len() == 9);
    wait::until("the log says so", || gateway.has_logged(&["pods are watched again"]));
    // The API ends; pods go meanwhile; nobody is removed before it says so.
    cluster.set_status(Some(500));
    cluster.cut();
    let (lists, watches) = cluster.asked();
    for n in 1..=8 {
        cluster.delete(&format!("pod-{n}"));
    }
    cluster.compact();
    assert_eq!(fleet(&gateway).len(), 9);
    cluster.set_status(None);
    expect(&gateway, &[("127.9.3.9", "regular", 0)]);
    let asked = cluster.asked();
    assert!(asked.0 > lists && asked.1 > watches, "it was listed and watched anew");
}

#[test]
fn a_missing_right_is_named() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    cluster.set_status(Some(403));
    let gateway = launch(&cluster, &engine)
        .flag("--selector", "app=engine")
        .flag("--service-discovery-namespace", "prod")
        .start_listening();
    let parts = ["WARN", "forbidden", "get, list and watch on pods in the namespace prod"];
    wait::until("the log names the rights", || gateway.has_logged(&parts));
    cluster.apply(Pod::new("elsewhere", "127.9.4.1", &[ENGINE]));
    cluster.apply(Pod { namespace: "prod".to_owned(), ..Pod::new("here", "127.9.4.2", &[ENGINE]) });
    cluster.set_status(None);
    expect(&gateway, &[("127.9.4.2", "regular", 0)]);
}

#[test]
fn many_pods_come_in_pages() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    for n in 0..1100_u32 {
        let ip = format!("127.10.{}.{}", n / 200, n % 200 + 1);
        cluster.apply(Pod { is_ready: n < 3, ..Pod::new(&format!("pod-{n:04}"), &ip, &[ENGINE]) });
    }
    let gateway = start(&cluster, &engine);
    expect(
        &gateway,
        &[("127.10.0.1", "regular", 0), ("127.10.0.2", "regular", 0), ("127.10.0.3", "regular", 0)],
    );
    assert_eq!(cluster.asked().0, 3, "three pages");
}

#[test]
fn the_production_stack_front_end_follows_pods_too() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    cluster.apply(Pod::new("a", "127.9.5.1", &[ENGINE]));
    cluster.apply(Pod::new("b", "127.9.5.2", &[ENGINE]));
    let launch = |cluster: &Cluster| {
        let launch = binary().on_one_port().env("KUBECONFIG", cluster.kubeconfig().display());
        launch.flag("--service-discovery", "k8s").flag("--k8s-port", engine.addr().port())
    };
    let of_stack = |gateway: &Gateway| gateway.get("/engines").json().as_array().map_or(0, Vec::len);
    let gateway = launch(&cluster)
        .flag("--k8s-label-selector", "app=engine")
        .flag("--routing-logic", "roundrobin")
        .start_listening();
    wait::until("both engines are found", || of_stack(&gateway) == 2);
    wait::until("requests are answered", || gateway.ask(&chat("hello")).status == 200);
    // Each can be named, and is counted on its own.
    for engine in gateway.get("/engines").json().as_array().expect("a list") {
        let id = engine["engine_id"].as_str().expect("an id");
        let named = Request::json(&format!("{CHAT}?id={id}"), "{\"model\":\"mock\",\"messages\":[]}");
        assert_eq!(gateway.ask(&named).status, 200);
    }
    let page = gateway.get("/metrics").text();
    for ip in ["127.9.5.1", "127.9.5.2"] {
        assert!(page.lines().any(|line| line.starts_with("vllm:") && line.contains(ip)), "{page}");
    }
    cluster.apply(Pod::new("b", "127.9.5.2", &[ENGINE, ("sleeping", "true")]));
    wait::until("one sleeps", || of_stack(&gateway) == 1);
    cluster.apply(Pod::new("b", "127.9.5.2", &[ENGINE]));
    wait::until("it is awake", || of_stack(&gateway) == 2);
    cluster.delete("a");
    wait::until("one is gone", || of_stack(&gateway) == 1);
    assert_eq!(gateway.ask(&chat("hello")).status, 200);
    drop(gateway);
    // The label `model` tells the halves apart.
    cluster.apply(Pod::new("p", "127.9.5.3", &[ENGINE, ("model", "fill")]));
    cluster.apply(Pod::new("d", "127.9.5.4", &[ENGINE, ("model", "out")]));
    let gateway = launch(&cluster)
        .flag("--routing-logic", "disaggregated_prefill")
        .flag("--prefill-model-labels", "fill")
        .flag("--decode-model-labels", "out")
        .start_listening();
    wait::until("both halves are found", || of_stack(&gateway) == 2);
    wait::until("requests are answered", || gateway.ask(&chat("hello")).status == 200);
    let to = |ip: &str| wait::until(ip, || gateway.has_logged(&["Routing request", ip]));
    to("127.9.5.3");
    to("127.9.5.4");
}

/// Some of what `tools pods` does at length.
#[test]
fn in_whatever_order_things_happen_the_fleet_follows() {
    for (seed, is_paired) in [(1, true), (2, false)] {
        let plan = Churn { program: env!("CARGO_BIN_EXE_ringway").into(), pods: 60, changes: 400, is_paired };
        plan.run(seed).expect("the fleet is the cluster's");
    }
}

#[test]
fn without_a_cluster_or_with_bad_labels_it_does_not_start() {
    let (cluster, engine) = (Cluster::start(), everywhere());
    let refused = |launch: Launch, told: &str| {
        let ended = launch.run_to_end();
        let said = ended.stderr.join("\n");
        assert!(ended.code != Some(0) && said.contains(told) && ended.stderr.len() == 1, "{said}");
    };
    refused(launch(&cluster, &engine), "--service-discovery needs --selector");
    refused(launch(&cluster, &engine).flag("--selector", "app"), "\"app\" is no label");
    refused(launch(&cluster, &engine).flag("--decode-selector", "a=b"), "needs --pd-disaggregation");
    refused(binary().flag("--selector", "a=b"), "--selector needs --service-discovery");
    let nowhere = binary().env("KUBECONFIG", "/nonexistent/config").switch("--service-discovery");
    refused(nowhere.flag("--selector", "a=b"), "no cluster was found");
}
