//! What engines say they have to do beyond the gateway's own requests, as a cost on the boards of policies that weigh
//! it: power_of_two and least_load.
//!
//! Requests of other gateways, and pressure on the cache, are known from polls alone and change slowly; the gateway's
//! own requests are counted exactly. A worker whose load is unknown counts as the mean of the known ones: being
//! unknown neither draws requests nor repels them.

use std::sync::Arc;

use fleet::board::Board;
use fleet::board::WORK_UNITS_PER_S;
use fleet::cell::EngineLoad;
use fleet::id::WorkerId;
use fleet::rules::Policy;
use fleet::snapshot::PoolName;

use super::State;
use crate::control::models::Model;

/// Prompt tokens that a waiting request of somebody else is taken to have, as smg does.
const MEAN_PREFILL_TOKENS: u32 = 1024;
/// Prompt tokens an engine is taken to compute in a second, as smg does.
const PREFILL_TOKENS_PER_S: u32 = 2000;
/// Weight of the pressure on the cache, in seconds, as smg has it.
const KV_PRESSURE_WEIGHT_S: f64 = 0.15;
/// A cache is never taken to be fuller: the pressure k / (1 - k) has no bound.
const KV_USED_MAX: f64 = 0.99;

/// What one worker's engine counts as on one board.
#[derive(Debug)]
pub(crate) struct EngineCost {
    board: Arc<Board>,
    pool: PoolName,
    cost: u32,
    is_known: bool,
}

/// The known costs of a model's engines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCosts {
    sum: u64,
    known: u64,
}

impl EngineCosts {
    fn mean(self) -> u32 {
        self.sum.checked_div(self.known).and_then(|mean| u32::try_from(mean).ok()).unwrap_or(0)
    }
}

impl State {
    /// Counts what a worker's engine says, or that it says nothing, on the boards of its models.
    pub(super) fn weigh_engine(&mut self, id: WorkerId, load: Option<EngineLoad>) {
        self.forget_engine_cost(id);
        let Some(entry) = self.registry.get_mut(id) else { return };
        let own = entry.cells.load();
        for name in &entry.pools {
            let model = self.models.get_mut(name);
            let Some(cost) = cost(model, load, own, entry.published.request_cost()) else { continue };
            if load.is_some() {
                model.engine_costs.sum += u64::from(cost);
                model.engine_costs.known += 1;
            }
            model.board.add(id.index, cost);
            let (board, pool) = (Arc::clone(&model.board), name.clone());
            entry.engine_costs.push(EngineCost { board, pool, cost, is_known: load.is_some() });
        }
    }

    /// Takes what a worker's engine counted as off the boards.
    pub(super) fn forget_engine_cost(&mut self, id: WorkerId) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        for EngineCost { board, pool, cost, is_known } in entry.engine_costs.drain(..) {
            board.sub(id.index, cost);
            if is_known {
                let costs = &mut self.models.get_mut(&pool).engine_costs;
                costs.sum = costs.sum.saturating_sub(u64::from(cost));
                costs.known = costs.known.saturating_sub(1);
            }
        }
    }
}

/// What an engine counts as under the model's policy; none if the policy does not look at it.
fn cost(model: &Model, load: Option<EngineLoad>, own: u32, request_cost: u32) -> Option<u32> {
    match (model.policy, load) {
        (Policy::PowerOfTwo | Policy::LeastLoad, None) => Some(model.engine_costs.mean()),
        (Policy::PowerOfTwo, Some(load)) => Some(requests_of_others(&load, own, request_cost)),
        (Policy::LeastLoad, Some(load)) => Some(work_of_others(&load, own)),
        _ => None,
    }
}

fn others(load: &EngineLoad, own: u32) -> u32 {
    load.running.unwrap_or(0).saturating_add(load.waiting.unwrap_or(0)).saturating_sub(own)
}

fn requests_of_others(load: &EngineLoad, own: u32, request_cost: u32) -> u32 {
    others(load, own).min(OTHERS_MAX).saturating_mul(request_cost)
}

/// The score of smg's least_load: what waits over the throughput, and pressure on the cache.
fn work_of_others(load: &EngineLoad, own: u32) -> u32 {
    let waiting = load.waiting.unwrap_or(0).min(others(load, own)).min(OTHERS_MAX);
    let queued = waiting * (MEAN_PREFILL_TOKENS * WORK_UNITS_PER_S / PREFILL_TOKENS_PER_S);
    let kv_used = f64::from(load.kv_used_permille.unwrap_or(0)) / 1000.0;
    let kv_used = kv_used.min(KV_USED_MAX);
    let pressure = KV_PRESSURE_WEIGHT_S * kv_used / (1.0 - kv_used) * f64::from(WORK_UNITS_PER_S);
    queued + pressure.round() as u32
}

/// Requests of others that are counted at one engine at most, so that no sum overflows.
const OTHERS_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: u32, waiting: u32, kv_used_permille: u16) -> EngineLoad {
        EngineLoad {
            tokens: None,
            running: Some(running),
            waiting: Some(waiting),
            kv_used_permille: Some(kv_used_permille),
            at_s: 0,
        }
    }

    #[test]
    fn only_requests_of_others_count() {
        assert_eq!(requests_of_others(&load(5, 2, 0), 7, 256), 0);
        assert_eq!(requests_of_others(&load(5, 2, 0), 4, 256), 3 * 256);
        assert_eq!(requests_of_others(&load(0, 0, 0), 4, 256), 0);
    }

    #[test]
    fn work_is_what_waits_and_pressure_on_the_cache() {
        assert_eq!(work_of_others(&load(0, 0, 500), 0), 150);
        assert_eq!(work_of_others(&load(3, 2, 0), 0), 2 * 512);
        assert_eq!(work_of_others(&load(0, 0, 1000), 0), 14_850);
        assert_eq!(work_of_others(&load(3, 2, 0), 4), 512, "one of five is somebody else's");
    }
}
