//! Data-parallel ranks: units that come, change and go with their engine.

use serde_json::Value;

use super::A;
use super::B;
use crate::control::event::Discovered;
use crate::control::event::Event;
use crate::control::rig::INTERVAL;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::rig::text;
use crate::control::url::WorkerUrl;
use crate::control::worker::Checks;
use crate::control::worker::Source;
use crate::control::worker::WorkerSpec;

/// A fleet of these workers, of which A has so many ranks.
fn start(urls: &[&str], ranks: u16) -> Rig {
    let mut rig = Rig::new(crate::control::ControlConfig { dp_aware: true, ..config(urls) });
    rig.alive.extend([A, B].map(str::to_owned));
    rig.ranks.insert(A.to_owned(), ranks);
    rig.settle();
    rig
}

fn unit(rank: u16) -> String {
    format!("{A}@{rank}")
}

fn ranks(rig: &Rig) -> Vec<Option<u16>> {
    rig.members().iter().map(|worker| worker.rank).collect()
}

/// Has A say that it has so many ranks, as it does when it was away.
fn come_back_with(rig: &mut Rig, ranks: u16) {
    rig.alive.remove(A);
    rig.pass(INTERVAL * 4);
    rig.ranks.insert(A.to_owned(), ranks);
    rig.alive.insert(A.to_owned());
    rig.pass(INTERVAL * 4);
}

#[test]
fn each_rank_is_a_unit_behind_one_address() {
    let rig = start(&[A, B], 3);
    assert_eq!(rig.routable(), [&*unit(0), B, &*unit(1), &*unit(2)]);
    assert_eq!(ranks(&rig), [Some(0), None, Some(1), Some(2)]);
    let hosts: Vec<&str> = rig.members().iter().map(|worker| &*worker.host).collect();
    assert_eq!(hosts, ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.1:8000", "10.0.0.1:8000"]);
}

#[test]
fn without_the_flag_an_engine_is_one_unit() {
    let mut rig = Rig::new(config(&[A]));
    rig.alive.insert(A.to_owned());
    rig.ranks.insert(A.to_owned(), 4);
    rig.settle();
    assert_eq!((rig.routable(), ranks(&rig)), (vec![A], vec![None]));
}

#[test]
fn an_engine_that_comes_back_with_other_ranks_has_those() {
    let mut rig = start(&[A], 2);
    come_back_with(&mut rig, 4);
    assert_eq!(ranks(&rig), [Some(0), Some(1), Some(2), Some(3)]);
    come_back_with(&mut rig, 3);
    assert_eq!(ranks(&rig), [Some(0), Some(1), Some(2)]);
    come_back_with(&mut rig, 1);
    assert_eq!((rig.routable(), ranks(&rig)), (vec![A], vec![None]));
}

#[test]
fn ranks_go_together_whichever_is_removed() {
    for name in [A.to_owned(), unit(0), unit(1)] {
        let mut rig = start(&[A, B], 2);
        let path = format!("/workers/{}", name.replace(':', "%3A").replace('/', "%2F"));
        assert_eq!(rig.call("DELETE", &path, "").status, 202, "{name}");
        assert_eq!(rig.routable(), [B], "{name}");
    }
}

#[test]
fn what_is_changed_at_one_is_changed_at_all() {
    let mut rig = start(&[A], 3);
    let path = format!("/workers/{}", unit(2).replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(rig.call("PUT", &path, r#"{"priority":100,"api_key":"k"}"#).status, 202);
    let members = rig.members();
    assert_eq!(members.len(), 3);
    assert!(
        members.iter().all(|worker| worker.weight == members[0].weight && worker.authorization.is_some())
    );
    assert_eq!(ranks(&rig), [Some(0), Some(1), Some(2)]);
}

#[test]
fn sources_and_settings_name_addresses() {
    let mut rig = start(&[], 2);
    let find = |rig: &mut Rig, urls: &[&str]| {
        let spec = |url: &&str| {
            let url = WorkerUrl::parse(url).expect("a good URL");
            let spec = WorkerSpec::new(url, Checks::from(&rig.state.config.health));
            WorkerSpec { source: Source::File, ..spec }
        };
        let workers = urls.iter().map(spec).collect();
        rig.turn([Event::Discovered(Box::new(Discovered { source: Source::File, workers }))]);
        rig.settle();
    };
    find(&mut rig, &[A, B]);
    let ids: Vec<_> = rig.members().iter().map(|worker| worker.id).collect();
    find(&mut rig, &[B, A]);
    assert_eq!(rig.members().iter().map(|worker| worker.id).collect::<Vec<_>>(), ids, "nobody was touched");
    assert_eq!(ids.len(), 3);
    find(&mut rig, &[B]);
    assert_eq!(rig.routable(), [B]);

    let mut rig = start(&[A, B], 2);
    let config = |urls: &[&str]| crate::control::ControlConfig { dp_aware: true, ..config(urls) };
    rig.turn([Event::Reload(Box::new(config(&[A, B])))]);
    rig.settle();
    assert_eq!(ranks(&rig).len(), 3);
    rig.turn([Event::Reload(Box::new(config(&[B])))]);
    rig.settle();
    assert_eq!(rig.routable(), [B]);
}

#[test]
fn the_address_is_taken_and_ranks_are_not_for_asking() {
    let mut rig = start(&[A], 2);
    let add =
        |rig: &mut Rig, url: &str| rig.call("POST", "/workers", &format!(r#"{{"url":"{url}"}}"#)).status;
    assert_eq!(add(&mut rig, A), 409);
    assert_eq!(add(&mut rig, &unit(5)), 400);
}

#[test]
fn loads_are_of_ranks_and_flushes_of_addresses() {
    let mut rig = start(&[A], 3);
    let json = |reply| -> Value { serde_json::from_str(text(&reply)).expect("JSON") };
    let loads = json(rig.call("GET", "/get_loads", ""));
    let shown = |rank, load: i64| serde_json::json!({"worker": unit(rank), "load": load});
    assert_eq!(loads["workers"], serde_json::json!([shown(0, 4), shown(1, 6), shown(2, -1)]));
    let flushed = json(rig.call("POST", "/flush_cache", ""));
    assert_eq!((&flushed["workers_flushed"], &flushed["total_workers"]), (&1.into(), &3.into()));
}

#[test]
fn a_rank_that_was_given_up_is_found_again_and_leaves_nobody_behind() {
    let mut rig = start(&[A, B], 4);
    let id = rig.id(&unit(2));
    let mut orders = Vec::new();
    rig.state.remove_unit(id, rig.now, &mut orders);
    rig.settle();
    assert_eq!(ranks(&rig), [Some(0), None, Some(1), Some(3)]);
    come_back_with(&mut rig, 4);
    assert_eq!(ranks(&rig).len(), 5);
    let id = rig.id(&unit(1));
    rig.state.remove_unit(id, rig.now, &mut orders);
    assert_eq!(rig.call("POST", &format!("/remove_worker?url={A}"), "").status, 200);
    assert_eq!(rig.routable(), [B]);
}
