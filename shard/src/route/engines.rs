//! What is other in the choice for clients of vLLM's production-stack router: a model must be named and served, unless
//! prefill and decode engines share requests, and a request may name its engine.

use std::sync::Arc;

use api::endpoint::Endpoint;
use api::error::ApiError;
use fleet::snapshot::Claim;
use fleet::snapshot::Fleet;
use fleet::snapshot::ModelPools;
use fleet::snapshot::Pool;
use fleet::snapshot::Role;
use fleet::snapshot::Worker;
use fleet::stack::Stack;
use policy::Reason;

use super::Choosing;
use super::Leg;
use super::visit;
use crate::limits;
use crate::pick::Hold;
use crate::stack;

impl Choosing<'_, '_> {
    /// The session that the request names, as it is logged.
    pub(super) fn session(&self, stack: &Stack) -> Option<Box<str>> {
        let key = stack.session_key.as_deref()?;
        // The first field asked for is that of answers.
        let named = self.input.head.header(key).or_else(|| self.spans.field(1, self.input.body))?;
        let named = String::from_utf8_lossy(&named[..named.len().min(limits::ROUTING_KEY_BYTES_MAX)]);
        // A line of the log stays one.
        Some(named.replace(char::is_control, "\u{fffd}").into())
    }

    /// Claims the member of `pool` whose engine the request names; none if there is no such member.
    pub(super) fn take_named(&self, pool: &Pool, id: &str) -> Option<Leg> {
        let Self { shard, snapshot, input, .. } = *self;
        if pool.name.role != Role::Regular {
            return None;
        }
        let workers = pool.members.iter().filter_map(|&index| snapshot.fleet.workers.get(index));
        let is_meant = |worker: &&Arc<Worker>| worker.tallies.as_ref().is_some_and(|of| *of.engine_id == *id);
        let worker = workers.filter(|worker| !input.excluded.contains(&worker.id)).find(is_meant)?;
        let now = shard.clock.now();
        pool.stats.shard(shard.index).selections_total.add(1);
        pool.stats.shard(shard.index).begun_total.add(u64::from(input.excluded.is_empty()));
        Some(Leg {
            hold: Hold::begin(worker, Claim::default(), None),
            stats: Arc::clone(&pool.stats),
            answer_seed: None,
            is_repeat: false,
            chosen: now,
            reason: Reason::Pinned,
            is_stream: self.peeked.stream,
            explanation: None,
            visit: visit(worker, pool, now),
        })
    }
}

/// The pools of the request's model for clients of vLLM's production-stack router. Where prefill and decode engines share
/// requests, those of any model will do.
pub(super) fn pools_of(
    fleet: &Fleet,
    model: Option<&str>,
    endpoint: Endpoint,
    stack: &Stack,
) -> Result<ModelPools, ApiError> {
    if stack.pairs.is_some() {
        let first = |role| fleet.pools.iter().position(|pool| pool.name.role == role);
        let of_model = model.and_then(|model| fleet.pools_of(Some(model), true).ok());
        let named = |of: fn(&ModelPools) -> Option<usize>| of_model.as_ref().and_then(of);
        return Ok(ModelPools {
            regular: named(|pools| pools.regular),
            prefill: named(|pools| pools.prefill).or_else(|| first(Role::Prefill)),
            decode: named(|pools| pools.decode).or_else(|| first(Role::Decode)),
        });
    }
    let model = model.ok_or_else(stack::no_model)?;
    let pools = fleet.pools_of(Some(model), true).map_err(|_| stack::unknown_model(endpoint, model))?;
    let has_members = pools.regular.is_some_and(|at| !fleet.pools[at].members.is_empty());
    if has_members { Ok(pools) } else { Err(stack::unavailable(model)) }
}
