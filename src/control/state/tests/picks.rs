//! What picking a worker does with breakers that control has not heard of yet, and what it leaves behind.

use std::sync::Arc;
use std::time::Duration;

use fleet::breaker::BreakerRules;
use fleet::breaker::Circuit;
use fleet::breaker::Outcome;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Worker;
use policy::Keys;
use policy::Replica;
use policy::Request;
use shard::pick::pick;

use super::A;
use super::B;
use crate::control::rig::BREAKER;
use crate::control::rig::Rig;
use crate::control::rig::config;

fn rig(policy: &str, urls: &[&str]) -> Rig {
    let mut config = config(urls);
    config.rules = Rules::default();
    config.rules.default = config.rules.policy(policy).expect("a policy's name");
    let mut rig = Rig::new(config);
    rig.alive.extend(urls.iter().map(|&url| url.to_owned()));
    rig.settle();
    rig
}

fn worker(rig: &Rig, url: &str) -> Arc<Worker> {
    Arc::clone(rig.snapshot.fleet.worker(rig.id(url)).expect("registered"))
}

/// Its requests fail until its breaker opens; nobody tells control.
fn open(worker: &Worker) {
    for _ in 0..BREAKER.failure_threshold {
        let pass = worker.cells.breaker().admit(&BREAKER).expect("closed");
        worker.cells.breaker().judge(pass, Outcome::Failure, 0, &BREAKER);
    }
    assert_eq!(worker.cells.breaker().circuit(), Circuit::Open);
}

/// Whom a request goes to, by the snapshot that there is.
fn ask(rig: &Rig, replica: &mut Replica, rules: &BreakerRules, n: u64) -> Option<Box<str>> {
    let pool = &rig.snapshot.fleet.pools[0];
    let key = n.to_string();
    let blocks = [n << 8, n << 8 | 1];
    let request = Request {
        blocks: if pool.policy.reads_prompt() { &blocks } else { &[] },
        prompt_bytes: 256,
        keys: Keys { routing: Some(key.as_bytes()), session: Some(key.as_bytes()), ..Keys::default() },
        ..Request::default()
    };
    let (choice, pass) = pick(replica, &rig.snapshot, pool, &request, Some(rules))?;
    assert!(pass.is_some(), "somebody has let it through");
    Some(choice.worker.url.clone())
}

#[test]
fn an_open_breaker_is_never_asked_and_its_worker_is_remembered_for_nothing() {
    for policy in Policy::NAMES {
        let rig = rig(policy, &[A, B]);
        let (broken, well) = (worker(&rig, A), worker(&rig, B));
        open(&broken);
        let mut replica = Replica::new(1);
        for n in 0..100 {
            assert_eq!(ask(&rig, &mut replica, &BREAKER, n).as_deref(), Some(B), "{policy}");
        }
        assert_eq!((broken.cells.held_blocks(), broken.cells.keys()), (0, 0), "{policy}");
        let sticky = &rig.snapshot.fleet.sticky;
        let mut owners = 0;
        sticky.sweep(|_, owner| {
            assert!(owner.is(well.id), "{policy}: a key belongs to whom nobody may ask");
            owners += 1;
            false
        });
        assert_eq!(well.cells.keys(), owners, "{policy}");
        open(&well);
        assert_eq!(ask(&rig, &mut replica, &BREAKER, 7), None, "{policy}");
    }
}

#[test]
fn a_breaker_is_not_asked_before_its_pause_is_over() {
    let mut rig = rig("round_robin", &[A, B]);
    let (broken, well) = (worker(&rig, A), worker(&rig, B));
    open(&broken);
    open(&well);
    let mut replica = Replica::new(1);
    rig.pass(Duration::from_millis(BREAKER.open_ms - 1));
    assert_eq!(broken.cells.breaker().circuit(), Circuit::Open);
    assert_eq!(broken.cells.breaker().tick(BREAKER.open_ms - 1, &BREAKER), None);
    rig.pass(Duration::from_millis(1));
    let asked: Vec<bool> = (0..5).map(|n| ask(&rig, &mut replica, &BREAKER, n).is_some()).collect();
    assert_eq!(asked, [true, true, true, true, false], "two probes each");
}
