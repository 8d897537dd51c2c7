//! Routing: from a request body to a worker. Not async, no lock, no allocation but for a prompt longer than any before.

use std::rc::Rc;

use api::endpoint::PromptShape;
use api::error::ApiError;
use api::error::ErrorCode;
use api::peek;
use fleet::blocks::hash_blocks;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Fleet;
use fleet::snapshot::NoPool;
use fleet::snapshot::Pool;
use fleet::snapshot::Worker;
use policy::Reason;
use policy::Request;

use crate::port::Ports;
use crate::state::FleetRef;
use crate::state::Prompt;
use crate::state::Shard;

/// What routing reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) shape: PromptShape,
    pub(crate) is_json: bool,
    pub(crate) body: &'a [u8],
    /// Workers that already failed this request.
    pub(crate) excluded: &'a [WorkerId],
}

/// One upstream exchange's claim on a worker: counts in its load until dropped.
#[derive(Debug)]
pub(crate) struct Leg {
    fleet: FleetRef,
    worker_index: usize,
    pool_index: usize,
    shard_index: usize,
    pub(crate) reason: Reason,
    pub(crate) is_stream: bool,
}

impl Leg {
    pub(crate) fn worker(&self) -> &Worker {
        match &self.fleet.workers[self.worker_index] {
            Some(worker) => worker,
            // A fleet never changes and the leg was made from a worker in it.
            None => unreachable!("a leg names a worker of its own fleet"),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.fleet.pools[self.pool_index]
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.worker().cells.end(self.shard_index);
    }
}

/// Chooses a worker and claims it.
///
/// # Errors
/// 400 for a body that cannot be read, 404 for a model nobody serves, 503 when nobody can take it.
pub(crate) fn choose(shard: &Rc<Shard>, input: &Input<'_>) -> Result<Leg, ApiError> {
    let mut prompt = shard.prompt.borrow_mut();
    let Prompt { spans, blocks } = &mut *prompt;
    let peeked = if input.is_json {
        peek::peek(input.shape, input.body, spans)?
    } else {
        peek::peek_opaque(input.body, spans)
    };
    shard.with_snapshot(|snapshot, fleet| {
        let pool_index = pool_index(&snapshot.fleet, peeked.model.as_deref())?;
        let pool = &snapshot.fleet.pools[pool_index];
        blocks.clear();
        let mut prompt_bytes = 0;
        if shard.config.policy.reads_prompt() {
            hash_blocks(spans.parts(input.body), pool.block_seed, blocks);
            prompt_bytes = spans.parts(input.body).map(<[u8]>::len).sum();
        }
        let request =
            Request { blocks, prompt_bytes, excluded: input.excluded, tick: shard.clock.coarse_seconds() };
        let choice = shard
            .replica
            .borrow_mut()
            .choose(&shard.config.policy, snapshot, pool, &request)
            .ok_or_else(no_workers)?;
        choice.worker.cells.begin(shard.index);
        // A second attempt looks for the same blocks again: counted once.
        if input.excluded.is_empty() {
            shard.stats.prefix_blocks_total.add(blocks.len() as u64);
            shard.stats.prefix_blocks_matched_total.add(u64::from(choice.matched_blocks));
        }
        let stats = pool.stats.shard(shard.index);
        stats.selections_total.add(1);
        if choice.is_news {
            let blocks = blocks.as_slice().into();
            Ports::report(shard, Report::Placed { worker: choice.worker.id, blocks });
        }
        Ok(Leg {
            worker_index: choice.worker.id.index as usize,
            pool_index,
            shard_index: shard.index,
            reason: choice.reason,
            is_stream: peeked.stream,
            fleet,
        })
    })
}

/// The pool of the request's model.
fn pool_index(fleet: &Fleet, model: Option<&str>) -> Result<usize, ApiError> {
    match fleet.pool_index(model) {
        Ok(index) => Ok(index),
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

/// Model names for an error message, cut where it would get long.
fn model_names(fleet: &Fleet) -> String {
    const NAMES_MAX: usize = 20;
    let mut names: Vec<&str> = fleet.pools.iter().take(NAMES_MAX).map(|pool| &*pool.model).collect();
    if fleet.pools.len() > NAMES_MAX {
        names.push("…");
    }
    names.join(", ")
}
