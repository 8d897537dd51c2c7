//! The gate under real threads: never too many in flight, and everybody is told in the end.

use std::hint;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const THREADS: u64 = 4;
const STEPS: u32 = 40_000;
/// A wake-up that was lost would be waited for until here.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// What one thread has, as a shard would: requests in flight and requests that wait.
struct Shard<'a> {
    gate: &'a Gate,
    in_flight: &'a AtomicU32,
    cap: u32,
    clock: Instant,
    permits: Vec<Permit>,
    tickets: Vec<Ticket>,
    told: u64,
    broken_off: u64,
}

impl Shard<'_> {
    fn now_us(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }

    fn begin(&mut self, permit: Permit) {
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        assert!(before < self.cap, "{before} were in flight already");
        self.permits.push(permit);
    }

    fn enter(&mut self, class: ClassId, tenant: u64) {
        match self.gate.enter(class, self.now_us(), || claim(tenant, 10)) {
            Entry::Admitted(permit) => self.begin(permit),
            Entry::Queued(ticket) => self.tickets.push(ticket),
            Entry::Full => {}
        }
    }

    /// Ends the oldest request in flight.
    fn end(&mut self) {
        if !self.permits.is_empty() {
            let permit = self.permits.remove(0);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            if self.gate.release(permit, Some(5)) {
                self.gate.pump(self.now_us());
            }
        }
    }

    /// Has the newest request in flight begin its answer, or end if it was broken off.
    fn begin_answer(&mut self) {
        let Some(permit) = self.permits.pop() else { return };
        if permit.stake().is_none_or(|stake| self.gate.begin_answer(stake)) {
            self.permits.push(permit);
            return;
        }
        self.broken_off += 1;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(self.gate.release(permit, Some(0)), "who was broken off is waited for");
        self.gate.pump(self.now_us());
    }

    fn leave(&mut self, at: usize) {
        if at < self.tickets.len() {
            let ticket = self.tickets.swap_remove(at);
            if self.gate.leave(ticket) {
                self.gate.pump(self.now_us());
            }
        }
    }

    /// Looks whether anybody who waits was told. It does not pump: others must have seen to that.
    fn look(&mut self) {
        for at in (0..self.tickets.len()).rev() {
            let Some(verdict) = verdict(&mut self.tickets[at]) else { continue };
            drop(self.tickets.swap_remove(at));
            self.told += 1;
            if let Verdict::Admitted { permit, .. } = verdict {
                self.begin(permit);
            }
        }
    }
}

fn run(rules: &GateRules) {
    let gate = Gate::new(rules.clone());
    let in_flight = AtomicU32::new(0);
    let clock = Instant::now();
    let (told, broken_off) = thread::scope(|scope| {
        let shard = |seed: u64| {
            let (gate, in_flight) = (&gate, &in_flight);
            scope.spawn(move || {
                let (permits, tickets) = (Vec::new(), Vec::new());
                let cap = gate.rules().in_flight_max;
                let mut shard =
                    Shard { gate, in_flight, cap, clock, permits, tickets, told: 0, broken_off: 0 };
                let mut rng = SmallRng::seed_from_u64(seed);
                let classes = gate.rules().classes.len() as u8;
                for _ in 0..STEPS {
                    match rng.random_range(0..9) {
                        0..3 => shard.enter(ClassId(rng.random_range(0..classes)), rng.random_range(0..5)),
                        3..6 => shard.end(),
                        6 => shard.leave(rng.random_range(0..16)),
                        7 => shard.begin_answer(),
                        _ => shard.look(),
                    }
                }
                while !shard.tickets.is_empty() {
                    shard.end();
                    shard.look();
                    assert!(clock.elapsed() < GIVEN_UP_AFTER, "{} are never told", shard.tickets.len());
                    thread::yield_now();
                }
                while !shard.permits.is_empty() {
                    shard.end();
                }
                (shard.told, shard.broken_off)
            })
        };
        let shards: Vec<_> = (0..THREADS).map(shard).collect();
        let told = shards.into_iter().map(|shard| shard.join().expect("no assertion failed"));
        told.fold((0, 0), |(told, broken), (one, other)| (told + one, broken + other))
    });
    assert_empty(&gate);
    assert_eq!(in_flight.load(Ordering::SeqCst), 0);
    assert!(told > 0, "some waited");
    assert_eq!(broken_off > 0, rules.preempting() > 0, "{broken_off}");
}

#[test]
fn one_place() {
    run(&GateRules::plain(1, 20, Duration::from_secs(1)));
}

#[test]
fn a_few_places_and_a_short_queue() {
    run(&GateRules::plain(3, 2, Duration::from_secs(1)));
}

#[test]
fn many_places() {
    run(&GateRules::plain(16, 100, Duration::from_secs(1)));
}

#[test]
fn four_classes() {
    run(&GateRules::by_priority(5));
}

/// Both have passed when it is at twice the round.
fn meet(meeting: &AtomicU32, round: u32) {
    meeting.fetch_add(1, Ordering::SeqCst);
    let (begun, mut spins) = (Instant::now(), 0_u32);
    while meeting.load(Ordering::SeqCst) < 2 * round {
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(1_000) {
            assert!(begun.elapsed() < GIVEN_UP_AFTER, "the other thread has failed");
            thread::yield_now();
        }
        hint::spin_loop();
    }
}

/// One ends while another comes, again and again, and nothing else happens that could make up for a lost wake-up: when
/// both are done, the one that came has been admitted.
#[test]
fn an_end_beside_an_arrival_is_never_missed() {
    const ROUNDS: u32 = 30_000;
    let gate = plain(1, 5);
    let (begin, end) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = SmallRng::seed_from_u64(1);
            for round in 1..=ROUNDS {
                let permit = admitted(enter(&gate, ONLY, 1));
                meet(&begin, 2 * round - 1);
                for _ in 0..rng.random_range(0..400) {
                    hint::spin_loop();
                }
                release(&gate, permit);
                meet(&end, 2 * round - 1);
                // The other gives its permit back.
                meet(&end, 2 * round);
                meet(&begin, 2 * round);
            }
        });
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                meet(&begin, 2 * round - 1);
                let entry = enter(&gate, ONLY, 1);
                meet(&end, 2 * round - 1);
                match entry {
                    Entry::Queued(mut ticket) => release(&gate, granted(&mut ticket)),
                    entry => release(&gate, admitted(entry)),
                }
                meet(&end, 2 * round);
                meet(&begin, 2 * round);
            }
        });
    });
    assert_empty(&gate);
}
