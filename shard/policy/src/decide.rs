//! The second half of a decision: from evidence to a candidate, a function without state.

use fleet::blocks::bytes_covered;
use fleet::board::PROMPT_STEP_BYTES;
use fleet::decision::Candidate;
use fleet::decision::Evidence;
use fleet::decision::Reason;
use fleet::decision::Role;
use fleet::rules::Bucket;
use fleet::rules::CacheAware;
use fleet::rules::Policy;
use fleet::snapshot::prefill_work;

/// Blocks in a cache that are as good as none: 8 KiB.
const HELD_BLOCKS_FEW: u32 = 64;

/// The chosen candidate's position and the reason; none when there is no candidate.
pub fn decide(policy: &Policy, evidence: &Evidence) -> Option<(usize, Reason)> {
    let first = evidence.candidates.first()?;
    if let Some(pinned) = position(evidence, Role::Pinned) {
        return Some((pinned, Reason::Pinned));
    }
    Some(match policy {
        Policy::PowerOfTwo => lighter(evidence),
        Policy::CacheAware(config) => affine(config, evidence)?,
        Policy::LeastLoad => soonest(evidence)?,
        Policy::Bucket(config) => balanced_place(config, evidence),
        Policy::Manual(_) if first.role == Role::Placed => (0, Reason::Assigned),
        Policy::Random
        | Policy::RoundRobin
        | Policy::PrefixHash(_)
        | Policy::ConsistentHashing
        | Policy::Manual(_)
        | Policy::Session
        | Policy::PrefixAware(_) => (0, reason_of(first.role)),
    })
}

/// Why a candidate that needed no weighing was chosen.
fn reason_of(role: Role) -> Reason {
    match role {
        Role::Least | Role::Spare => Reason::LeastLoad,
        Role::Holder | Role::Recent => Reason::Prefix,
        Role::Key => Reason::Key,
        Role::Pinned => Reason::Pinned,
        Role::Turn => Reason::Turn,
        Role::Drawn => Reason::Chance,
        Role::Placed => Reason::Place,
    }
}

fn position(evidence: &Evidence, role: Role) -> Option<usize> {
    evidence.candidates.iter().position(|candidate| candidate.role == role)
}

fn lighter(evidence: &Evidence) -> (usize, Reason) {
    match evidence.candidates[..] {
        [first, second, ..] => (usize::from(second.cost < first.cost), Reason::Lighter),
        [Candidate { role: Role::Least, .. }] => (0, Reason::LeastLoad),
        _ => (0, Reason::Only),
    }
}

/// The longest prefix among those who may take more, then the key's worker, then the least loaded.
fn affine(config: &CacheAware, evidence: &Evidence) -> Option<(usize, Reason)> {
    // Who holds a prefix was asked whether it may take more; the least loaded always may.
    let may_take = |candidate: &Candidate| candidate.role != Role::Key || candidate.cost <= evidence.cost_max;
    let holders = || {
        let holds =
            move |&at: &usize| evidence.candidates[at].matched > 0 && may_take(&evidence.candidates[at]);
        (0..evidence.candidates.len()).filter(holds)
    };
    // Longest match, then less to do, then least recently chosen.
    let rank = |at: &usize| {
        let candidate = &evidence.candidates[*at];
        (std::cmp::Reverse(candidate.matched), candidate.cost, candidate.last_chosen)
    };
    let best = holders().min_by_key(rank);
    let is_spread = best.map_or(0, |at| evidence.candidates[at].matched) < evidence.known;
    if let Some(at) = best
        && share(evidence, evidence.candidates[at].matched) > config.cache_threshold
    {
        return Some((at, if is_spread { Reason::Spread } else { Reason::Prefix }));
    }
    if let Some(at) = position(evidence, Role::Key)
        && may_take(&evidence.candidates[at])
    {
        return Some((at, Reason::Key));
    }
    let is_spread = is_spread && share(evidence, evidence.known) > config.cache_threshold;
    let reason = if is_spread { Reason::Spread } else { Reason::LeastLoad };
    roomiest(evidence).or(best).map(|at| (at, reason))
}

/// Of the least loaded worker and those about as light: who has less to do among those who hold least.
fn roomiest(evidence: &Evidence) -> Option<usize> {
    let light = || {
        let is_light = |&at: &usize| matches!(evidence.candidates[at].role, Role::Least | Role::Spare);
        (0..evidence.candidates.len()).filter(is_light)
    };
    let least_held = light().map(|at| evidence.candidates[at].held_blocks).min()?;
    // A little more in a cache is no reason to leave the least loaded.
    let held_max = least_held.saturating_add(least_held / 8).saturating_add(HELD_BLOCKS_FEW);
    light().filter(|&at| evidence.candidates[at].held_blocks <= held_max).min_by_key(|&at| {
        let candidate = &evidence.candidates[at];
        (candidate.cost, candidate.role != Role::Least, candidate.last_chosen)
    })
}

/// Who would have computed the prompt first: work ahead, and what of the prompt it does not hold.
fn soonest(evidence: &Evidence) -> Option<(usize, Reason)> {
    let ready = |candidate: &Candidate| {
        let held = bytes_covered(u32::from(candidate.matched), evidence.prompt_bytes as usize);
        let own = u64::from(prefill_work(evidence.prompt_bytes - held as u32));
        u64::from(candidate.cost) + own * 16 / u64::from(candidate.weight.max(1))
    };
    let rank = |at: &usize| {
        let candidate = &evidence.candidates[*at];
        (ready(candidate), candidate.cost, candidate.last_chosen)
    };
    let at = (0..evidence.candidates.len()).min_by_key(rank)?;
    let reason = if evidence.candidates[at].matched > 0 { Reason::Prefix } else { Reason::LeastLoad };
    Some((at, reason))
}

/// The range's worker, unless it has so much more to do than the least loaded that load decides.
fn balanced_place(config: &Bucket, evidence: &Evidence) -> (usize, Reason) {
    let (Some(place), Some(least)) = (position(evidence, Role::Placed), position(evidence, Role::Least))
    else {
        return (0, reason_of(evidence.candidates[0].role));
    };
    let (cost, min) = (evidence.candidates[place].cost, evidence.candidates[least].cost);
    let abs = config.balance_abs_threshold / PROMPT_STEP_BYTES;
    let is_imbalanced = cost - min.min(cost) > abs && cost as f32 > min as f32 * config.balance_rel_threshold;
    if is_imbalanced { (least, Reason::Spread) } else { (place, Reason::Place) }
}

/// Share of the prompt's bytes, of those that are looked up at all, in its first `known` blocks. Blocks differ in
/// length, so their number would not do: the first three together are as long as any later one.
pub(crate) fn share(evidence: &Evidence, known: u16) -> f32 {
    let covered = |blocks: u16| bytes_covered(u32::from(blocks), evidence.prompt_bytes as usize) as f32;
    covered(known) / covered(evidence.blocks).max(1.0)
}
