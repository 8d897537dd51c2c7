//! Ranges of prompt lengths, and what is looked after.

use fleet::rules::Bucket;
use fleet::rules::CacheAware;
use fleet::rules::Manual;
use fleet::rules::Policy;

use super::A;
use super::B;
use super::SECOND;
use crate::control::rig::Rig;
use crate::control::rig::config;

const C: &str = "http://10.0.0.3:8000";

fn ready(policy: Policy, urls: &[&str]) -> Rig {
    let mut config = config(urls);
    config.rules.default = policy;
    let mut rig = Rig::new(config);
    rig.alive.extend(urls.iter().map(|&url| url.to_owned()));
    rig.settle();
    rig
}

fn bounds(rig: &Rig) -> Vec<u32> {
    rig.snapshot.fleet.pools[0].bounds.to_vec()
}

#[test]
fn members_have_ranges_from_the_first_publication() {
    let rig = ready(Policy::Bucket(Bucket::default()), &[A, B]);
    assert_eq!(bounds(&rig), [2048]);
}

#[test]
fn a_newcomer_has_a_range_at_once_and_nothing_is_forgotten() {
    let mut rig = ready(Policy::Bucket(Bucket::default()), &[A, B]);
    let lengths = std::sync::Arc::clone(&rig.snapshot.fleet.pools[0].lengths);
    (0..100).for_each(|_| lengths.add(1_000));
    let expect = lengths.bounds(3);
    let _reply = rig.send("POST", &format!("/add_worker?url={C}"), "");
    rig.alive.insert(C.to_owned());
    rig.pass(SECOND);
    assert_eq!(rig.routable().len(), 3);
    assert_eq!(bounds(&rig), expect);
    rig.call("POST", &format!("/remove_worker?url={C}"), "");
    assert_eq!(bounds(&rig), lengths.bounds(2));
    // Equal bytes below and above show that the counts are whole.
    lengths.add(100_000);
    assert!(lengths.bounds(2)[0] >= 896 && lengths.bounds(3)[1] >= 65_536, "{:?}", lengths.bounds(3));
}

#[test]
fn ranges_follow_the_prompts_at_every_adjustment() {
    let mut rig = ready(Policy::Bucket(Bucket::default()), &[A, B]);
    rig.snapshot.fleet.pools[0].lengths.add(100_000);
    rig.pass(SECOND * 6);
    assert!(bounds(&rig)[0] > 65_536, "{:?}", bounds(&rig));
}

#[test]
fn only_policies_that_keep_keys_have_them_swept() {
    for (policy, expect) in [
        (Policy::Manual(Manual::default()), true),
        (Policy::CacheAware(CacheAware::default()), true),
        (Policy::ConsistentHashing, false),
        (Policy::Session, false),
    ] {
        let mut rig = ready(policy, &[A]);
        // What has changed is looked at with the next tick.
        rig.turn([]);
        assert_eq!(rig.state.next_upkeep().is_some(), expect, "{}", policy.name());
    }
}
