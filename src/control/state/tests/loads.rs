//! Polls of engines, and engines that restart.

use std::time::Duration;

use engine::incarnation::Marks;
use engine::load::EngineLoad;
use engine::metrics::Page;
use fleet::board::REQUEST_COST;
use fleet::rules::Policy;
use fleet::snapshot::Claim;
use fleet::tree::HolderId;

use super::A;
use super::B;

use super::SECOND;
use super::placed;
use crate::control::event::Event;
use crate::control::poll::Endpoints;
use crate::control::poll::Place;
use crate::control::rig::POLL_INTERVAL;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::task::Task;

const C: &str = "http://10.0.0.3:8000";

fn page(running: u32, prompt_tokens: f64) -> Page {
    let load =
        EngineLoad { running: Some(running), tokens: Some(70), kv_used: Some(0.25), ..EngineLoad::default() };
    let mut marks = Marks { has_page: true, ..Marks::default() };
    marks.counters[0] = Some(prompt_tokens);
    Page { load, marks, prefix: None }
}

fn load(rig: &Rig, url: &str) -> Option<fleet::cell::EngineLoad> {
    rig.snapshot.fleet.worker(rig.id(url)).expect("registered").cells.engine_load()
}

fn polls(rig: &Rig) -> usize {
    rig.tasks.iter().filter(|task| matches!(task, Task::Poll { .. })).count()
}

#[test]
fn a_routable_worker_is_polled_once_an_interval() {
    let mut rig = Rig::ready(&[A, B]);
    assert_eq!(load(&rig, A), None, "unknown until it was asked");
    rig.pages.insert(A.to_owned(), page(3, 1.0));
    rig.pass(POLL_INTERVAL);
    let expect = fleet::cell::EngineLoad {
        tokens: Some(70),
        running: Some(3),
        waiting: None,
        kv_used_permille: Some(250),
        at_s: load(&rig, A).expect("it tells").at_s,
    };
    assert_eq!(load(&rig, A), Some(expect));
    assert_eq!(load(&rig, B), None, "it has no page");
    let stats = rig.state.stats();
    rig.pass(POLL_INTERVAL * 5);
    assert_eq!((stats.polls_passed_total.get(), stats.polls_failed_total.get()), (6, 6));
}

#[test]
fn a_failed_poll_makes_the_load_unknown() {
    let mut rig = Rig::ready(&[A]);
    rig.pages.insert(A.to_owned(), page(3, 1.0));
    rig.pass(POLL_INTERVAL);
    assert!(load(&rig, A).is_some());
    rig.pages.clear();
    rig.pass(POLL_INTERVAL);
    assert_eq!(load(&rig, A), None);
}

/// What engines count as on the board of the only model.
fn costs(rig: &Rig) -> Vec<Option<u32>> {
    let fleet = &rig.snapshot.fleet;
    [A, B, C].iter().map(|url| fleet.pools[0].board.cost(rig.id(url).index)).collect()
}

#[test]
fn engines_count_under_policies_that_weigh_them_and_unknown_is_the_mean() {
    let mut config = config(&[A, B, C]);
    config.rules.default = Policy::PowerOfTwo;
    let mut rig = Rig::new(config);
    for url in [A, B, C] {
        rig.alive.insert(url.to_owned());
    }
    rig.pages.insert(A.to_owned(), page(2, 1.0));
    rig.pages.insert(B.to_owned(), page(4, 1.0));
    rig.pass(POLL_INTERVAL * 3);
    assert_eq!(costs(&rig), [Some(2 * REQUEST_COST), Some(4 * REQUEST_COST), Some(3 * REQUEST_COST)]);
    // The gateway's own requests are not counted twice.
    let worker = std::sync::Arc::clone(rig.snapshot.fleet.worker(rig.id(A)).expect("registered"));
    worker.begin(&Claim::default());
    rig.pass(POLL_INTERVAL);
    assert_eq!(costs(&rig)[0], Some(2 * REQUEST_COST), "one of two is ours");
    worker.end(&Claim::default(), false);
    // A worker that leaves takes its cost along.
    let board = std::sync::Arc::clone(&rig.snapshot.fleet.pools[0].board);
    for url in [A, B, C] {
        let id = rig.id(url);
        let (state, now) = (&mut rig.state, rig.now);
        state.remove(id, now, &mut Vec::new());
    }
    assert_eq!(board.total(), 0);
}

#[test]
fn who_gets_no_requests_is_not_polled() {
    let mut rig = Rig::ready(&[A, B]);
    rig.pages.insert(A.to_owned(), page(3, 1.0));
    rig.pass(POLL_INTERVAL);
    rig.alive.clear();
    rig.pass(Duration::from_secs(180));
    assert!(rig.routable().is_empty());
    assert_eq!(load(&rig, A), None, "what it said is no longer so");
    let polled = rig.state.stats().polls_failed_total.get();
    rig.pass(Duration::from_secs(180));
    assert_eq!(rig.state.stats().polls_failed_total.get(), polled);
}

#[test]
fn a_removed_worker_is_not_polled() {
    let mut rig = Rig::ready(&[A]);
    let id = rig.id(A);
    while polls(&rig) == 0 {
        rig.now = rig.state.next_deadline().expect("a poll is due");
        rig.turn([]);
    }
    let late = rig.tasks.pop().expect("the poll");
    rig.call("POST", &format!("/remove_worker?url={A}"), "");
    rig.pages.insert(A.to_owned(), page(3, 1.0));
    let late = rig.outcome(late);
    rig.turn([late]);
    rig.pass(SECOND);
    assert!(rig.snapshot.fleet.worker(id).is_none());
    rig.pass(POLL_INTERVAL * 3);
    assert_eq!(rig.state.stats().polls_passed_total.get(), 0);
    assert_eq!(rig.state.registry.next_due(), None);
}

#[test]
fn one_poll_is_under_way_at_a_time() {
    let mut rig = Rig::ready(&[A]);
    for _ in 0..10 {
        rig.now += POLL_INTERVAL;
        rig.turn([]);
    }
    assert_eq!(polls(&rig), 1);
    rig.settle();
    rig.now += POLL_INTERVAL;
    rig.turn([]);
    assert_eq!(polls(&rig), 1);
}

#[test]
fn an_engine_that_restarted_has_an_empty_cache() {
    let mut rig = Rig::ready(&[A, B]);
    let (a, b) = (rig.id(A), rig.id(B));
    for url in [A, B] {
        rig.pages.insert(url.to_owned(), page(0, 100.0));
        let worker = rig.id(url);
        rig.report(placed(worker));
    }
    rig.pass(POLL_INTERVAL);
    let version = rig.snapshot.version;
    rig.pages.insert(A.to_owned(), page(0, 5.0));
    rig.pass(POLL_INTERVAL);
    assert_eq!(rig.state.tree.holder_blocks(HolderId(a.index)), 0);
    assert_eq!(rig.state.tree.holder_blocks(HolderId(b.index)), 3);
    assert!(rig.snapshot.version > version, "shards are told");
    assert_eq!(rig.state.stats().worker_restarts_total.get(), 1);
    rig.report(placed(a));
    rig.pages.insert(A.to_owned(), page(0, 6.0));
    rig.pass(POLL_INTERVAL * 3);
    assert_eq!(rig.state.stats().worker_restarts_total.get(), 1);
    assert_eq!(rig.state.tree.holder_blocks(HolderId(a.index)), 3);
}

#[test]
fn a_restarted_engine_is_asked_what_it_serves() {
    let mut rig = Rig::ready(&[A]);
    rig.pages.insert(A.to_owned(), page(0, 100.0));
    rig.pass(POLL_INTERVAL);
    rig.models.insert(A.to_owned(), "other".to_owned());
    rig.pages.insert(A.to_owned(), page(0, 0.0));
    rig.pass(POLL_INTERVAL);
    assert_eq!(&*rig.snapshot.fleet.pools[0].name.model, "other");
}

#[test]
fn where_it_answered_is_remembered() {
    let mut rig = Rig::ready(&[A]);
    let learnt = Endpoints { load: Place::Nowhere, metrics: Place::At(0), identity: Place::Nowhere };
    let mut asked = Vec::new();
    for _ in 0..3 {
        rig.now += POLL_INTERVAL;
        rig.turn([]);
        for task in std::mem::take(&mut rig.tasks) {
            let outcome = match rig.outcome(task) {
                Event::Polled { worker, mut polled } => {
                    asked.push(std::mem::replace(&mut polled.endpoints, learnt).metrics);
                    Event::Polled { worker, polled }
                }
                other => other,
            };
            rig.turn([outcome]);
        }
    }
    assert_eq!(asked, [Place::Untried, Place::At(0), Place::At(0)]);
}

#[test]
fn without_an_interval_nobody_is_polled() {
    let mut config = crate::control::rig::config(&[A]);
    config.load_monitor_interval = None;
    let mut rig = Rig::new(config);
    rig.alive.insert(A.to_owned());
    rig.pages.insert(A.to_owned(), page(3, 1.0));
    rig.pass(POLL_INTERVAL * 3);
    assert_eq!(rig.routable(), [A]);
    assert_eq!(load(&rig, A), None);
}

#[test]
fn ten_thousand_polls_do_not_burst() {
    const WORKERS: u32 = 10_000;
    let urls: Vec<String> = (0..WORKERS).map(|n| format!("http://10.{}.{}.1:1", n / 256, n % 256)).collect();
    let mut rig = Rig::ready(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    let from = rig.now;
    let mut polled = 0;
    while let Some(due) = rig.state.next_deadline().filter(|&due| due <= from + POLL_INTERVAL) {
        // Control takes in what has come due within some milliseconds, as a busy one would.
        rig.now = due + Duration::from_millis(10);
        rig.turn([]);
        let burst = std::mem::take(&mut rig.tasks).len();
        assert!(burst <= 20, "{burst} polls at once");
        polled += burst;
    }
    assert_eq!(polled, WORKERS as usize);
}
