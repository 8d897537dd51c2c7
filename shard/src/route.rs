//! Routing: from a request to a worker. Not async, no lock, no allocation but for a prompt longer than any before.

mod engines;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use api::endpoint::Endpoint;
use api::endpoint::PromptShape;
use api::error::ApiError;
use api::error::ErrorCode;
use api::peek;
use api::peek::Peeked;
use api::peek::PromptSpans;
use fleet::blocks::bytes_covered;
use fleet::blocks::hash_blocks;
use fleet::breaker::Circuit;
use fleet::breaker::Outcome;
use fleet::decision;
use fleet::decision::Decision;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Claim;
use fleet::snapshot::Fleet;
use fleet::snapshot::ModelPools;
use fleet::snapshot::NoPool;
use fleet::snapshot::Pool;
use fleet::snapshot::Role;
use fleet::snapshot::Snapshot;
use fleet::snapshot::Worker;
use fleet::stats::ModelStats;
use fleet::stats::UpstreamFailure;
use fleet::sticky::StickyTable;
use fleet::tally::Visit;
use policy::Choice;
use policy::Keys;
use policy::Policy;
use policy::Reason;
use policy::Request;
use tracing::info;
use tracing::warn;
use wire::RequestHead;

use crate::clock::micros;
use crate::explain;
use crate::limits;
use crate::pick::Hold;
use crate::pick::pick;
use crate::port::Ports;
use crate::stack;
use crate::state::Prompt;
use crate::state::Shard;

/// What routing reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a, 'h> {
    pub(crate) endpoint: Endpoint,
    pub(crate) head: &'a RequestHead<'h>,
    pub(crate) shape: PromptShape,
    pub(crate) is_json: bool,
    pub(crate) body: &'a [u8],
    /// Whether the worker has to go on with an answer.
    pub(crate) is_continuation: bool,
    /// Workers that already failed this request and are not to get it again.
    pub(crate) excluded: &'a [WorkerId],
}

/// One upstream exchange's claim on a worker: counts in its load until dropped.
#[derive(Debug)]
pub(crate) struct Leg {
    hold: Hold,
    stats: Arc<ModelStats>,
    /// Seed of the model's keys, if its policy follows answers.
    answer_seed: Option<u64>,
    /// Whether the worker has failed this request before.
    pub(crate) is_repeat: bool,
    /// When the worker was chosen.
    pub(crate) chosen: Instant,
    pub(crate) reason: Reason,
    pub(crate) is_stream: bool,
    /// Why this worker, in words, if the client may know and asked.
    pub(crate) explanation: Option<Box<str>>,
    /// What is counted of the worker's engine, where statistics by engine are kept.
    visit: Option<Visit>,
}

impl Leg {
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        self.hold.worker()
    }

    /// Counters of the model.
    pub(crate) fn stats(&self) -> &ModelStats {
        &self.stats
    }

    /// Whether the worker has begun to answer.
    pub(crate) fn has_begun(&self) -> bool {
        self.hold.has_begun()
    }

    /// The worker has begun to answer, so it has computed the prompt.
    pub(crate) fn prompt_done(&mut self) {
        self.hold.prompt_done();
    }

    /// The first bytes of the answer's body are there.
    pub(crate) fn first_byte(&mut self, now: Instant) {
        self.visit.iter_mut().for_each(|visit| visit.first(now));
    }

    /// The answer has come whole.
    pub(crate) fn finish(&mut self, status: u16, now: impl FnOnce() -> Instant) {
        if let Some(mut visit) = self.visit.take() {
            visit.finish(status < 400, now());
        }
    }

    /// The exchange has failed.
    pub(crate) fn fail(&mut self, failure: UpstreamFailure, now: Instant) {
        if let Some(mut visit) = self.visit.take() {
            visit.fail(failure, now);
        }
    }

    /// Takes in what a complete answer says it used.
    pub(crate) fn note_usage(&self, answer: &[u8]) {
        self.visit.iter().for_each(|visit| visit.used(peek::usage(answer)));
    }

    /// A token came at `now`, the first of this worker.
    pub(crate) fn first_token(&self, now: Instant) {
        self.hold.first_token(micros(self.chosen, now));
    }

    /// So many tokens came in so long.
    pub(crate) fn more_tokens(&mut self, tokens: u32, us: u64) {
        self.hold.more_tokens(tokens, us);
    }

    /// The worker is done with this request: it counts in its load no more.
    ///
    /// Said before the last bytes go to the client, so that who asks again upon its answer finds the worker free.
    pub(crate) fn release(&mut self) {
        self.hold.release();
    }

    /// The worker answered that it has enough to do, and to be left alone for so long: it counts as full for a while.
    pub(crate) fn press(&self, shard: &Shard, retry_after: Duration) {
        shard.full_workers.borrow_mut().press(self.hold.worker(), retry_after, shard.clock.coarse_ms());
    }

    /// Says what the request showed about its worker. The first word counts.
    pub(crate) fn judge(&mut self, shard: &Rc<Shard>, outcome: Outcome) {
        let config = shard.config();
        let Some(rules) = &config.breaker else { return };
        let Some(moved) = self.hold.judge(outcome, shard.clock.coarse_ms(), rules) else { return };
        let worker = self.worker();
        let (url, from, to) = (&worker.url, moved.from.name(), moved.to.name());
        match moved.to {
            Circuit::Open => {
                warn!(worker = %url, from, to, "circuit breaker: requests to the worker keep failing");
            }
            Circuit::Closed | Circuit::HalfOpen => {
                info!(worker = %url, from, to, "circuit breaker: the worker is back");
            }
        }
        Ports::report(shard, Report::Circuit { worker: worker.id });
    }

    /// Remembers the worker as the one that has the answer `id`, for a request that continues it.
    pub(crate) fn has_answer(&self, id: &[u8], sticky: &StickyTable, tick: u32) {
        let Some(seed) = self.answer_seed else { return };
        let key = policy::answer_key(id, seed);
        sticky.assign(key, sticky.get(key), self.worker().id, tick);
    }
}

/// Who serves a request.
#[derive(Debug)]
pub(crate) struct Route {
    /// Who answers it.
    pub(crate) leg: Leg,
    /// Who computes its prompt, if that is somebody else.
    pub(crate) prefill: Option<Box<PrefillLeg>>,
    /// The session that it names, where that is logged.
    pub(crate) session: Option<Box<str>>,
}

/// The claim on a prefill worker.
#[derive(Debug)]
pub(crate) struct PrefillLeg {
    pub(crate) leg: Leg,
    /// How many prompts or answers a request for several of them has.
    pub(crate) batch: Option<u32>,
    /// Whether the answer has log probabilities of the prompt, which it knows.
    pub(crate) wants_logprobs: bool,
}

/// Chooses who serves a request and claims them: both of a pair at once, from one picture of the fleet.
///
/// # Errors
/// 400 for a body that cannot be read, 404 for a model nobody serves, 501 for a request that no pair serves and nobody
/// else is there for, 503 when nobody can take it.
pub(crate) fn choose(shard: &Rc<Shard>, input: &Input<'_, '_>) -> Result<Route, ApiError> {
    let mut prompt = shard.prompt.borrow_mut();
    let Prompt { spans, blocks } = &mut *prompt;
    let peeked = if input.is_json {
        peek::peek(input.shape, input.body, &shard.config().body_keys, spans)?
    } else {
        peek::peek_opaque(input.body, spans)
    };
    shard.with_snapshot(|snapshot| {
        let fleet = &snapshot.fleet;
        let stack = fleet.stack.as_deref();
        let model = peeked.model.as_deref();
        let pools = match stack {
            None => pools_of(shard, fleet, model)?,
            Some(stack) => engines::pools_of(fleet, model, input.endpoint, stack)?,
        };
        blocks.clear();
        let mut choosing = Choosing { shard, snapshot, input, peeked: &peeked, spans, blocks, seed: None };
        let session = stack.and_then(|stack| choosing.session(stack));
        if let Some(id) = stack.and_then(|_| stack::engine_id(input.head)) {
            let pool = pools.regular.map(|at| &*fleet.pools[at]);
            let leg = pool.and_then(|pool| choosing.take_named(pool, id));
            let leg = leg.ok_or_else(|| stack::unavailable(model.unwrap_or_default()))?;
            return Ok(Route { leg, prefill: None, session });
        }
        let route = match ways(fleet, &pools, input.shape)? {
            Ways::Alone(pool) => Route { leg: choosing.take(pool)?, prefill: None, session },
            Ways::Pair { prefill, decode } => {
                let leg = choosing.take(prefill)?;
                let prefill = Some(Box::new(PrefillLeg {
                    leg,
                    batch: peeked.batch,
                    wants_logprobs: peeked.wants_logprobs,
                }));
                Route { leg: choosing.take(decode)?, prefill, session }
            }
        };
        Ok(route)
    })
}

/// Which pools serve a request.
enum Ways<'a> {
    /// One worker does all of it.
    Alone(&'a Pool),
    /// Two share it.
    Pair { prefill: &'a Pool, decode: &'a Pool },
}

/// A pair comes first where both of its pools have members: whoever runs one wants it used.
fn ways<'a>(fleet: &'a Fleet, pools: &ModelPools, shape: PromptShape) -> Result<Ways<'a>, ApiError> {
    let pool = |index: Option<usize>| index.map(|index| &*fleet.pools[index]);
    let (regular, prefill, decode) = (pool(pools.regular), pool(pools.prefill), pool(pools.decode));
    let is_shared = matches!(shape, PromptShape::Messages | PromptShape::Prompt | PromptShape::Generate);
    // Where nothing is handed over, engines of the production-stack that decode do all of a request.
    let is_enough = |pool: &&Pool| !is_shared && fleet.stack.is_some() && !pool.members.is_empty();
    match (prefill, decode) {
        (Some(prefill), Some(decode))
            if is_shared && !prefill.members.is_empty() && !decode.members.is_empty() =>
        {
            Ok(Ways::Pair { prefill, decode })
        }
        (None, None) => Ok(Ways::Alone(regular.ok_or_else(no_workers)?)),
        (prefill, decode) => match regular.or(decode.filter(is_enough)) {
            Some(pool) => Ok(Ways::Alone(pool)),
            None if !is_shared => Err(ApiError::new(
                ErrorCode::NotImplemented,
                "prefill and decode workers do not serve this endpoint, and no other workers serve the model",
            )),
            None => Err(nobody_to(if prefill.is_some_and(|pool| !pool.members.is_empty()) {
                Role::Decode
            } else {
                Role::Prefill
            })),
        },
    }
}

/// One request's choice of its workers.
struct Choosing<'a, 'h> {
    shard: &'a Rc<Shard>,
    snapshot: &'a Snapshot,
    input: &'a Input<'a, 'h>,
    peeked: &'a Peeked<'a>,
    spans: &'a PromptSpans,
    blocks: &'a mut Vec<u64>,
    /// What the blocks have been hashed with, once they have.
    seed: Option<u64>,
}

impl Choosing<'_, '_> {
    /// Chooses a worker of `pool` and claims it.
    fn take(&mut self, pool: &Pool) -> Result<Leg, ApiError> {
        let Self { shard, snapshot, input, spans, .. } = *self;
        let began = shard.clock.now();
        let mut hashed = began;
        if pool.policy.reads_prompt() && self.seed != Some(pool.hash_seed()) {
            self.blocks.clear();
            hash_blocks(spans.parts(input.body), pool.hash_seed(), self.blocks);
            self.seed = Some(pool.hash_seed());
            hashed = shard.clock.now();
        }
        let blocks: &[u64] = if pool.policy.reads_prompt() { self.blocks } else { &[] };
        let request = Request {
            blocks,
            prompt_bytes: spans.bytes(),
            keys: keys(shard, &pool.policy, input, spans),
            excluded: input.excluded,
            must_continue: input.is_continuation,
            tick: shard.clock.coarse_seconds(),
        };
        let mut replica = shard.replica.borrow_mut();
        let config = shard.config();
        let breaker = config.breaker.as_ref();
        let role = pool.name.role;
        let (choice, pass) =
            pick(&mut replica, snapshot, pool, &request, breaker).ok_or_else(|| nobody_to(role))?;
        let chosen = shard.clock.now();
        let hold = Hold::begin(choice.worker, claim(role, &request, &choice), pass);
        // A second attempt looks for the same blocks again: counted once. So is what both of a pair look for.
        if input.excluded.is_empty() && role != Role::Decode {
            shard.stats.prefix_blocks_total.add(blocks.len() as u64);
            shard.stats.prefix_blocks_matched_total.add(u64::from(choice.matched_blocks));
            pool.stats.shard(shard.index).begun_total.add(1);
        }
        if role != Role::Prefill {
            pool.stats.shard(shard.index).selections_total.add(1);
        }
        let decision = record(shard, pool, &request, &choice, replica.evidence(), [began, hashed, chosen]);
        shard.decisions.push(&decision);
        if choice.is_news {
            let blocks = blocks.into();
            Ports::report(
                shard,
                Report::Placed { worker: choice.worker.id, version: snapshot.version, blocks },
            );
        }
        let explanation = explain::is_wanted(shard, input.head)
            .then(|| explain::explanation(&snapshot.fleet, pool, &decision).into());
        Ok(Leg {
            hold,
            stats: Arc::clone(&pool.stats),
            answer_seed: matches!(pool.policy, Policy::CacheAware(_)).then_some(pool.block_seed),
            is_repeat: false,
            chosen,
            reason: choice.reason,
            is_stream: self.peeked.stream,
            explanation,
            visit: visit(choice.worker, pool, chosen),
        })
    }
}

/// Counts a request at its engine, where that is done.
fn visit(worker: &Worker, pool: &Pool, now: Instant) -> Option<Visit> {
    worker.tallies.as_ref().and_then(|tallies| Visit::begin(tallies, &pool.name.model, now))
}

/// What the client says about where its request belongs, as far as the policy asks.
fn keys<'a>(shard: &'a Shard, policy: &Policy, input: &Input<'a, '_>, spans: &'a PromptSpans) -> Keys<'a> {
    if !policy.reads_keys() {
        return Keys::default();
    }
    let (head, config) = (input.head, &shard.config());
    let bounded = |value: &&[u8]| value.len() <= limits::ROUTING_KEY_BYTES_MAX;
    let header = |name: &str| head.header(name).filter(bounded);
    // The session policy goes by its own key alone, if it has one.
    let names = match policy {
        Policy::Session if config.has_session_key => &config.session_headers[..1],
        _ => &config.session_headers[..],
    };
    let session = (names.iter().enumerate())
        .find_map(|(at, name)| header(name).or_else(|| spans.field(at + 1, input.body)));
    let keys = Keys {
        routing: header("x-smg-routing-key"),
        session,
        previous_answer: spans.field(0, input.body),
        ..Keys::default()
    };
    if *policy != Policy::ConsistentHashing {
        return keys;
    }
    let identity = ["authorization", "x-forwarded-for", "cookie"].iter().find_map(|name| header(name));
    Keys { target: header("x-smg-target-worker"), identity, ..keys }
}

/// What the request puts on its worker. Who decodes has nothing of the prompt to compute.
fn claim(role: Role, request: &Request<'_>, choice: &Choice<'_>) -> Claim {
    let bytes = |bytes: usize| bytes.min(u32::MAX as usize) as u32;
    let held = bytes_covered(choice.matched_blocks, request.prompt_bytes);
    let uncached_bytes = match role {
        Role::Regular | Role::Prefill => bytes(request.prompt_bytes - held),
        Role::Decode => 0,
    };
    Claim { prompt_bytes: bytes(request.prompt_bytes), uncached_bytes }
}

fn record(
    shard: &Shard,
    pool: &Pool,
    request: &Request<'_>,
    choice: &Choice<'_>,
    evidence: &decision::Evidence,
    [began, hashed, chosen]: [Instant; 3],
) -> Decision {
    let nanos = |from: Instant, to: Instant| (to - from).as_nanos().min(u128::from(u32::MAX)) as u32;
    Decision {
        at_us: shard.clock.since_start_us(chosen),
        evidence: evidence.clone(),
        worker: choice.worker.id.index,
        generation: choice.worker.id.generation,
        reason: choice.reason,
        model_hash: pool.block_seed as u32,
        policy: pool.policy.number(),
        attempt: request.excluded.len().min(usize::from(u8::MAX)) as u8,
        key: choice.key,
        hash_ns: nanos(began, hashed),
        choose_ns: nanos(hashed, chosen),
        samples: decision::samples(request.blocks),
    }
}

/// The pools of the request's model.
fn pools_of(shard: &Shard, fleet: &Fleet, model: Option<&str>) -> Result<ModelPools, ApiError> {
    match fleet.pools_of(model, shard.config().has_exact_models) {
        Ok(pools) => Ok(pools),
        Err(NoPool::NoWorkers) => Err(no_workers()),
        Err(NoPool::ModelRequired) => Err(ApiError::about(
            ErrorCode::ModelRequired,
            "model",
            format!("Model must be specified. Available models: {}", model_names(fleet)),
        )),
        Err(NoPool::UnknownModel) => Err(ApiError::about(
            ErrorCode::ModelNotFound,
            "model",
            format!(
                "Model '{}' not found. Available models: {}",
                model.unwrap_or_default(),
                model_names(fleet)
            ),
        )),
    }
}

fn no_workers() -> ApiError {
    ApiError::new(ErrorCode::NoWorkers, "No available workers (none is registered and healthy)")
}

/// Nobody of this role can take the request.
fn nobody_to(role: Role) -> ApiError {
    match role {
        Role::Regular => no_workers(),
        Role::Prefill => ApiError::new(
            ErrorCode::NoWorkers,
            "No available prefill workers (none is registered and healthy)",
        ),
        Role::Decode => ApiError::new(
            ErrorCode::NoWorkers,
            "No available decode workers (none is registered and healthy)",
        ),
    }
}

/// Model names for an error message, cut where it would get long.
fn model_names(fleet: &Fleet) -> String {
    const NAMES_MAX: usize = 20;
    // One more than is shown, to see whether there is more.
    let mut names: Vec<&str> = Vec::new();
    for name in fleet.pools.iter().map(|pool| &*pool.name.model) {
        if names.last() != Some(&name) {
            names.push(name);
        }
        if names.len() > NAMES_MAX {
            names[NAMES_MAX] = "…";
            break;
        }
    }
    names.join(", ")
}
