//! Workers of which everything is said: they serve at once, and are replaced all at once.

use std::sync::Arc;
use std::time::Duration;

use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Role;

use super::A;
use super::B;

use crate::control::ControlConfig;
use crate::control::Fixed;
use crate::control::FixedWorker;
use crate::control::HealthConfig;
use crate::control::event::Event;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::task::Ask;
use crate::control::task::Task;

const C: &str = "http://10.0.0.3:8000";

fn worker(url: &str, models: &[&str]) -> FixedWorker {
    let models = models.iter().map(|&model| model.to_owned()).collect();
    let fixed = Arc::new(Fixed { models, ..Fixed::default() });
    FixedWorker { url: url.to_owned(), role: Role::Regular, connector: None, fixed }
}

fn settings(workers: &[FixedWorker], default: Policy) -> ControlConfig {
    let config = config(&[]);
    ControlConfig {
        fixed_workers: workers.to_vec(),
        health: HealthConfig { disabled: true, ..config.health.clone() },
        rules: Rules { default, ..Rules::default() },
        load_monitor_interval: None,
        ..config
    }
}

fn urls(rig: &Rig, model: &str) -> Vec<String> {
    let fleet = &rig.snapshot.fleet;
    let pool = fleet.pools.iter().find(|pool| *pool.name.model == *model).expect("it is served");
    pool.members.iter().filter_map(|&index| Some(fleet.workers.get(index)?.url.to_string())).collect()
}

#[test]
fn they_serve_from_the_first_moment_and_nobody_asks_them() {
    let mut rig = Rig::new(settings(&[worker(A, &["m", "n"]), worker(B, &["m"])], Policy::RoundRobin));
    assert_eq!((urls(&rig, "m"), urls(&rig, "n")), (vec![A.to_owned(), B.to_owned()], vec![A.to_owned()]));
    rig.pass(Duration::from_secs(600));
    assert!(rig.tasks.is_empty(), "{:?}", rig.tasks);
    let named = Rig::new(settings(&[worker("http://name:1", &["m"])], Policy::RoundRobin));
    assert!(urls(&named, "m").is_empty(), "a name has to be looked up");
}

#[test]
fn a_name_is_looked_up_and_nothing_is_asked_there() {
    let mut rig = Rig::new(settings(&[worker("http://name:1", &["m"])], Policy::RoundRobin));
    rig.turn([]);
    assert!(matches!(rig.tasks[..], [Task::Probe { ask: Ask::Nothing, .. }]), "{:?}", rig.tasks);
    rig.settle();
    assert_eq!(urls(&rig, "m"), ["http://name:1"]);
}

#[test]
fn all_are_replaced_by_one_publication() {
    let mut rig = Rig::new(settings(&[worker(A, &["m"]), worker(B, &["m"])], Policy::RoundRobin));
    let version = rig.snapshot.version;
    let engine = |rig: &Rig, url: &str| {
        let mut members = rig.members().into_iter();
        let worker = members.find(|worker| *worker.url == *url);
        worker.and_then(|worker| Some(worker.tallies.as_ref()?.engine_id.clone()))
    };
    let b = engine(&rig, B).expect("it has an id");
    rig.turn([Event::Reload(Box::new(settings(
        &[worker(B, &["m"]), worker(C, &["m"])],
        Policy::RoundRobin,
    )))]);
    assert_eq!(rig.snapshot.version, version + 1);
    assert_eq!(urls(&rig, "m"), [B, C]);
    assert_eq!(engine(&rig, B), Some(b.clone()), "who stays is who it was");
    // Other rules: everybody begins anew, and the policy is another one at once.
    rig.turn([Event::Reload(Box::new(settings(&[worker(B, &["m"]), worker(C, &["m"])], Policy::Session)))]);
    assert_eq!(rig.snapshot.version, version + 2);
    assert_eq!(urls(&rig, "m").len(), 2);
    let pool = &rig.snapshot.fleet.pools[0];
    assert!(pool.policy == Policy::Session && pool.ring.is_some());
    assert_ne!(engine(&rig, B), Some(b));
    // Another model: the old one is gone with the same publication.
    rig.turn([Event::Reload(Box::new(settings(&[worker(B, &["n"])], Policy::Session)))]);
    assert_eq!(urls(&rig, "n"), [B]);
    assert!(rig.snapshot.fleet.pools.iter().all(|pool| &*pool.name.model == "n"));
}
