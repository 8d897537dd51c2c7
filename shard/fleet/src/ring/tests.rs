//! Rings against the reference vectors of other routers, and against rings built in one go.

use super::*;

fn member(index: u32, url: &str) -> RingMember<'_> {
    RingMember { index, url, weight: 1.0 }
}

/// Vectors of uhashring 2.3 with these three URLs.
#[test]
fn sessions_go_where_uhashring_sends_them() {
    let urls = ["http://127.0.0.1:19101", "http://127.0.0.1:19102", "http://127.0.0.1:19103"];
    let members: Vec<_> = (0..).zip(urls).map(|(index, url)| member(index, url)).collect();
    let ring = Ring::new(Layout::Uhashring).changed(&[], &members);
    assert_eq!(ring.points(), 480);
    for (session, expected) in [("alice", 0), ("bob", 2), ("carol", 2), ("dave", 0), ("erin", 1)] {
        let key = ring.layout().key(session.as_bytes());
        assert_eq!(ring.clockwise(key).next(), Some(expected), "{session}");
    }
}

#[test]
fn an_empty_ring_has_nobody() {
    assert_eq!(Ring::new(Layout::Sglang).clockwise(5).next(), None);
}

#[test]
fn the_walk_goes_round() {
    let urls: Vec<String> = (0..5).map(|n| format!("http://w{n}")).collect();
    let members: Vec<_> = (0..).zip(&urls).map(|(index, url)| member(index, url)).collect();
    let ring = Ring::new(Layout::Sglang).changed(&[], &members);
    let walk: Vec<u32> = ring.clockwise(u64::MAX - 1).take(2 * ring.points()).collect();
    let (first, second) = walk.split_at(ring.points());
    assert_eq!(first, second);
    assert!((0..5).all(|worker| first.iter().filter(|&&index| index == worker).count() == 150));
}

/// Changes in any order lead to the ring built in one go, also over a cut into more arcs; keys of those who stay
/// move to newcomers only.
#[test]
fn changes_agree_with_a_fresh_ring() {
    let urls: Vec<String> = (0..120).map(|n| format!("http://10.0.0.{n}:8000")).collect();
    let weight = |index: u32| [1.0, 0.5, 2.0][index as usize % 3];
    let of = |index: u32| RingMember { index, url: &urls[index as usize], weight: weight(index) };
    let mut ring = Ring::new(Layout::Sglang);
    let mut present: Vec<u32> = Vec::new();
    let mut draw: u64 = 42;
    for step in 0..300 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (draw >> 33) as u32 % 120;
        if let Some(at) = present.iter().position(|&other| other == index) {
            present.swap_remove(at);
            ring = ring.changed(&[of(index)], &[]);
        } else {
            present.push(index);
            ring = ring.changed(&[], &[of(index)]);
        }
        if step % 25 == 24 {
            let members: Vec<_> = present.iter().map(|&index| of(index)).collect();
            let fresh = Ring::new(Layout::Sglang).changed(&[], &members);
            assert_eq!(ring.points(), fresh.points());
            for key in (0..500u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let naive = members
                    .iter()
                    .flat_map(|member| fresh.points_of(member))
                    .min_by_key(|point| point.at.wrapping_sub(key).wrapping_sub(1));
                assert_eq!(ring.clockwise(key).next(), naive.map(|point| point.worker));
                assert_eq!(ring.clockwise(key).next(), fresh.clockwise(key).next());
            }
        }
    }
}
