//! Measures what admission costs a request: `cargo run --release -p fleet --example admission_speed`.
//!
//! The fast path is one compare-and-swap in and one subtraction out; with several threads it is the price of one cache
//! line that they pass around. The queued path goes through the arbiter, with so many others waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use fleet::admission::Claim;
use fleet::admission::ClassId;
use fleet::admission::Entry;
use fleet::admission::Gate;
use fleet::admission::GateRules;
use fleet::admission::Permit;
use fleet::admission::TenantId;
use fleet::admission::Ticket;
use fleet::admission::Verdict;

const ROUNDS: u32 = 5_000_000;
const QUEUED_ROUNDS: u64 = 200_000;

fn main() {
    let wait = Duration::from_secs(60);
    let plain = || Gate::new(GateRules::plain(1_000, 100, wait));
    println!("at once, one class:            {:6.1} ns", at_once(&plain()));
    println!("at once, four classes:         {:6.1} ns", at_once(&Gate::new(GateRules::by_priority(1_000))));
    let starts_per_s = NonZeroU32::new(100_000);
    let paced = Gate::new(GateRules { starts_per_s, ..GateRules::plain(1 << 24, 0, wait) });
    println!("at once, starts limited:       {:6.1} ns", at_once(&paced));
    for threads in [2, 4] {
        let gate = plain();
        let each: Vec<f64> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| at_once(&gate))).collect();
            running.into_iter().filter_map(|one| one.join().ok()).collect()
        });
        println!(
            "at once, {threads} threads:            {:6.1} ns",
            each.iter().sum::<f64>() / threads as f64
        );
    }
    for waiting in [1_usize, 100, 1_000] {
        println!("queued, {waiting:5} of one tenant:   {:6.0} ns", queued(waiting, 1));
        println!("queued, {waiting:5} of many tenants: {:6.0} ns", queued(waiting, waiting as u64));
    }
    println!("refused by a full queue of 100: {:5.0} ns", refused());
}

/// In and out again: the best of three.
fn at_once(gate: &Gate) -> f64 {
    (0..3).map(|run| once(gate, run * ROUNDS)).fold(f64::INFINITY, f64::min)
}

fn once(gate: &Gate, first: u32) -> f64 {
    let claim = || Claim { tenant: TenantId(1), tokens: 100 };
    let begun = Instant::now();
    for round in first..first + ROUNDS {
        let Entry::Admitted(permit) = gate.enter(ClassId(0), black_box(u64::from(round) * 100), claim) else {
            continue;
        };
        black_box(gate.release(permit, Some(100)));
    }
    begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
}

/// The permit, if it has come.
fn permit_of(ticket: &mut Ticket) -> Option<Permit> {
    match Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Verdict::Admitted { permit, .. }) => Some(permit),
        Poll::Ready(Verdict::Refused) | Poll::Pending => None,
    }
}

/// One comes and waits behind the others, one ends, and whoever is next goes on: what a request that waits costs.
fn queued(waiting: usize, tenants: u64) -> f64 {
    let gate = Gate::new(GateRules::plain(1, waiting as u32 + 1, Duration::from_secs(60)));
    let enter =
        |number: u64| gate.enter(ClassId(0), 0, || Claim { tenant: TenantId(number % tenants), tokens: 100 });
    let Entry::Admitted(mut permit) = enter(0) else { return f64::NAN };
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    let mut spent = Duration::ZERO;
    for number in 0..QUEUED_ROUNDS {
        let begun = Instant::now();
        if let Entry::Queued(ticket) = enter(number) {
            tickets.push_back(ticket);
        }
        if tickets.len() <= waiting {
            continue;
        }
        if gate.release(permit, Some(100)) {
            gate.pump(0);
        }
        spent += begun.elapsed();
        // Tenants take turns in the order in which they came, so the first is next.
        let Some(mut ticket) = tickets.pop_front() else { return f64::NAN };
        match permit_of(&mut ticket) {
            Some(next) => permit = next,
            None => return f64::NAN,
        }
    }
    spent.as_nanos() as f64 / (QUEUED_ROUNDS - waiting as u64) as f64
}

/// One comes to a queue that is full.
fn refused() -> f64 {
    let gate = Gate::new(GateRules::plain(1, 100, Duration::from_secs(60)));
    let enter = || gate.enter(ClassId(0), 0, || Claim { tenant: TenantId(1), tokens: 100 });
    let held: Vec<Entry> = (0..101).map(|_| enter()).collect();
    let begun = Instant::now();
    for _ in 0..QUEUED_ROUNDS {
        black_box(enter());
    }
    let spent = begun.elapsed();
    drop(held);
    spent.as_nanos() as f64 / QUEUED_ROUNDS as f64
}
