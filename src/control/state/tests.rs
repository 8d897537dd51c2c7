//! The control plane on a virtual clock.

use fleet::snapshot::NoPool;
use fleet::tree::HolderId;

use super::*;
use crate::control::event::Failure;
use crate::control::event::Probe;
use crate::control::rig::INTERVAL;
use crate::control::rig::Rig;
use crate::control::rig::STARTUP_TIMEOUT;
use crate::control::rig::answer;
use crate::control::rig::config;
use crate::control::rig::text;
use crate::control::worker::Source;
use crate::control::worker::Stage;

mod circuits;
mod discovered;
mod ejection;
mod faults;
mod fixed;
mod handover;
mod loads;
mod picks;
mod ranks;
mod routing;
mod simulation;
mod upkeep;

const A: &str = "http://10.0.0.1:8000";
const B: &str = "http://10.0.0.2:8000";
const NAMED: &str = "http://worker:8000";
const SECOND: Duration = Duration::from_secs(1);

fn placed(worker: WorkerId) -> Report {
    Report::Placed { worker, version: u64::MAX, blocks: vec![1, 2, 3].into() }
}

#[test]
fn a_worker_is_pending_until_it_answers() {
    let mut rig = Rig::new(config(&[A]));
    assert_eq!(rig.snapshot.fleet.pools_of(None, false), Err(NoPool::NoWorkers));
    rig.pass(10 * SECOND);
    assert!(rig.routable().is_empty());
    assert_eq!(rig.snapshot.fleet.readiness.status, 503);
    rig.alive.insert(A.to_owned());
    rig.models.insert(A.to_owned(), "m".to_owned());
    rig.pass(limits::BACKOFF_MAX);
    assert_eq!(rig.routable(), [A]);
    assert_eq!(&*rig.snapshot.fleet.pools[0].name.model, "m");
    assert_eq!(rig.snapshot.fleet.readiness.status, 200);
}

#[test]
fn attempts_back_off() {
    let mut rig = Rig::new(config(&[A]));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        rig.settle();
        let next = rig.state.next_deadline().expect("it is tried again");
        pauses.push((next - rig.now).as_millis());
        rig.now = next;
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn a_worker_that_never_answers_is_given_up() {
    let mut rig = Rig::new(config(&[]));
    let mut reply = rig.send("POST", &format!("/add_worker?url={A}"), "");
    rig.pass(STARTUP_TIMEOUT - SECOND);
    assert!(answer(&mut reply).is_none());
    rig.pass(SECOND);
    let reply = answer(&mut reply).expect("time is up");
    assert_eq!(
        (reply.status, text(&reply)),
        (400, "Timeout 300s waiting for worker http://10.0.0.1:8000 to become healthy")
    );
    assert_eq!(text(&rig.call("GET", "/list_workers", "")), r#"{"urls":[]}"#);
}

#[test]
fn add_worker_is_answered_when_the_worker_can_be_used() {
    let mut rig = Rig::new(config(&[]));
    let mut reply = rig.send("POST", &format!("/add_worker?url={A}"), "");
    rig.pass(SECOND);
    assert!(answer(&mut reply).is_none());
    rig.alive.insert(A.to_owned());
    rig.pass(limits::BACKOFF_MAX);
    let reply = answer(&mut reply).expect("the worker is healthy");
    assert_eq!((reply.status, text(&reply)), (200, "Successfully added worker: http://10.0.0.1:8000"));
    assert_eq!(rig.routable(), [A]);
}

#[test]
fn removal_answers_who_waits_for_the_worker() {
    let mut rig = Rig::new(config(&[]));
    let mut reply = rig.send("POST", &format!("/add_worker?url={A}"), "");
    rig.call("POST", &format!("/remove_worker?url={A}"), "");
    assert_eq!(answer(&mut reply).expect("answered").status, 400);
}

#[test]
fn three_failures_take_a_worker_out_and_two_successes_bring_it_back() {
    let mut rig = Rig::ready(&[A]);
    rig.alive.clear();
    rig.pass(INTERVAL * 2);
    assert_eq!(rig.routable(), [A]);
    rig.pass(INTERVAL);
    assert!(rig.routable().is_empty());
    assert_eq!(rig.snapshot.fleet.pools.len(), 1, "the model is known, only nobody serves it");
    rig.alive.insert(A.to_owned());
    rig.pass(INTERVAL);
    assert!(rig.routable().is_empty());
    rig.pass(INTERVAL);
    assert_eq!(rig.routable(), [A]);
}

#[test]
fn an_unhealthy_worker_loses_its_presence() {
    let mut rig = Rig::ready(&[A, B]);
    let id = rig.id(A);
    rig.report(placed(id));
    assert_eq!(rig.state.tree.holder_blocks(HolderId(id.index)), 3);
    rig.alive.remove(A);
    rig.pass(INTERVAL * 3);
    assert_eq!(rig.state.tree.holder_blocks(HolderId(id.index)), 0);
    rig.report(placed(id));
    assert_eq!(rig.state.tree.holder_blocks(HolderId(id.index)), 0, "a late report changes nothing");
}

#[test]
fn only_who_refuses_connections_has_lost_its_cache() {
    let mut rig = Rig::ready(&[A]);
    let id = rig.id(A);
    rig.report(placed(id));
    for (failure, expect) in
        [(Failure::Body, 3), (Failure::Timeout, 3), (Failure::Status(500), 3), (Failure::Connect, 0)]
    {
        rig.state.registry.get_mut(id).expect("registered").stage = Stage::Ready { failures: 0 };
        let probe = Probe { addresses: None, answer: Err(failure.clone()) };
        rig.turn([Event::Probed { worker: id, probe }]);
        assert_eq!(rig.state.tree.holder_blocks(HolderId(id.index)), expect, "{failure}");
    }
}

#[test]
fn a_removed_worker_drains() {
    let mut rig = Rig::ready(&[A, B]);
    let id = rig.id(A);
    let worker = Arc::clone(rig.snapshot.fleet.worker(id).expect("registered"));
    worker.cells.begin();
    rig.call("POST", &format!("/remove_worker?url={A}"), "");
    assert_eq!(rig.routable(), [B]);
    rig.pass(10 * SECOND);
    assert!(rig.snapshot.fleet.worker(id).is_some(), "a request is in flight");
    worker.cells.end();
    rig.pass(limits::DRAIN_CHECK);
    assert!(rig.snapshot.fleet.worker(id).is_none());
}

#[test]
fn an_index_is_reused_and_a_generation_never() {
    let mut rig = Rig::ready(&[A]);
    let first = rig.id(A);
    rig.report(placed(first));
    rig.call("POST", &format!("/remove_worker?url={A}"), "");
    rig.pass(SECOND);
    let _reply = rig.send("POST", &format!("/add_worker?url={A}"), "");
    rig.settle();
    let second = rig.id(A);
    assert_eq!(first.index, second.index);
    assert!(first.generation < second.generation);
    rig.report(placed(first));
    assert_eq!(rig.state.tree.holder_blocks(HolderId(second.index)), 0, "the report is about another worker");
}

#[test]
fn a_worker_that_fails_requests_is_removed() {
    let mut rig = Rig::ready(&[A, B]);
    let id = rig.id(A);
    let cells = Arc::clone(&rig.snapshot.fleet.worker(id).expect("registered").cells);
    cells.fail();
    cells.fail();
    rig.report(Report::Failing { worker: id });
    assert_eq!(rig.routable(), [A, B], "it has succeeded since the report");
    cells.fail();
    rig.report(Report::Failing { worker: id });
    rig.report(Report::Failing { worker: id });
    assert_eq!(rig.routable(), [B]);
    assert_eq!(rig.state.stats.workers_removed_failing_total.get(), 1);
}

#[test]
fn readiness_counts_routable_workers() {
    let mut rig = Rig::new(config(&[A, B]));
    rig.alive.insert(A.to_owned());
    rig.settle();
    let readiness = &rig.snapshot.fleet.readiness;
    assert_eq!(&*readiness.body, br#"{"status":"ready","healthy_workers":1,"total_workers":2}"#);
    let health = &rig.snapshot.fleet.health_generate;
    assert_eq!((health.status, &*health.body), (200, &b"At least one router has healthy workers"[..]));
}

#[test]
fn a_turn_publishes_once_and_only_news() {
    let mut rig = Rig::ready(&[A]);
    let id = rig.id(A);
    let version = rig.snapshot.version;
    assert!(!rig.turn([]));
    let batches = [placed(id), placed(id)].map(|report| Event::Reports(vec![report]));
    assert!(rig.turn(batches));
    assert_eq!(rig.snapshot.version, version + 1);
    let before = Arc::clone(&rig.snapshot.fleet);
    rig.report(placed(id));
    assert!(Arc::ptr_eq(&before, &rig.snapshot.fleet), "only the tree has changed");
}

#[test]
fn new_addresses_are_published() {
    let mut rig = Rig::ready(&[NAMED]);
    let id = rig.id(NAMED);
    let addresses = |rig: &Rig| rig.snapshot.fleet.worker(id).expect("registered").addresses.to_vec();
    let [first, second] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|ip| std::net::SocketAddr::from((ip, 8000)));
    assert_eq!(addresses(&rig), [first]);
    let probed = |addresses| Event::Probed {
        worker: id,
        probe: crate::control::event::Probe { addresses: Some(addresses), answer: Ok(200) },
    };
    assert!(rig.turn([probed(vec![first, second])]));
    assert!(!rig.turn([probed(vec![second, first])]), "resolvers rotate their answers");
    assert_eq!(addresses(&rig), [first, second]);
}

#[test]
fn without_checks_a_missing_health_endpoint_is_life() {
    let probed = |worker| Event::Probed {
        worker,
        probe: crate::control::event::Probe { addresses: None, answer: Ok(404) },
    };
    for disabled in [false, true] {
        let mut config = config(&[A]);
        config.health.disabled = disabled;
        let mut rig = Rig::new(config);
        rig.turn([]);
        rig.tasks.clear();
        rig.turn([probed(rig.id(A))]);
        rig.settle();
        assert_eq!(!rig.routable().is_empty(), disabled);
    }
}

#[test]
fn a_pool_keeps_its_rotation() {
    let mut rig = Rig::ready(&[A]);
    rig.snapshot.fleet.pools[0].next_turn();
    let _reply = rig.send("POST", &format!("/add_worker?url={B}"), "");
    rig.alive.insert(B.to_owned());
    rig.pass(SECOND);
    assert_eq!(rig.routable(), [A, B]);
    assert_eq!(rig.snapshot.fleet.pools[0].next_turn(), 1);
}

#[test]
fn shutdown_waits_for_the_last_request() {
    let mut rig = Rig::ready(&[A]);
    let mut waiting = rig.send("POST", &format!("/add_worker?url={B}"), "");
    rig.requests_active = 1;
    rig.turn([Event::Terminate]);
    assert_eq!(rig.state.phase(), Phase::Draining);
    assert_eq!(answer(&mut waiting).expect("refused").status, 503);
    rig.pass(10 * SECOND);
    assert_eq!(rig.state.phase(), Phase::Draining);
    rig.requests_active = 0;
    rig.pass(limits::SHUTDOWN_CHECK);
    assert_eq!(rig.state.phase(), Phase::Stopping);
}

#[test]
fn shutdown_ends_with_the_grace_or_a_second_signal() {
    let mut rig = Rig::ready(&[A]);
    rig.requests_active = 1;
    rig.turn([Event::Terminate]);
    rig.pass(Duration::from_secs(181));
    assert_eq!(rig.state.phase(), Phase::Stopping);
    let mut rig = Rig::ready(&[A]);
    rig.requests_active = 1;
    rig.turn([Event::Terminate, Event::Terminate]);
    assert_eq!(rig.state.phase(), Phase::Stopping);
}

#[test]
fn a_report_from_before_the_cache_was_found_empty_is_no_presence() {
    let mut rig = Rig::ready(&[A, B]);
    let worker = rig.id(A);
    let placed = |version| Report::Placed { worker, version, blocks: vec![1, 2, 3].into() };
    let late = placed(rig.snapshot.version);
    rig.snapshot.fleet.worker(worker).expect("registered").cells.fail();
    rig.report(Report::Failing { worker });
    rig.report(late);
    assert_eq!(rig.state.tree.holder_blocks(HolderId(worker.index)), 0);
    rig.report(placed(rig.snapshot.version));
    assert_eq!(rig.state.tree.holder_blocks(HolderId(worker.index)), 3);
}

#[test]
fn a_bad_start_is_refused_in_one_line() {
    let check = |urls: &[&str], expect: &str| {
        let error = State::initial(config(urls)).map(drop).expect_err(expect).to_string();
        assert_eq!(error, expect);
    };
    check(&["grpc://a"], "worker URL \"grpc://a\": grpc:// workers are not supported yet");
    check(&["http://a", "http://A:80/"], "worker URL \"http://A:80/\" is given twice");
    check(&["a:1"], "worker URL \"a:1\": it must begin with http:// or https://");
}

#[test]
fn a_change_shares_what_it_does_not_touch() {
    let mut rig = Rig::new(config(&[A, B]));
    for (url, model) in [(A, "a"), (B, "b")] {
        rig.alive.insert(url.to_owned());
        rig.models.insert(url.to_owned(), model.to_owned());
    }
    rig.settle();
    let before = Arc::clone(&rig.snapshot.fleet);
    rig.alive.remove(B);
    rig.pass(INTERVAL * 3);
    let after = Arc::clone(&rig.snapshot.fleet);
    assert_eq!(rig.routable(), [A]);
    assert!(Arc::ptr_eq(&before.pools[0], &after.pools[0]));
    assert!(Arc::ptr_eq(&before.pools[1].registered, &after.pools[1].registered));
    assert!(!Arc::ptr_eq(&before.pools[1].members, &after.pools[1].members));
    assert_ne!(before.readiness.body, after.readiness.body);
    rig.alive.insert(B.to_owned());
    rig.pass(INTERVAL * 2);
    let page = rig.snapshot.fleet.models.body.clone();
    assert_eq!(page, before.models.body);
    rig.call("PUT", &format!("/workers/{}", A.replace(':', "%3A").replace('/', "%2F")), r#"{"priority":7}"#);
    let unchanged = &rig.snapshot.fleet.models.body;
    assert_eq!(unchanged.as_ptr(), page.as_ptr(), "a page is made anew only when it shows something else");
}

#[test]
fn a_worker_that_weighs_something_else_is_never_off_its_board() {
    let mut rig = Rig::ready(&[A]);
    let board = Arc::clone(&rig.snapshot.fleet.pools[0].board);
    let mut orders = Vec::new();
    let (reply, _answer) = oneshot::channel();
    let call = fleet::admin::AdminCall {
        method: "PUT".into(),
        path: format!("/workers/{}", A.replace(':', "%3A").replace('/', "%2F")).into(),
        query: None,
        body: bytes::Bytes::from_static(br#"{"priority":100}"#),
        request_id: "req-1".into(),
        reply,
    };
    rig.state.apply(Event::Admin(call), rig.now, &mut orders);
    let snapshot = rig.state.publication(rig.now).expect("it weighs something else");
    assert_eq!(board.present(), 1);
    assert_eq!(snapshot.fleet.workers.get(0).expect("registered").weight.ratio(), 2.0);
}
