//! `/debug/decisions`: the routing decisions the shards remember, to be looked at or to be replayed.
//!
//! Lines hold hashes, counts and worker URLs, never text of a request.

use fleet::admin::AdminReply;
use fleet::decision::Candidate;
use fleet::decision::Decision;
use fleet::id::WorkerId;
use fleet::rules::Policy;
use serde::Serialize;

use crate::admin::answer;
use crate::admin::query;
use crate::control::state::State;

/// Decisions of one answer, when nothing is said, and at most: a few milliseconds of control's time.
const DECISIONS_DEFAULT: usize = 100;
const DECISIONS_MAX: usize = 4096;
const JSON_LINES: &str = "application/x-ndjson";

#[derive(Serialize)]
struct Line<'a> {
    at_us: u64,
    shard: usize,
    model: &'a str,
    policy: &'static str,
    /// The settings that weigh the evidence, by their flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
    attempt: u8,
    prompt_bytes: u32,
    blocks: u16,
    known: u16,
    key: Option<String>,
    candidates: Vec<Weighed<'a>>,
    cost_max: u32,
    total: u32,
    members: u32,
    chosen: u32,
    worker: &'a str,
    reason: &'static str,
    hash_ns: u32,
    choose_ns: u32,
    samples: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Settings {
    CacheAware { cache_threshold: f32 },
    Bucket { balance_abs_threshold: u32, balance_rel_threshold: f32 },
}

#[derive(Serialize)]
struct Weighed<'a> {
    worker: u32,
    url: &'a str,
    role: &'static str,
    cost: u32,
    matched: u16,
    last_chosen: u32,
    held_blocks: u32,
    weight: u16,
}

#[derive(Serialize)]
struct Page<'a> {
    decisions: Vec<Line<'a>>,
}

/// The latest first as one JSON object; with `format=jsonl` the oldest first, a line each. `limit` bounds their
/// number: of the latest, or with `since_us` of the first at or after that time, so that a reader can follow.
pub(crate) fn list(state: &State, query: &str) -> AdminReply {
    let number = |name: &str| match query::parameter(query, name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            let message = format!("`{name}` must be a whole number");
            answer::workers_error(answer::WorkersError::BadRequest, &message, Some("query"))
        }),
    };
    let (limit, since_us) = match (number("limit"), number("since_us")) {
        (Ok(limit), Ok(since_us)) => (limit, since_us),
        (Err(reply), _) | (_, Err(reply)) => return reply,
    };
    let limit = limit.map_or(DECISIONS_DEFAULT, |limit| (limit as usize).min(DECISIONS_MAX));
    let mut found: Vec<(usize, Decision)> = Vec::new();
    for (shard, ring) in state.config.decisions.iter().enumerate() {
        // What a ring does not give is beyond the limit for all rings together, too.
        let of_ring = match since_us {
            Some(since_us) => ring.since(since_us, limit),
            None => ring.latest(limit),
        };
        found.extend(of_ring.into_iter().map(|one| (shard, one)));
    }
    found.sort_by_key(|(shard, one)| (std::cmp::Reverse(one.at_us), *shard));
    if since_us.is_some() {
        found.drain(..found.len().saturating_sub(limit));
    }
    found.truncate(limit);
    match query::parameter(query, "format").as_deref() {
        None | Some("json") => {
            answer::json(200, &Page { decisions: found.iter().map(|one| line(state, one)).collect() })
        }
        Some("jsonl") => {
            let mut body = Vec::new();
            for one in found.iter().rev() {
                // Texts and numbers are always JSON, and writing to memory never fails.
                let _ = serde_json::to_writer(&mut body, &line(state, one));
                body.push(b'\n');
            }
            AdminReply { content_type: JSON_LINES, ..answer::raw_json(200, body) }
        }
        Some(_) => {
            let message = "`format` must be json or jsonl";
            answer::workers_error(answer::WorkersError::BadRequest, message, Some("format"))
        }
    }
}

fn line<'a>(state: &'a State, (shard, decision): &(usize, Decision)) -> Line<'a> {
    let evidence = &decision.evidence;
    let policy =
        Policy::NAMES.get(usize::from(decision.policy)).and_then(|name| state.config.rules.policy(name));
    let chosen = WorkerId { index: decision.worker, generation: decision.generation };
    Line {
        at_us: decision.at_us,
        shard: *shard,
        model: state.model_of(decision.model_hash),
        policy: policy.map_or("", |policy| policy.name()),
        settings: policy.as_ref().and_then(settings),
        attempt: decision.attempt,
        prompt_bytes: evidence.prompt_bytes,
        blocks: evidence.blocks,
        known: evidence.known,
        key: (decision.key != 0).then(|| format!("{:016x}", decision.key)),
        candidates: evidence.candidates.iter().map(|candidate| weighed(state, candidate)).collect(),
        cost_max: evidence.cost_max,
        total: evidence.total,
        members: evidence.members,
        chosen: decision.worker,
        worker: state.registry.get(chosen).map_or("", |entry| &entry.spec.url.text),
        reason: decision.reason.name(),
        hash_ns: decision.hash_ns,
        choose_ns: decision.choose_ns,
        samples: decision.samples.iter().map(|hash| format!("{hash:08x}")).collect(),
    }
}

fn settings(policy: &Policy) -> Option<Settings> {
    match policy {
        Policy::CacheAware(config) => Some(Settings::CacheAware { cache_threshold: config.cache_threshold }),
        Policy::Bucket(config) => Some(Settings::Bucket {
            balance_abs_threshold: config.balance_abs_threshold,
            balance_rel_threshold: config.balance_rel_threshold,
        }),
        _ => None,
    }
}

/// A candidate by the URL its index has now: it may have been somebody else's when the decision was made.
fn weighed<'a>(state: &'a State, candidate: &Candidate) -> Weighed<'a> {
    let slot = state.registry.slots().get(candidate.worker as usize).and_then(Option::as_ref);
    Weighed {
        worker: candidate.worker,
        url: slot.map_or("", |entry| &entry.spec.url.text),
        role: candidate.role.name(),
        cost: candidate.cost,
        matched: candidate.matched,
        last_chosen: candidate.last_chosen,
        held_blocks: candidate.held_blocks,
        weight: candidate.weight,
    }
}
