//! Policies by what workers hold: cache_aware, least_load and prefixaware.
//!
//! cache_aware keeps SGLang's thresholds and names (`--cache-threshold`, `--balance-abs-threshold`,
//! `--balance-rel-threshold`) with its faults removed: every holder of the longest prefix is a candidate and the
//! lightest of them wins; ties go to the least recently chosen; workers that cannot be chosen count for nothing. A
//! holder that has too much to do is passed over for one that holds less, so a hot prefix spreads over the fleet as
//! far as its load needs.

use fleet::blocks::bytes_covered;
use fleet::board::REQUEST_COST;
use fleet::decision::Candidate;
use fleet::decision::Role;
use fleet::rules::CacheAware;
use fleet::rules::PrefixAware;
use fleet::tree::HolderId;
use fleet::tree::Match;
use fleet::tree::Trail;
use rand::RngExt;

use crate::Replica;
use crate::Scene;
use crate::decide::share;
use crate::place::load_bound;

/// A holder's use of a prefix is told to control again after this many seconds, so that its eviction order stays
/// roughly right without a report per request.
const REFRESH_TICKS: u32 = 8;
/// Holders looked at in one decision, over all prefixes of the prompt: of a prefix that hundreds hold, any of a few
/// drawn ones is as good.
const HOLDERS_LOOKED_AT_MAX: usize = 48;
/// Holders of one prefix that are weighed; the other candidates are the key's worker, the least loaded and some about as light.
const HOLDERS_WEIGHED_MAX: usize = 4;
/// Members looked at beside the least loaded for room in their caches: all of a small pool.
const SPARES_MAX: usize = 4;
/// Bytes of known prompt that are worth one more request in front: computing 4 KiB takes an engine about as long as a
/// request among others delays it.
const SLACK_BYTES_PER_REQUEST: usize = 4 * 1024;
/// Requests in front at most that a known prefix is worth, whatever its length.
const SLACK_REQUESTS_MAX: usize = 8;
/// Every so many choices, a prefix that was used this very second goes to whoever has clearly less to do, and is soon
/// held by as many workers as its load needs. A prefix that everybody shares spreads at once; one of a single
/// conversation never does, as its user takes longer than a second.
const SPREAD_EVERY: u32 = 16;
/// Load over the average that is clearly more than the others have.
const SPREAD_LOAD_FACTOR: f32 = 1.25;
/// Holders of a prefix whose last use is looked at for that.
const HOLDERS_ASKED_FOR_USE_MAX: usize = 16;

impl Replica {
    pub(crate) fn gather_affine(&mut self, scene: &Scene<'_, '_>, config: &CacheAware) -> u64 {
        let trail = scene.snapshot.tree.trail(scene.request.blocks);
        let key = self.offer_session(scene);
        let is_pinned = self.offer_pinned(scene);
        self.note_held(&trail);
        if is_pinned {
            return key;
        }
        let Some(least) = scene.least() else { return key };
        let min = least.cost;
        let abs = config.balance_abs_threshold.saturating_mul(REQUEST_COST);
        let balanced = min.saturating_add(abs).max((min as f32 * config.balance_rel_threshold) as u32);
        self.evidence.cost_max = balanced;
        let mut bound = u32::MAX;
        if config.affinity_load_factor >= 1.0 {
            bound = load_bound(&self.evidence, config.affinity_load_factor);
            self.evidence.cost_max = balanced.min(bound.max(min + REQUEST_COST));
        }
        let spreads = self.turn % SPREAD_EVERY == SPREAD_EVERY - 1 && is_hot(&trail, scene.request.tick);
        if spreads {
            // Clearly more than the others have, and not a swing of the moment: every copy takes room in a cache.
            let share = load_bound(&self.evidence, SPREAD_LOAD_FACTOR);
            bound = bound.min(share.max(min).saturating_add(REQUEST_COST));
        }
        let slack = |blocks: usize| {
            let requests = bytes_covered(blocks as u32, scene.request.prompt_bytes) / SLACK_BYTES_PER_REQUEST;
            let most = if spreads { 0 } else { SLACK_REQUESTS_MAX };
            min + requests.min(most) as u32 * REQUEST_COST
        };
        let admits = |blocks: usize, cost: u32| cost <= balanced.min(bound.max(slack(blocks)));
        self.offer_holders(scene, &trail, admits);
        self.offer_with_held(scene, &trail, least.index);
        let is_enough =
            |candidate: &Candidate| share(&self.evidence, candidate.matched) > config.cache_threshold;
        if !self.evidence.candidates.iter().any(is_enough) {
            self.offer_spares(scene, least.cost);
        }
        key
    }

    /// Says of every candidate so far how much of the prompt it holds.
    fn note_held(&mut self, trail: &Trail<'_>) {
        for (candidate, tick) in self.evidence.candidates.iter_mut().zip(&mut self.ticks) {
            let (held, last_use) = trail.held_by(HolderId(candidate.worker));
            (candidate.matched, *tick) = (held as u16, last_use);
        }
    }

    /// Some workers that are about as light as the least loaded, with what each holds: a new prompt should go where
    /// there is most room in the cache, since its conversation will stay there.
    fn offer_spares(&mut self, scene: &Scene<'_, '_>, min: u32) {
        let fleet = &scene.snapshot.fleet;
        let members = &scene.pool.members;
        let begin = if members.len() > SPARES_MAX { self.rng.random_range(0..members.len()) } else { 0 };
        for look in 0..members.len().min(SPARES_MAX) {
            // Of many members, a few far apart.
            let at = (begin + look * (members.len() / SPARES_MAX).max(1)) % members.len();
            let is_spare =
                scene.cost(members[at]).is_some_and(|cost| cost <= min.saturating_add(REQUEST_COST));
            let is_known = self.evidence.candidates.iter().any(|candidate| candidate.worker == members[at]);
            if is_spare && !is_known {
                self.offer(scene, members[at], Role::Spare, 0, 0);
            }
        }
        for candidate in &mut self.evidence.candidates {
            if let (Role::Spare | Role::Least, Some(worker)) =
                (candidate.role, fleet.workers.get(candidate.worker))
            {
                candidate.held_blocks = worker.cells.held_blocks();
            }
        }
    }

    pub(crate) fn gather_work(&mut self, scene: &Scene<'_, '_>) -> u64 {
        let trail = scene.snapshot.tree.trail(scene.request.blocks);
        self.offer_holders(scene, &trail, |_, _| true);
        if let Some(least) = scene.least() {
            self.offer_with_held(scene, &trail, least.index);
        }
        // Work ahead is in units of each worker's weight: so must be the work of this prompt.
        for candidate in &mut self.evidence.candidates {
            let worker = scene.snapshot.fleet.workers.get(candidate.worker);
            candidate.weight = worker.map_or(0, |worker| worker.weight.sixteenths());
        }
        0
    }

    /// Makes the least loaded worker a candidate, with what it holds.
    fn offer_with_held(&mut self, scene: &Scene<'_, '_>, trail: &Trail<'_>, least: u32) {
        let (held, tick) = trail.held_by(HolderId(least));
        self.offer(scene, least, Role::Least, held, tick);
    }

    /// Any holder of the longest known prefix, if that is long enough; else the least loaded.
    pub(crate) fn gather_any_holder(&mut self, scene: &Scene<'_, '_>, config: &PrefixAware) -> u64 {
        let trail = scene.snapshot.tree.trail(scene.request.blocks);
        self.offer_holders(scene, &trail, |_, _| true);
        let count = self.evidence.candidates.len();
        let matched = self.evidence.candidates.first().map_or(0, |candidate| u32::from(candidate.matched));
        let matched_bytes = bytes_covered(matched, scene.request.prompt_bytes);
        if count == 0 || matched_bytes < config.match_bytes_min as usize {
            self.evidence.candidates.clear();
            self.ticks.clear();
            self.offer_least(scene);
        } else {
            let drawn = self.rng.random_range(0..count);
            self.evidence.candidates.swap(0, drawn);
            self.ticks.swap(0, drawn);
        }
        0
    }

    /// The holders of the longest prefix that somebody holds who may take more. `admits` is asked with the length of
    /// the prefix, in blocks, and the holder's cost.
    fn offer_holders(
        &mut self,
        scene: &Scene<'_, '_>,
        trail: &Trail<'_>,
        admits: impl Fn(usize, u32) -> bool,
    ) {
        let fleet = &scene.snapshot.fleet;
        let request = scene.request;
        let published = trail.known();
        self.published = published;
        self.evidence.known = published.min(usize::from(u16::MAX)) as u16;
        let recent = self.overlay.find(request.blocks, published, request.tick, |worker, epoch| {
            fleet.worker(worker).is_some_and(|worker| worker.cells.epoch() == epoch)
                && scene.cost(worker.index).is_some()
        });
        if let Some((blocks, worker)) = recent {
            self.evidence.known = blocks.min(usize::from(u16::MAX)) as u16;
            let may_take = scene.cost(worker.index).is_some_and(|cost| admits(blocks, cost));
            if may_take && self.offer(scene, worker.index, Role::Recent, blocks, request.tick) {
                return;
            }
        }
        let mut looks_left = HOLDERS_LOOKED_AT_MAX;
        for step in trail.deepest_first() {
            let found = self.offer_some(scene, &step, &mut looks_left, &admits);
            if found || looks_left == 0 {
                return;
            }
        }
    }

    fn offer_some(
        &mut self,
        scene: &Scene<'_, '_>,
        step: &Match<'_>,
        looks_left: &mut usize,
        admits: &impl Fn(usize, u32) -> bool,
    ) -> bool {
        let count = step.holder_count();
        let looks = count.min(*looks_left);
        // Of more than are weighed, others come first each time.
        let begin = if count > HOLDERS_WEIGHED_MAX { self.rng.random_range(0..count) } else { 0 };
        let mut offered = 0;
        for look in 0..looks {
            let (holder, tick) = step.holder((begin + look) % count);
            *looks_left -= 1;
            let may_take = scene.cost(holder.0).is_some_and(|cost| admits(step.blocks as usize, cost));
            if may_take && self.offer(scene, holder.0, Role::Holder, step.blocks as usize, tick) {
                offered += 1;
            }
            if offered == HOLDERS_WEIGHED_MAX {
                break;
            }
        }
        offered > 0
    }

    /// Whether the tree should learn that the candidate at `at` gets this prompt.
    pub(crate) fn is_news(&self, scene: &Scene<'_, '_>, at: usize) -> bool {
        let (candidate, blocks) = (&self.evidence.candidates[at], scene.request.blocks.len());
        if blocks == 0 {
            return false;
        }
        // Ticks of the tree are control's, which may be ahead by a little.
        usize::from(candidate.matched) != blocks
            || scene.request.tick.saturating_sub(self.ticks[at]) >= REFRESH_TICKS
    }
}

/// Whether the longest known prefix was used within this tick.
fn is_hot(trail: &Trail<'_>, tick: u32) -> bool {
    let Some(step) = trail.deepest_first().next() else { return false };
    (0..step.holder_count().min(HOLDERS_ASKED_FOR_USE_MAX)).any(|at| step.holder(at).1 == tick)
}
