//! Slow workers: they get no requests for a while, and then step by step their share again.
//!
//! Invariants
//! - Of a pool's workers that could get requests, never more than [`ejected_max`] are ejected: whoever leaves, fails or
//!   is lost makes room by bringing an ejected one back.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::id::WorkerId;
use fleet::snapshot::PoolName;
use tracing::info;
use tracing::warn;

use super::State;
use crate::control::pace::Reading;
use crate::control::pace::Slow;
use crate::control::pace::ejected_max;
use crate::control::pace::judge;
use crate::control::worker::Entry;

impl State {
    /// Compares the workers of each pool, and says when to do so next; none when nobody is compared.
    pub(super) fn compare_paces(&mut self, now: Duration) -> Option<Duration> {
        let is_over = |entry: &&Entry| entry.pacing.ejected().is_some_and(|ejected| ejected.until <= now);
        let over: Vec<WorkerId> = self.registry.registered().filter(is_over).map(|entry| entry.id).collect();
        over.into_iter().for_each(|id| self.readmit(id, now));
        let Some(rules) = self.config.pace else {
            self.readmit_beyond(now, |_| 0);
            return None;
        };
        for peers in self.peers() {
            let mut fresh = Vec::new();
            for &id in &peers {
                let Some(entry) = self.registry.get_mut(id).filter(|entry| entry.is_routable()) else {
                    continue;
                };
                if entry.pacing.measure(entry.cells.pace().read(), now, &rules) {
                    fresh.push(id);
                }
            }
            self.compare(&peers, &fresh, rules.factor, now);
        }
        Some(now + rules.window)
    }

    /// Judges those of one pool's workers that were measured, and ejects the slowest as far as may be.
    fn compare(&mut self, peers: &[WorkerId], fresh: &[WorkerId], factor: f64, now: Duration) {
        let routable =
            peers.iter().filter_map(|&id| self.registry.get(id)).filter(|entry| entry.is_routable());
        let readings: Vec<Reading> = routable.filter_map(|entry| entry.pacing.reading().copied()).collect();
        let mut slow: Vec<(WorkerId, Slow)> = Vec::new();
        for &id in fresh {
            let Some(entry) = self.registry.get_mut(id) else { continue };
            let verdict = entry.pacing.reading().and_then(|reading| judge(reading, &readings, factor));
            if entry.pacing.judged(verdict.as_ref())
                && let Some(verdict) = verdict
            {
                slow.push((id, verdict));
            }
        }
        slow.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.mean));
        for (id, slow) in slow {
            let (routable, ejected) = self.standing(peers);
            if ejected < ejected_max(routable + ejected) {
                self.eject(id, &slow, readings.len(), now);
            }
        }
    }

    fn eject(&mut self, id: WorkerId, slow: &Slow, compared: usize, now: Duration) {
        let (Some(rules), Some(entry)) = (self.config.pace, self.registry.get_mut(id)) else { return };
        let time = entry.pacing.eject(slow.measure, now, &rules);
        warn!(
            worker = %entry.spec.url.text,
            model = entry.model(),
            measure = slow.measure.name(),
            mean_ms = slow.mean.as_millis() as u64,
            median_ms = slow.median.as_millis() as u64,
            compared,
            "worker ejected for {} s: it is slow beside the others of its model",
            time.as_secs()
        );
        self.stats.ejections_total[slow.measure as usize].add(1);
        self.stats.workers_ejected.add(1);
        self.touch(id);
        self.watch_load(id, now);
    }

    /// A worker gets requests again, little at first.
    fn readmit(&mut self, id: WorkerId, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        entry.pacing.readmit(entry.cells.pace().read(), now);
        info!(worker = %entry.spec.url.text, "ejected worker is back");
        self.stats.workers_ejected.sub(1);
        self.recover(id, now);
        self.touch(id);
        self.watch_load(id, now);
    }

    /// Workers are fewer than they were: brings ejected ones back that are too many now. Who is down otherwise is not
    /// ejected any more: it has its own way back, and another may be ejected meanwhile.
    pub(super) fn make_up_for_loss(&mut self, now: Duration) {
        if self.stats.workers_ejected.get() == 0 {
            return;
        }
        let is_down = |entry: &&Entry| entry.pacing.ejected().is_some() && !entry.is_up();
        let down: Vec<WorkerId> = self.registry.registered().filter(is_down).map(|entry| entry.id).collect();
        for id in down {
            let Some(entry) = self.registry.get_mut(id) else { continue };
            entry.pacing.readmit(entry.cells.pace().read(), now);
            self.stats.workers_ejected.sub(1);
        }
        self.readmit_beyond(now, ejected_max);
    }

    /// Brings back who is ejected beyond `most` of the workers that could get requests, first whose time is over first.
    fn readmit_beyond(&mut self, now: Duration, most: fn(usize) -> usize) {
        for peers in self.peers() {
            let (routable, ejected) = self.standing(&peers);
            let until = |id: &WorkerId| self.registry.get(*id)?.pacing.ejected().map(|ejected| ejected.until);
            let mut out: Vec<(Duration, WorkerId)> =
                peers.iter().filter_map(|id| Some((until(id)?, *id))).collect();
            out.sort_unstable_by_key(|(until, _)| *until);
            let excess = ejected.saturating_sub(most(routable + ejected));
            out.into_iter().take(excess).for_each(|(_, id)| self.readmit(id, now));
        }
    }

    /// Registered workers by their main pool: workers of another role take other times.
    fn peers(&self) -> Vec<Vec<WorkerId>> {
        let mut peers: BTreeMap<&PoolName, Vec<WorkerId>> = BTreeMap::new();
        for entry in self.registry.registered() {
            if let Some(pool) = entry.pools.first() {
                peers.entry(pool).or_default().push(entry.id);
            }
        }
        peers.into_values().collect()
    }

    /// Of these workers: how many get requests, and how many get none only for being slow.
    fn standing(&self, peers: &[WorkerId]) -> (usize, usize) {
        let up = || peers.iter().filter_map(|&id| self.registry.get(id)).filter(|entry| entry.is_up());
        (up().filter(|entry| entry.is_routable()).count(), up().filter(|entry| !entry.is_routable()).count())
    }
}
