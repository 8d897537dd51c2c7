//! The gate on one thread: what each call leads to.

mod fairness;
mod model;
mod threads;

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;

const ONLY: ClassId = ClassId(0);
const SYSTEM: ClassId = ClassId(0);
const BULK: ClassId = ClassId(3);

fn plain(in_flight_max: u32, queue_max: u32) -> Gate {
    Gate::new(GateRules::plain(in_flight_max, queue_max, Duration::from_secs(60)))
}

fn claim(tenant: u64, tokens: u32) -> Claim {
    Claim { tenant: TenantId(tenant), tokens }
}

fn enter(gate: &Gate, class: ClassId, tenant: u64) -> Entry {
    gate.enter(class, 0, || claim(tenant, 1))
}

#[track_caller]
fn admitted(entry: Entry) -> Permit {
    match entry {
        Entry::Admitted(permit) => permit,
        other => unreachable!("admitted at once: {other:?}"),
    }
}

#[track_caller]
fn queued(entry: Entry) -> Ticket {
    match entry {
        Entry::Queued(ticket) => ticket,
        other => unreachable!("queued: {other:?}"),
    }
}

/// What has come of a wait, if anything has.
fn verdict(ticket: &mut Ticket) -> Option<Verdict> {
    ticket.verdict.try_recv().ok().flatten()
}

#[track_caller]
fn granted(ticket: &mut Ticket) -> Permit {
    match verdict(ticket) {
        Some(Verdict::Admitted { permit, .. }) => permit,
        other => unreachable!("admitted after a wait: {other:?}"),
    }
}

fn release(gate: &Gate, permit: Permit) {
    if gate.release(permit, None) {
        gate.pump(0);
    }
}

fn leave(gate: &Gate, ticket: Ticket) {
    if gate.leave(ticket) {
        gate.pump(0);
    }
}

/// Nobody is in flight and nobody waits, by every count.
#[track_caller]
fn assert_empty(gate: &Gate) {
    // Who was broken off for somebody who has left counts as ended when the arbiter looks next.
    gate.pump(u64::MAX >> 20);
    assert_eq!(gate.try_desk().expect("nobody is at it").ending, [0; CLASSES_MAX]);
    let counts = gate.word.load();
    assert_eq!(gate.word.waiting(counts), 0);
    for class in gate.rules().class_ids() {
        assert_eq!((gate.in_flight(class), gate.depth(class)), (0, 0));
    }
    assert!(gate.news.1.is_empty());
}

#[test]
fn permits_end_at_the_cap_and_pass_on_in_order() {
    let gate = plain(2, 10);
    let first = admitted(enter(&gate, ONLY, 1));
    let second = admitted(enter(&gate, ONLY, 1));
    let mut third = queued(enter(&gate, ONLY, 1));
    let mut fourth = queued(enter(&gate, ONLY, 1));
    assert_eq!((gate.in_flight(ONLY), gate.depth(ONLY)), (2, 2));
    assert!(verdict(&mut third).is_none());
    release(&gate, first);
    let third = granted(&mut third);
    assert!(verdict(&mut fourth).is_none());
    release(&gate, second);
    let fourth = granted(&mut fourth);
    assert_eq!((gate.in_flight(ONLY), gate.depth(ONLY)), (2, 0));
    release(&gate, third);
    release(&gate, fourth);
    assert_empty(&gate);
}

#[test]
fn without_a_queue_the_next_one_is_refused() {
    let gate = plain(1, 0);
    let permit = admitted(enter(&gate, ONLY, 1));
    assert!(matches!(enter(&gate, ONLY, 1), Entry::Full));
    release(&gate, permit);
    release(&gate, admitted(enter(&gate, ONLY, 1)));
    assert_empty(&gate);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let gate = plain(1, 2);
    let permit = admitted(enter(&gate, ONLY, 1));
    let (mut first, second) = (queued(enter(&gate, ONLY, 1)), queued(enter(&gate, ONLY, 1)));
    let mut third = queued(enter(&gate, ONLY, 1));
    assert!(matches!(verdict(&mut third), Some(Verdict::Refused)));
    assert_eq!(gate.depth(ONLY), 2);
    leave(&gate, second);
    let mut fourth = queued(enter(&gate, ONLY, 1));
    assert!(verdict(&mut fourth).is_none(), "a place that was left is free");
    release(&gate, permit);
    release(&gate, granted(&mut first));
    release(&gate, granted(&mut fourth));
    assert_empty(&gate);
}

#[test]
fn who_leaves_gives_back_what_came_meanwhile() {
    let gate = plain(1, 2);
    let permit = admitted(enter(&gate, ONLY, 1));
    let (first, mut second) = (queued(enter(&gate, ONLY, 1)), queued(enter(&gate, ONLY, 1)));
    release(&gate, permit);
    // The first has been admitted and does not know it yet.
    leave(&gate, first);
    release(&gate, granted(&mut second));
    assert_empty(&gate);
}

#[test]
fn who_is_gone_is_passed_over_before_the_word_comes() {
    let gate = plain(1, 2);
    let permit = admitted(enter(&gate, ONLY, 1));
    let (mut first, mut second) = (queued(enter(&gate, ONLY, 1)), queued(enter(&gate, ONLY, 1)));
    first.verdict.close();
    release(&gate, permit);
    let permit = granted(&mut second);
    assert_eq!(gate.word.waiting(gate.word.load()), 1, "counted until the word comes");
    leave(&gate, first);
    release(&gate, permit);
    assert_empty(&gate);
}

#[test]
fn the_last_of_the_largest_holder_gives_way() {
    let gate = plain(1, 4);
    let permit = admitted(enter(&gate, ONLY, 1));
    let mut flood: Vec<Ticket> = (0..4).map(|_| queued(enter(&gate, ONLY, 1))).collect();
    let mut other = queued(enter(&gate, ONLY, 2));
    let mut again = queued(enter(&gate, ONLY, 2));
    let mut too_many = queued(enter(&gate, ONLY, 2));
    assert!(matches!(verdict(&mut flood[3]), Some(Verdict::Refused)));
    assert!(matches!(verdict(&mut flood[2]), Some(Verdict::Refused)));
    assert!(verdict(&mut other).is_none() && verdict(&mut again).is_none());
    assert!(matches!(verdict(&mut too_many), Some(Verdict::Refused)), "two each are even");
    assert_eq!(gate.depth(ONLY), 4);
    for ticket in flood.drain(..2).chain([other, again]) {
        leave(&gate, ticket);
    }
    release(&gate, permit);
    assert_empty(&gate);
}

#[test]
fn classes_go_in_order_and_reserves_are_kept() {
    // Of eight places four are kept: one for system, three for interactive.
    let gate = Gate::new(GateRules::by_priority(8));
    let reserves: Vec<u32> = gate.rules().classes.iter().map(|class| class.reserve).collect();
    assert_eq!(reserves, [0, 3, 0, 0]);
    let mut bulk: Vec<Permit> = (0..5).map(|_| admitted(enter(&gate, BULK, 1))).collect();
    let mut waiting = queued(enter(&gate, BULK, 1));
    let mut system = queued(enter(&gate, SYSTEM, 1));
    let mut interactive: Vec<Ticket> = (0..4).map(|_| queued(enter(&gate, ClassId(1), 1))).collect();
    // Somebody waits, and still the reserve is served.
    let held: Vec<Permit> = interactive.drain(..3).map(|mut ticket| granted(&mut ticket)).collect();
    assert!(verdict(&mut system).is_none() && verdict(&mut interactive[0]).is_none());
    release(&gate, bulk.remove(0));
    let system = granted(&mut system);
    release(&gate, bulk.remove(0));
    let fourth = granted(&mut interactive[0]);
    assert!(verdict(&mut waiting).is_none());
    release(&gate, system);
    let last = granted(&mut waiting);
    for permit in held.into_iter().chain(bulk).chain([fourth, last]) {
        release(&gate, permit);
    }
    assert_empty(&gate);
}

#[test]
fn who_starves_goes_before_a_higher_class_now_and_then() {
    let gate = Gate::new(GateRules::by_priority(1));
    let mut permit = admitted(enter(&gate, SYSTEM, 1));
    let mut bulk = queued(enter(&gate, BULK, 1));
    let after_us = 121_000_000;
    let mut before = 0;
    loop {
        let mut system = queued(gate.enter(SYSTEM, after_us, || claim(1, 1)));
        assert!(gate.release(permit, None));
        gate.pump(after_us);
        match verdict(&mut bulk) {
            Some(Verdict::Admitted { permit, is_promoted }) => {
                assert!(is_promoted && before < arbiter::PROMOTION_EVERY);
                leave(&gate, system);
                release(&gate, permit);
                break;
            }
            _ => permit = granted(&mut system),
        }
        before += 1;
    }
    assert_empty(&gate);
}

#[test]
fn starts_wait_for_their_time() {
    let rules =
        GateRules { starts_per_s: NonZeroU32::new(10), ..GateRules::plain(2, 5, Duration::from_secs(60)) };
    let gate = Gate::new(rules);
    for _ in 0..2 {
        release(&gate, admitted(enter(&gate, ONLY, 1)));
    }
    let (mut first, mut second) = (queued(enter(&gate, ONLY, 1)), queued(enter(&gate, ONLY, 1)));
    assert_eq!((gate.in_flight(ONLY), gate.due_us()), (0, Some(100_000)));
    gate.pump(99_999);
    assert!(verdict(&mut first).is_none());
    gate.pump(100_000);
    let permit = granted(&mut first);
    assert!(verdict(&mut second).is_none());
    assert_eq!(gate.due_us(), Some(200_000));
    gate.pump(200_000);
    let other = granted(&mut second);
    assert_eq!(gate.due_us(), None);
    release(&gate, permit);
    release(&gate, other);
    assert_empty(&gate);
}

#[test]
fn a_refused_client_is_told_when_the_queue_has_moved() {
    // An hour in which nobody waits says nothing of the pace.
    const HOUR_US: u64 = 3_600_000_000;
    let gate = plain(1, 40);
    let enter = || gate.enter(ONLY, HOUR_US, || claim(1, 1));
    let mut permit = admitted(enter());
    let mut tickets: Vec<Ticket> = (0..30).map(|_| queued(enter())).collect();
    assert_eq!(gate.retry_after_s(), 1);
    // Two in a second, and 28 wait.
    for after_us in [400_000, 1_000_000] {
        assert!(gate.release(permit, None));
        gate.pump(HOUR_US + after_us);
        permit = granted(&mut tickets.remove(0));
    }
    assert_eq!(gate.retry_after_s(), 14);
    tickets.into_iter().for_each(|ticket| leave(&gate, ticket));
    release(&gate, permit);
    assert_empty(&gate);
}
