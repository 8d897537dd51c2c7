//! Which pods are workers, and how long a watch is waited for.

use serde_json::json;

use super::*;

fn pod(change: &[(&str, serde_json::Value)]) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "a", "namespace": "ns"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    });
    for (path, value) in change {
        *pod.pointer_mut(path).expect(path) = value.clone();
    }
    serde_json::from_value(pod).expect("a pod")
}

#[test]
fn a_pod_serves_when_it_runs_is_ready_and_stays() {
    let address = "10.0.0.1".parse().expect("an address");
    assert_eq!(ready(&pod(&[])), Some(Ready { address, bootstrap_port: None }));
    for (path, value) in [
        ("/status/phase", json!("Pending")),
        ("/status/phase", json!("Succeeded")),
        ("/status/podIP", json!(null)),
        ("/status/podIP", json!("")),
        ("/status/conditions", json!([])),
        ("/status/conditions/0/status", json!("False")),
        ("/status/conditions/0/type", json!("Initialized")),
        ("/status", json!(null)),
        ("/metadata", json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"})),
    ] {
        assert_eq!(ready(&pod(&[(path, value.clone())])), None, "{path} {value}");
    }
}

#[test]
fn the_annotation_names_a_port_or_nothing() {
    for (value, port) in
        [("9001", Some(9001)), (" 9001 ", Some(9001)), ("0", None), ("x", None), ("70000", None)]
    {
        let metadata = json!({"name": "a", "annotations": {BOOTSTRAP_PORT: value}});
        let found = ready(&pod(&[("/metadata", metadata)])).expect("it serves");
        assert_eq!(found.bootstrap_port, port, "{value}");
    }
}

#[test]
fn an_address_of_version_6_is_in_brackets() {
    assert_eq!(url("10.0.0.1".parse().expect("an address"), 80), "http://10.0.0.1:80");
    assert_eq!(url("fd00::1".parse().expect("an address"), 8000), "http://[fd00::1]:8000");
}

#[test]
fn pauses_double_up_to_the_longest() {
    let pauses: Vec<Duration> = (1..=4).map(|failures| pause(failures, 1.0)).collect();
    assert_eq!(pauses, [25, 50, 100, 200].map(Duration::from_millis));
    assert_eq!(pause(u32::MAX, 1.0), limits::WATCH_PAUSE_MAX);
    assert_eq!(pause(1, 0.5), limits::WATCH_PAUSE_FIRST / 2);
}
