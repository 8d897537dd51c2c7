//! cache_aware: prefix affinity under a load bound.
//!
//! SGLang's thresholds and names (`--cache-threshold`, `--balance-abs-threshold`, `--balance-rel-threshold`), with
//! its faults removed: every holder of the longest prefix is a candidate and the lightest of them wins; ties go to
//! the least recently chosen; workers that cannot be chosen count neither for the match nor for the balance.

use std::sync::Arc;

use fleet::blocks::bytes_covered;
use fleet::snapshot::Pool;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use fleet::tree::HolderId;

use crate::CacheAware;
use crate::Choice;
use crate::NOT_A_CANDIDATE;
use crate::Reason;
use crate::Replica;
use crate::Request;

/// A holder's use of a prefix is told to control again after this many seconds, so that its eviction order stays
/// roughly right without a report per request.
const REFRESH_TICKS: u32 = 8;

/// Share of the prompt's bytes, of those that are looked up at all, in its first `known` blocks. Blocks differ in
/// length, so their number would not do: the first three together are as long as any later one.
fn known_share(known: usize, request: &Request<'_>) -> f32 {
    let covered = |blocks: usize| bytes_covered(blocks as u32, request.prompt_bytes) as f32;
    covered(known) / covered(request.blocks.len()).max(1.0)
}

/// The longest known prefix among admissible workers.
struct Known {
    blocks: usize,
    /// Of those, what the published tree (not the overlay) knows.
    published: usize,
    /// Lightest holder, with the tick of its last use; the overlay's entries count as fresh.
    holder: u32,
    tick: u32,
}

impl Replica {
    pub(crate) fn cache_aware<'a>(
        &mut self,
        config: &CacheAware,
        snapshot: &'a Snapshot,
        pool: &'a Pool,
        request: &Request<'_>,
    ) -> Option<Choice<'a>> {
        let (min, max) = self.note_loads(pool, request)?;
        let imbalanced = max - min > config.balance_abs_threshold
            && max as f32 > min as f32 * config.balance_rel_threshold;
        let load_max = if imbalanced { min.saturating_add(config.balance_abs_threshold) } else { max };
        let known = self.longest_known(snapshot, request, load_max);
        let rate = known.as_ref().map_or(0.0, |known| known_share(known.blocks, request));
        let choice = match known {
            Some(known) if imbalanced || rate > config.cache_threshold => {
                let worker = snapshot.fleet.workers.get(known.holder as usize)?.as_ref()?;
                let is_news = known.blocks < request.blocks.len()
                    || request.tick.wrapping_sub(known.tick) >= REFRESH_TICKS;
                if is_news {
                    self.overlay.place(request.blocks, known.published, worker.id, request.tick);
                }
                let reason = if imbalanced { Reason::Balance } else { Reason::Prefix };
                Choice { worker, reason, matched_blocks: known.blocks as u32, is_news }
            }
            _ => {
                let worker = self.lightest(pool)?;
                self.overlay.place(request.blocks, 0, worker.id, request.tick);
                Choice {
                    worker,
                    reason: if imbalanced { Reason::Balance } else { Reason::LeastLoad },
                    matched_blocks: 0,
                    is_news: !request.blocks.is_empty(),
                }
            }
        };
        self.forget_loads(pool);
        Some(choice)
    }

    /// Writes every candidate's load into `self.loads` and returns the least and the greatest.
    fn note_loads(&mut self, pool: &Pool, request: &Request<'_>) -> Option<(u32, u32)> {
        let mut range = None;
        for worker in &pool.members {
            if request.excluded.contains(&worker.id) {
                continue;
            }
            let load = worker.cells.load().min(NOT_A_CANDIDATE - 1);
            self.loads[worker.id.index as usize] = load;
            range = Some(range.map_or((load, load), |(min, max): (u32, u32)| (min.min(load), max.max(load))));
        }
        range
    }

    fn forget_loads(&mut self, pool: &Pool) {
        for worker in &pool.members {
            self.loads[worker.id.index as usize] = NOT_A_CANDIDATE;
        }
    }

    fn longest_known(&self, snapshot: &Snapshot, request: &Request<'_>, load_max: u32) -> Option<Known> {
        let admissible = |index: u32| self.loads.get(index as usize).is_some_and(|&load| load <= load_max);
        let found = snapshot.tree.find_deepest(request.blocks, |holder| admissible(holder.0));
        let published = found.blocks as usize;
        let mut best: Option<(HolderId, u32)> = None;
        for (holder, tick) in found.holders().filter(|(holder, _)| admissible(holder.0)) {
            if best.is_none_or(|(other, _)| self.rank(holder.0) < self.rank(other.0)) {
                best = Some((holder, tick));
            }
        }
        let recent = self.overlay.find(request.blocks, published, request.tick, |worker| {
            admissible(worker.index) && snapshot.fleet.worker(worker).is_some()
        });
        if let Some((blocks, worker)) = recent {
            return Some(Known { blocks, published, holder: worker.index, tick: request.tick });
        }
        best.filter(|_| published > 0).map(|(holder, tick)| Known {
            blocks: published,
            published,
            holder: holder.0,
            tick,
        })
    }

    /// The least loaded candidate.
    fn lightest<'a>(&self, pool: &'a Pool) -> Option<&'a Arc<Worker>> {
        pool.members
            .iter()
            .filter(|worker| self.loads[worker.id.index as usize] != NOT_A_CANDIDATE)
            .min_by_key(|worker| self.rank(worker.id.index))
    }

    /// Less load first, then least recently chosen.
    fn rank(&self, index: u32) -> (u32, u64) {
        (self.loads[index as usize], self.last_chosen[index as usize])
    }
}
