//! Sources that keep finding workers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::A;
use super::B;
use crate::control::event::Discovered;
use crate::control::event::Event;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::url::WorkerUrl;
use crate::control::worker::Checks;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;

const C: &str = "http://10.0.0.3:8000";

fn spec(rig: &Rig, source: Source, url: &str) -> WorkerSpec {
    let url = WorkerUrl::parse(url).expect("a good URL");
    WorkerSpec { source, ..WorkerSpec::new(url, Checks::from(&rig.state.config.health)) }
}

fn find(rig: &mut Rig, source: Source, workers: Vec<WorkerSpec>) {
    rig.turn([Event::Discovered(Box::new(Discovered { source, workers }))]);
    rig.settle();
}

fn urls(rig: &Rig, source: Source, urls: &[&str]) -> Vec<WorkerSpec> {
    urls.iter().map(|url| spec(rig, source, url)).collect()
}

/// All workers on one side: everybody who is registered, with who says so.
fn registered(rig: &Rig) -> BTreeMap<String, Source> {
    rig.state
        .registry
        .registered()
        .map(|entry| (entry.spec.url.text.to_string(), entry.spec.source))
        .collect()
}

#[test]
fn the_fleet_follows_its_source_and_nobody_else_is_touched() {
    let mut rig = Rig::new(config(&[A]));
    rig.alive.extend([A, B, C].map(str::to_owned));
    let found = urls(&rig, Source::Kubernetes, &[A, B, C]);
    find(&mut rig, Source::Kubernetes, found);
    assert_eq!(rig.routable(), [A, B, C]);
    assert_eq!(registered(&rig)[A], Source::Settings, "a worker of the settings stays theirs");
    let found = urls(&rig, Source::Kubernetes, &[C]);
    find(&mut rig, Source::Kubernetes, found);
    assert_eq!(rig.routable(), [A, C]);
    find(&mut rig, Source::File, Vec::new());
    find(&mut rig, Source::Kubernetes, Vec::new());
    assert_eq!(rig.routable(), [A]);
}

#[test]
fn what_a_source_says_again_changes_nothing_and_what_an_admin_says_stays() {
    let mut rig = Rig::new(config(&[]));
    rig.alive.insert(A.to_owned());
    let found = urls(&rig, Source::Dns, &[A]);
    find(&mut rig, Source::Dns, found.clone());
    let id = rig.id(A);
    let version = rig.snapshot.version;
    find(&mut rig, Source::Dns, found.clone());
    assert_eq!((rig.id(A), rig.snapshot.version), (id, version));

    assert_eq!(
        rig.call("PUT", &format!("/workers/{}", A.replace('/', "%2F")), r#"{"priority":70}"#).status,
        202
    );
    find(&mut rig, Source::Dns, found.clone());
    assert_eq!(rig.state.registry.get(id).expect("registered").spec.priority, 70);

    // Its source's own word has changed, and is taken.
    let dearer = found.into_iter().map(|spec| WorkerSpec { cost: 2.0, ..spec }).collect();
    find(&mut rig, Source::Dns, dearer);
    let entry = rig.state.registry.get(id).expect("the same registration");
    assert_eq!((entry.spec.priority, entry.spec.cost), (50, 2.0));
}

#[test]
fn a_worker_that_serves_another_model_is_another_worker() {
    let mut rig = Rig::new(config(&[]));
    rig.alive.insert(A.to_owned());
    let named = |rig: &Rig, model: &str| {
        vec![WorkerSpec { model_id: Some(model.to_owned()), ..spec(rig, Source::File, A) }]
    };
    let found = named(&rig, "m1");
    find(&mut rig, Source::File, found);
    let first = rig.id(A);
    assert!(rig.snapshot.fleet.pools.iter().any(|pool| &*pool.name.model == "m1"));
    let found = named(&rig, "m2");
    find(&mut rig, Source::File, found);
    assert_ne!(rig.id(A), first);
    let models: Vec<_> = rig.snapshot.fleet.pools.iter().map(|pool| &*pool.name.model).collect();
    assert_eq!(models, ["m2"]);
}

/// Sources that change their minds at random, beside admin calls: each worker belongs to whoever named it first, for as
/// long as they do, and the fleet is the union.
#[test]
fn the_fleet_is_the_union_of_what_is_said() {
    const SOURCES: [Source; 3] = [Source::Kubernetes, Source::File, Source::Dns];
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut rig = Rig::new(config(&[A]));
        let all: Vec<String> = (1..12).map(|at| format!("http://10.0.0.{at}:8000")).collect();
        rig.alive.extend(all.iter().cloned());
        let mut said: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for _ in 0..30 {
            let at = rng.random_range(0..SOURCES.len());
            let names: BTreeSet<String> = all.iter().filter(|_| rng.random_bool(0.4)).cloned().collect();
            let found = names.iter().map(|url| spec(&rig, SOURCES[at], url)).collect();
            said.insert(at, names);
            find(&mut rig, SOURCES[at], found);
            // Others learn of it when they are asked again, as they are.
            for (at, names) in &said {
                let found = names.iter().map(|url| spec(&rig, SOURCES[*at], url)).collect();
                find(&mut rig, SOURCES[*at], found);
            }
            let mut expect: BTreeSet<String> = said.values().flatten().cloned().collect();
            expect.insert(A.to_owned());
            let is = registered(&rig);
            assert_eq!(is.keys().cloned().collect::<BTreeSet<_>>(), expect, "seed {seed}");
            for (url, source) in is {
                let is_said = SOURCES.iter().position(|known| *known == source);
                assert!(is_said.is_none_or(|at| said[&at].contains(&url)), "seed {seed}: {url} {source:?}");
            }
        }
    }
}
