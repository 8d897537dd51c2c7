//! Why a worker was chosen, as one header's value.

use std::fmt::Write;

use fleet::decision::Decision;
use fleet::snapshot::Fleet;
use fleet::snapshot::Pool;
use wire::RequestHead;

use crate::state::Shard;

/// Asks for an explanation with the value `1`; carries it in the answer.
pub(crate) const HEADER: &str = "x-ringway-route";

/// Whether the client asks for an explanation and may have one.
pub(crate) fn is_wanted(shard: &Shard, head: &RequestHead<'_>) -> bool {
    shard.config().explain_routing && head.header(HEADER) == Some(b"1")
}

/// `policy=…; reason=…; worker=…; matched=BLOCKS/BLOCKS; candidates=ROLE:URL:COST:MATCHED,…`
pub(crate) fn explanation(fleet: &Fleet, pool: &Pool, decision: &Decision) -> String {
    let evidence = &decision.evidence;
    let url = |index: u32| fleet.workers.get(index).map_or("", |worker| &*worker.url);
    let matched = evidence
        .candidates
        .iter()
        .filter(|candidate| candidate.worker == decision.worker)
        .map(|candidate| candidate.matched)
        .max();
    let mut text = format!(
        "policy={}; reason={}; worker={}; matched={}/{}; known={}; choose_ns={}; hash_ns={}; candidates=",
        pool.policy.name(),
        decision.reason.name(),
        url(decision.worker),
        matched.unwrap_or(0),
        evidence.blocks,
        evidence.known,
        decision.choose_ns,
        decision.hash_ns,
    );
    for (at, candidate) in evidence.candidates.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}{}:{}:{}:{}",
            candidate.role.name(),
            url(candidate.worker),
            candidate.cost,
            candidate.matched
        );
    }
    text
}
