//! What one state tells another, and that the other goes on with it.

use std::time::Duration;

use fleet::breaker::Circuit;
use fleet::breaker::Outcome;
use fleet::cell::Phase;
use fleet::id::WorkerId;
use fleet::tree::HolderId;

use super::*;
use crate::control::event::Event;
use crate::control::rig::BREAKER;
use crate::control::rig::config;
use crate::control::state::handover::Export;
use fleet::tree::Malformed;

const URLS: [&str; 3] = ["http://a:1", "http://b:2", "http://c:3"];

fn exported(rig: &mut Rig) -> Export {
    let (to, from) = crossbeam_channel::bounded(1);
    rig.turn([Event::Export(to)]);
    *from.try_recv().expect("an order of this turn")
}

/// The state that goes on with what was exported, under a configuration that names these workers.
fn successor(export: Export, urls: &[&str], now: Duration) -> State {
    let config = ControlConfig { seed: 99, block_seed: export.block_seed, ..config(urls) };
    let mut frames = vec![Vec::new()];
    export.tree.nodes().for_each(|node| {
        node.write(frames.last_mut().expect("there is one"));
        frames.push(Vec::new());
    });
    let keys: Vec<u8> = export.keys().flatten().collect();
    let mut state = State::new(config, now, export.workers).expect("the configuration is good");
    let mut frames = frames.into_iter();
    state.take_tree::<Malformed>(|| Ok(frames.next())).expect("a tree");
    state.take_keys(&keys).expect("keys");
    state
}

fn id(state: &State, url: &str) -> WorkerId {
    let url = crate::control::url::WorkerUrl::parse(url).expect("a URL");
    state.registry.by_url(&url).expect("it is registered").id
}

#[test]
fn everything_goes_on_under_new_ids() {
    let mut rig = Rig::ready(&URLS);
    let _reply =
        rig.send("POST", "/workers", r#"{"url":"http://d:4","priority":7,"labels":{"policy":"manual"}}"#);
    rig.alive.insert("http://d:4".to_owned());
    rig.settle();
    rig.pass(Duration::from_secs(50));
    let version = rig.snapshot.version;
    let worker = |rig: &Rig, url: &str| rig.id(url);
    for (at, url) in URLS.iter().enumerate() {
        let worker = worker(&rig, url);
        let blocks = vec![1, 10 + at as u64, 100];
        rig.report(Report::Placed { worker, version, blocks: blocks.into() });
        rig.snapshot.fleet.sticky.assign(1000 + at as u64, None, worker, 40);
    }
    let b = worker(&rig, "http://b:2");
    let cells = Arc::clone(&rig.snapshot.fleet.worker(b).expect("it is there").cells);
    let pass = cells.breaker().admit(&BREAKER).expect("it is closed");
    for _ in 0..3 {
        cells.breaker().judge(pass, Outcome::Failure, 45_000, &BREAKER);
    }
    rig.report(Report::Circuit { worker: b });
    let uuid = |state: &State, url: &str| state.registry.get(id(state, url)).expect("found").uuid;
    let uuids: Vec<_> = URLS.iter().map(|url| uuid(&rig.state, url)).collect();

    // The next process is told of other workers, in another order: `a` is not among them.
    let now = rig.now;
    let export = exported(&mut rig);
    let mut state = successor(export, &["http://e:5", "http://c:3", "http://b:2"], now);
    let snapshot = state.first_publication(now);
    assert!(
        state.registry.by_url(&crate::control::url::WorkerUrl::parse("http://a:1").expect("a URL")).is_none()
    );
    assert_eq!(uuid(&state, "http://c:3"), uuids[2]);
    let d = state.registry.get(id(&state, "http://d:4")).expect("found");
    assert_eq!((d.spec.priority, d.spec.policy(), d.spec.source), (7, Some("manual"), Source::Admin));
    let health = |url: &str| state.registry.get(id(&state, url)).expect("found").health();
    assert_eq!((health("http://c:3"), health("http://e:5")), (Health::Ready, Health::Pending));
    let b = state.registry.get(id(&state, "http://b:2")).expect("found");
    assert_eq!((b.cells.breaker().circuit(), b.is_routable()), (Circuit::Open, false));

    let holders = |blocks: &[u64]| {
        let found = snapshot.tree.find(&blocks);
        (found.blocks, found.holders().map(|(holder, _)| holder).collect::<Vec<_>>())
    };
    assert_eq!(holders(&[1, 12, 100]), (3, vec![HolderId(id(&state, "http://c:3").index)]));
    assert_eq!(holders(&[1, 10, 100]).0, 1, "what only `a` held is known no more");
    let owner = |key: u64| snapshot.fleet.sticky.get(key);
    assert!(owner(1002).is_some_and(|owner| owner.is(id(&state, "http://c:3")) && owner.tick == 40));
    assert_eq!(owner(1000), None);
}

#[test]
fn who_has_handed_over_waits_for_its_last_request() {
    let mut rig = Rig::ready(&URLS);
    rig.requests_active = 1;
    rig.turn([Event::HandedOver]);
    assert_eq!(rig.state.phase(), Phase::HandedOver);
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.state.phase(), Phase::HandedOver, "no grace period ends a stream");
    assert!(String::from_utf8_lossy(&rig.snapshot.fleet.readiness.body).contains("draining"));
    rig.requests_active = 0;
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.state.phase(), Phase::Stopping);
}

#[test]
fn a_process_that_has_handed_over_can_still_be_told_to_end() {
    let mut rig = Rig::ready(&URLS);
    rig.requests_active = 1;
    rig.turn([Event::HandedOver]);
    rig.turn([Event::Terminate]);
    assert_eq!(rig.state.phase(), Phase::Draining);
    rig.pass(Duration::from_secs(200));
    assert_eq!(rig.state.phase(), Phase::Stopping, "the grace period is over");
}

#[test]
fn a_reload_takes_away_only_what_settings_brought() {
    let mut rig = Rig::ready(&["http://a:1", "http://b:2"]);
    let _reply = rig.send("POST", "/workers", r#"{"url":"http://d:4","health_check_interval_secs":7}"#);
    rig.alive.extend(["http://d:4".to_owned(), "http://c:3".to_owned()]);
    rig.settle();
    let mut next = config(&["http://b:2", "http://c:3"]);
    next.health.interval = Duration::from_secs(11);
    next.breaker = None;
    rig.turn([Event::Reload(Box::new(next))]);
    rig.settle();
    assert_eq!(rig.routable(), ["http://b:2", "http://d:4", "http://c:3"]);
    let interval = |url: &str| {
        rig.state.registry.get(id(&rig.state, url)).expect("found").spec.checks.interval.as_secs()
    };
    assert_eq!([interval("http://b:2"), interval("http://c:3"), interval("http://d:4")], [11, 11, 7]);
}
