//! Workers in trouble: whose circuit breaker keeps requests away, and how one that is back gets its share again.
//!
//! Shards move a breaker and tell; the word in the worker's cells is the truth, so a report that is lost or late is made
//! up for by a look at all of them once in a while.

use std::time::Duration;

use fleet::breaker::Circuit;
use fleet::id::WorkerId;
use tracing::info;

use super::State;
use crate::control::stats::Health;
use crate::control::worker::Entry;
use crate::control::worker::FULL_SHARE;
use crate::control::worker::Recovery;

/// Shares that a recovering worker gets one after the other, in eighths, before it gets all.
const RAMP: [u16; 3] = [1, 2, 4];

impl State {
    /// The breaker of a worker may have moved: takes the worker out of the pools, or back in.
    pub(super) fn circuit_moved(&mut self, id: WorkerId, now: Duration) {
        let Some(rules) = self.config.breaker else { return };
        let Some(entry) = self.registry.get_mut(id) else { return };
        if entry.health() == Health::Draining {
            return;
        }
        let breaker = entry.cells.breaker();
        let (circuit, open_until_ms) = (breaker.circuit(), breaker.open_until_ms(&rules));
        let was_tripped = std::mem::replace(&mut entry.is_tripped, circuit == Circuit::Open);
        if circuit != Circuit::Closed {
            entry.recovery = Recovery::Awaited;
            let has_changed = entry.set_share(RAMP[0]);
            self.registry.schedule_circuit(id, open_until_ms.map(Duration::from_millis));
            if has_changed {
                self.touch(id);
            }
        } else if entry.recovery == Recovery::Awaited {
            self.recover(id, now);
        }
        if was_tripped != (circuit == Circuit::Open) {
            self.touch(id);
            self.watch_load(id, now);
            self.make_up_for_loss(now);
        }
    }

    /// The time of a breaker or a ramp has come.
    pub(super) fn circuit_due(&mut self, id: WorkerId, now: Duration) {
        let Some(rules) = self.config.breaker else { return self.ramp(id, now) };
        let Some(entry) = self.registry.get(id) else { return };
        if entry.cells.breaker().circuit() == Circuit::Closed {
            return self.ramp(id, now);
        }
        if let Some(moved) = entry.cells.breaker().tick(now.as_millis() as u64, &rules) {
            entry.cells.outcomes().count_transition(moved);
            info!(worker = %entry.spec.url.text, "circuit breaker half-open: some requests try the worker");
        }
        self.circuit_moved(id, now);
    }

    /// A worker gets requests again after trouble: little at first.
    pub(super) fn recover(&mut self, id: WorkerId, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        // Its health alone brings nobody back: the breaker has the last word.
        if entry.cells.breaker().circuit() != Circuit::Closed {
            return;
        }
        entry.recovery = Recovery::Since(now);
        self.ramp(id, now);
    }

    /// Gives a recovering worker the share that its time allows.
    fn ramp(&mut self, id: WorkerId, now: Duration) {
        let ramp = self.config.recovery_ramp;
        let Some(entry) = self.registry.get_mut(id) else { return };
        let Recovery::Since(since) = entry.recovery else { return };
        let step = ramp / RAMP.len() as u32;
        let steps =
            if step.is_zero() { RAMP.len() } else { ((now - since).as_nanos() / step.as_nanos()) as usize };
        let share = RAMP.get(steps).copied();
        if share.is_none() {
            entry.recovery = Recovery::Over;
        }
        let has_changed = entry.set_share(share.unwrap_or(FULL_SHARE));
        self.registry.schedule_circuit(id, share.map(|_| since + step * (steps as u32 + 1)));
        if has_changed {
            self.touch(id);
        }
    }

    /// Looks at every breaker, for reports that were lost.
    pub(super) fn look_at_circuits(&mut self, now: Duration) {
        if self.config.breaker.is_none() {
            return;
        }
        let is_missed = |entry: &&Entry| {
            let circuit = entry.cells.breaker().circuit();
            let is_awaited = entry.recovery == Recovery::Awaited;
            entry.is_tripped != (circuit == Circuit::Open) || (is_awaited && circuit == Circuit::Closed)
        };
        let missed: Vec<WorkerId> =
            self.registry.registered().filter(is_missed).map(|entry| entry.id).collect();
        for id in missed {
            self.circuit_moved(id, now);
        }
    }
}
