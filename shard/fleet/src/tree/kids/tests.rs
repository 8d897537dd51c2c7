//! The children of a node, in each of their forms.

use std::collections::BTreeMap;

use super::*;
use crate::tree::HolderId;

fn node(id: u32) -> Arc<Node> {
    Arc::new(Node::leaf(id, &[1], HolderId(0), 1))
}

fn recount(fan: &Fan) -> usize {
    fan.own_bytes() + fan.fans.iter().map(|fan| recount(fan)).sum::<usize>()
}

fn check(kids: &Kids, expected: &BTreeMap<u64, u32>) {
    let mut seen = BTreeMap::new();
    kids.for_each(&mut |key, node| assert_eq!(seen.insert(key, node.id), None));
    assert_eq!(&seen, expected);
    assert!(expected.iter().all(|(&key, &id)| kids.get(key).is_some_and(|node| node.id == id)));
    assert_eq!(kids.is_empty(), expected.is_empty());
    if let Kids::Many(fan) = kids {
        assert_eq!(fan.bytes, recount(fan));
    }
}

/// Adds the keys, removes them in another order, and checks the list and an older copy of it on the way.
fn check_keys(keys: &[u64]) {
    let (mut kids, mut expected) = (Kids::default(), BTreeMap::new());
    let mut older = (kids.clone(), expected.clone());
    let add = keys.iter().map(|&key| (key, true));
    let remove = keys.iter().rev().step_by(2).chain(keys.iter().rev().skip(1).step_by(2));
    for (step, (key, adds)) in add.chain(remove.map(|&key| (key, false))).enumerate() {
        if adds {
            assert!(kids.get(key).is_none() && kids.get_mut(key).is_none() && kids.remove(key).is_none());
            kids.insert(key, node(step as u32));
            expected.insert(key, step as u32);
        } else {
            assert_eq!(kids.remove(key).map(|node| node.id), expected.remove(&key));
        }
        if step % 37 == 0 || keys.len() < 50 {
            check(&kids, &expected);
            check(&older.0, &older.1);
            older = (kids.clone(), expected.clone());
        }
    }
    assert!(kids.is_empty());
}

#[test]
fn any_keys_are_found_until_removed() {
    check_keys(&(0..2000).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>());
}

#[test]
fn keys_that_differ_only_in_their_last_bits_fill_the_deepest_fans() {
    check_keys(&(0..16).map(|i| i << 60 | 5).collect::<Vec<_>>());
    check_keys(&(0..40).map(|i| i << 55 | 5).collect::<Vec<_>>());
}

#[test]
fn only_the_last_owner_takes_the_children() {
    let mut kids = Kids::default();
    for key in 0..100 {
        kids.insert(key, node(key as u32));
    }
    let mut copy = kids.clone();
    let mut dying = Vec::new();
    copy.take_into(&mut dying);
    assert!(copy.is_empty() && dying.is_empty());
    kids.take_into(&mut dying);
    assert!(kids.is_empty() && dying.len() == 100);
    assert!(dying.iter().all(|node| Arc::strong_count(node) == 1));
}
