//! What must hold after every step, and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet::breaker::Circuit;
use fleet::cell::Counter;
use fleet::id::WorkerId;
use fleet::snapshot::Worker;

use super::Simulation;
use super::book::Seen;
use super::flight::Phase;
use crate::control::pace::ejected_max;

/// Rounds within which everything is as before the faults.
const ROUNDS_MAX: u32 = 3_000;
const ROUND: Duration = Duration::from_millis(100);

impl Simulation {
    pub(super) fn check(&mut self) {
        self.book.check_breakers(&self.rig.snapshot);
        self.check_gate();
        self.check_loads();
        self.check_ejections();
    }

    /// Never too many are kept out for being slow, whoever else has failed.
    fn check_ejections(&mut self) {
        let up = || self.rig.state.registry.registered().filter(|entry| entry.is_up());
        let ejected = up().filter(|entry| entry.pacing.ejected().is_some()).count();
        assert!(ejected <= ejected_max(up().count()), "{ejected} of {} are ejected", up().count());
    }

    /// What is in flight is what has a permit, and never more than may be.
    fn check_gate(&mut self) {
        let mut held = BTreeMap::new();
        for flight in self.flights.values_mut() {
            flight.poll();
            let has_permit = flight.permit.is_some()
                || matches!(flight.verdict, Some(fleet::admission::Verdict::Admitted { .. }));
            *held.entry(flight.class).or_insert(0) += u64::from(has_permit);
        }
        let rules = self.gate.rules();
        assert!(held.values().sum::<u64>() <= u64::from(rules.in_flight_max), "more than the cap");
        if rules.classes.len() > 1 {
            for class in rules.class_ids() {
                let expected = held.get(&class).copied().unwrap_or(0);
                assert_eq!(self.gate.in_flight(class), expected, "permits of {class:?}");
            }
        } else {
            let expected = held.values().sum::<u64>();
            assert_eq!(self.gate.in_flight(rules.default_class), expected, "permits");
        }
    }

    fn check_loads(&self) {
        let mut loads: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for flight in self.flights.values().filter(|flight| flight.counts) {
            let id = flight.hold.as_ref().expect("it counts").worker().id;
            *loads.entry(id).or_default() += 1;
        }
        for worker in (0..self.rig.snapshot.fleet.workers.index_end())
            .filter_map(|index| self.rig.snapshot.fleet.workers.get(index))
        {
            let expected = loads.get(&worker.id).copied().unwrap_or(0);
            assert_eq!(worker.cells.load(), expected, "load of {:?}", worker.id);
        }
    }

    /// Everything is as before the faults.
    fn is_healed(&self) -> bool {
        let members = self.rig.members();
        members.len() == self.engines.len()
            && members.iter().all(|worker| {
                (worker.weight.ratio() - 1.0).abs() < 1e-9
                    && worker.cells.breaker().circuit() == Circuit::Closed
            })
    }

    /// Faults end: with some requests and some time everything must be as before.
    pub(super) fn finish(&mut self) -> Seen {
        self.engines.heal();
        self.is_healing = true;
        for _ in 0..ROUNDS_MAX {
            // What was sent during the faults may still fail.
            let is_healed = self.is_healed();
            if is_healed && self.flights.is_empty() && self.shards.iter().all(|shard| shard.full.is_empty()) {
                break;
            }
            if !is_healed {
                self.arrive();
                self.arrive();
            }
            self.pass(ROUND);
            self.check();
        }
        let stand = |worker: &&Arc<Worker>| {
            let cells = &worker.cells;
            format!(
                "{} has {} of its share, {:?}",
                worker.url,
                worker.weight.ratio(),
                cells.breaker().circuit()
            )
        };
        let members: Vec<String> = self.rig.members().iter().map(stand).collect();
        assert!(self.is_healed(), "under {} the fleet is not as before: {members:?}", self.policy());
        assert!(self.flights.is_empty() && self.book.all_ended(), "requests without an end");
        for class in self.gate.rules().class_ids() {
            assert_eq!((self.gate.in_flight(class), self.gate.depth(class)), (0, 0), "{class:?}");
        }
        for pool in &self.rig.snapshot.fleet.pools {
            assert_eq!(pool.board.total(), 0, "something is left on the board");
            for &index in &*pool.members {
                assert_eq!(pool.board.cost(index), Some(0), "worker {index} counts as full");
            }
        }
        self.check_whole_service();
        let ejections: u64 = self.rig.state.stats().ejections_total.iter().map(Counter::get).sum();
        *self.book.seen.entry("ejected").or_default() += ejections;
        std::mem::take(&mut self.book.seen)
    }

    fn policy(&self) -> &'static str {
        self.rig.snapshot.fleet.pools.first().map_or("", |pool| pool.policy.name())
    }

    /// Without faults no request fails.
    fn check_whole_service(&mut self) {
        let before = self.book.seen.clone();
        for shard in &mut self.shards {
            shard.snapshot = self.rig.snapshot.clone();
        }
        let count = self.engines.len() as u64;
        for _ in 0..count {
            self.arrive();
            while self.flights.values().any(|flight| !matches!(flight.phase, Phase::Ended)) {
                self.pass(ROUND);
            }
        }
        let complete = |seen: &Seen| seen.get("complete").copied().unwrap_or(0);
        assert_eq!(complete(&self.book.seen) - complete(&before), count, "a request failed without a fault");
        assert!(self.book.requests() >= count);
    }
}
