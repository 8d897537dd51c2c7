//! Policies that give a request its place by its prompt alone: prefix_hash and bucket.

use fleet::blocks::bytes_covered;
use fleet::blocks::chain;
use fleet::board::REQUEST_COST;
use fleet::decision::Role;
use fleet::rules::PrefixHash;

use crate::Replica;
use crate::Scene;

impl Replica {
    /// The ring's worker for the beginning of the prompt, or the next one that is not above its share of the load.
    pub(crate) fn gather_prefix_hash(&mut self, scene: &Scene<'_, '_>, config: &PrefixHash) -> u64 {
        let request = scene.request;
        let covered = |blocks: usize| bytes_covered(blocks as u32, request.prompt_bytes);
        let mut key = 0;
        for (at, &block) in request.blocks.iter().enumerate() {
            key = chain(key, block);
            if covered(at + 1) >= config.prefix_bytes as usize {
                break;
            }
        }
        self.evidence.cost_max = load_bound(&self.evidence, config.load_factor);
        if request.blocks.is_empty() || !self.offer_clockwise(scene, key, self.evidence.cost_max) {
            self.offer_least(scene);
        }
        key
    }

    /// The worker whose range of lengths the prompt falls into, beside the least loaded.
    pub(crate) fn gather_bucket(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let pool = scene.pool;
        let at = pool.bounds.partition_point(|&bound| bound < self.evidence.prompt_bytes);
        if let Some(&worker) = pool.members.get(at.min(pool.members.len().saturating_sub(1))) {
            self.offer(scene, worker, Role::Placed, 0, 0);
        }
        self.offer_least(scene);
        0
    }
}

/// The cost a worker may have before one more request, so that it stays within `factor` times the average.
///
/// In whole requests, rounded up, so that a single request always fits somewhere (Mirrokni et al., 2018).
pub(crate) fn load_bound(evidence: &fleet::decision::Evidence, factor: f32) -> u32 {
    let requests = f64::from(evidence.total) / f64::from(REQUEST_COST) + 1.0;
    let most = (f64::from(factor) * requests / f64::from(evidence.members.max(1))).ceil();
    ((most - 1.0).max(0.0) * f64::from(REQUEST_COST)).min(f64::from(u32::MAX)) as u32
}
