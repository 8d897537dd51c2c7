//! Requests from both shards: routed, tried again, computed, ended; and the reports about them.

use std::sync::Arc;

use fleet::blocks::bytes_covered;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Claim;
use fleet::snapshot::Pool;
use policy::Keys;
use policy::Request;
use rand::RngExt;

use super::SHARDS;
use super::Shard;
use super::Simulation;
use super::flights::Leg;
use super::judge::Scene;
use crate::control::event::Event;

/// Conversations per model; a third of them share their first blocks.
pub(super) const CONVERSATIONS: u64 = 9;
/// Longest prompt, in blocks, of most requests and of a few.
const SHORT_BLOCKS_MAX: usize = 14;
pub(super) const LONG_BLOCKS_MAX: usize = 330;
const LEGS_MAX: usize = 40;

/// What a request says.
struct Ask {
    conversation: u64,
    blocks: usize,
    target: Option<String>,
    routing: Option<[u8; 1]>,
    session: Option<[u8; 1]>,
    previous_answer: Option<[u8; 1]>,
}

/// The prompt of a conversation after so many blocks.
pub(super) fn prompt(block_seed: u64, conversation: u64, blocks: usize) -> Vec<u64> {
    let block = |at: u64| {
        let whose = if at < 3 { conversation % 3 } else { conversation };
        (block_seed ^ (whose << 32 | at)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    (0..blocks as u64).map(block).collect()
}

impl Simulation {
    pub(super) fn request(&mut self) {
        let shard = self.rng.random_range(0..SHARDS);
        let ask = self.ask();
        self.route(shard, &ask);
    }

    /// Both shards meet the same request.
    pub(super) fn meet(&mut self) {
        let ask = self.ask();
        (0..SHARDS).for_each(|shard| self.route(shard, &ask));
    }

    fn ask(&mut self) -> Ask {
        let rng = &mut self.rng;
        let most = if rng.random_range(0..8) == 0 { LONG_BLOCKS_MAX } else { SHORT_BLOCKS_MAX };
        let mut key =
            |one_in: u32| (rng.random_range(0..one_in) == 0).then(|| [rng.random_range(b'a'..=b'd')]);
        let (routing, session, previous_answer, target) = (key(3), key(2), key(6), key(6));
        Ask {
            conversation: rng.random_range(0..CONVERSATIONS),
            blocks: rng.random_range(0..=most),
            target: target.map(|[letter]| u32::from(letter - b'a').to_string()),
            routing,
            session,
            previous_answer,
        }
    }

    /// A shard routes a request of any model, and tries again elsewhere when the worker is dead.
    fn route(&mut self, shard: usize, ask: &Ask) {
        let pools = &self.shards[shard].snapshot.fleet.pools;
        if pools.is_empty() || self.flights.legs.len() >= LEGS_MAX {
            return;
        }
        let pool = Arc::clone(&pools[self.rng.random_range(0..pools.len())]);
        let mut excluded: Vec<WorkerId> = Vec::new();
        if self.rng.random_range(0..8) == 0 && !pool.members.is_empty() {
            let index = pool.members[self.rng.random_range(0..pool.members.len())];
            let workers = &self.shards[shard].snapshot.fleet.workers;
            excluded.extend(workers.get(index).map(|worker| worker.id));
        }
        for _ in 0..3 {
            let Some(leg) = self.choose(shard, &pool, ask, &excluded) else { return };
            let worker = Arc::clone(&leg.worker);
            if self.rig.alive.contains(&*worker.url) {
                worker.cells.succeed();
                self.flights.legs.push(leg);
                return;
            }
            worker.cells.fail();
            self.shards[shard].batch.push(Report::Failing { worker: worker.id });
            excluded.push(worker.id);
            leg.end();
        }
    }

    fn choose(&mut self, shard: usize, pool: &Arc<Pool>, ask: &Ask, excluded: &[WorkerId]) -> Option<Leg> {
        let now = self.rig.now;
        let Shard { snapshot, replica, batch, lag, .. } = &mut self.shards[shard];
        let blocks = prompt(pool.block_seed, ask.conversation, ask.blocks);
        let prompt_bytes = bytes_covered(ask.blocks as u32, usize::MAX);
        let request = Request {
            blocks: if pool.policy.reads_prompt() { &blocks } else { &[] },
            prompt_bytes,
            keys: Keys {
                target: ask.target.as_ref().map(String::as_bytes),
                routing: ask.routing.as_ref().map(|key| &key[..]),
                session: ask.session.as_ref().map(|key| &key[..]),
                previous_answer: ask.previous_answer.as_ref().map(|key| &key[..]),
                identity: None,
            },
            excluded,
            must_continue: false,
            tick: now.saturating_sub(*lag).as_secs() as u32,
        };
        let choice = replica.choose(snapshot, pool, &request);
        let scene =
            Scene { snapshot, pool, newest: &self.rig.snapshot, flights: &self.flights, request: &request };
        self.book.judge(&scene, choice.as_ref(), replica.evidence());
        let choice = choice?;
        if choice.is_news {
            let blocks = blocks.as_slice().into();
            batch.push(Report::Placed { worker: choice.worker.id, version: snapshot.version, blocks });
        }
        self.engines.place(choice.worker, &blocks);
        let held = bytes_covered(choice.matched_blocks, prompt_bytes);
        let claim = Claim { prompt_bytes: prompt_bytes as u32, uncached_bytes: (prompt_bytes - held) as u32 };
        Some(Leg::begin(choice.worker, claim, pool.block_seed))
    }

    /// Prompts are computed, answers end, clients leave.
    pub(super) fn finish_some(&mut self) {
        for _ in 0..self.rng.random_range(1..8) {
            if self.flights.legs.is_empty() {
                return;
            }
            let at = self.rng.random_range(0..self.flights.legs.len());
            if self.rng.random_range(0..3) == 0 {
                self.flights.legs[at].prompt_done();
                continue;
            }
            let leg = self.flights.legs.swap_remove(at);
            if leg.is_prompt_done {
                let answer = [self.rng.random_range(b'a'..=b'f')];
                let key = policy::answer_key(&answer, leg.block_seed);
                let sticky = &self.rig.snapshot.fleet.sticky;
                let tick = self.rig.now.as_secs() as u32;
                sticky.assign(key, sticky.get(key), leg.worker.id, tick);
                self.book.answered(leg.block_seed, &answer, leg.worker.id, tick);
            }
            leg.end();
        }
    }

    /// Batches leave shards, and arrive at once, late or never.
    pub(super) fn reports(&mut self) {
        for shard in 0..SHARDS {
            if self.rng.random_range(0..3) > 0 {
                let batch = std::mem::take(&mut self.shards[shard].batch);
                if !batch.is_empty() && self.rng.random_range(0..10) > 0 {
                    self.batches.push(batch);
                }
            }
        }
        while !self.batches.is_empty() && self.rng.random_range(0..3) > 0 {
            let at = self.rng.random_range(0..self.batches.len());
            let batch = self.batches.swap_remove(at);
            self.reported(batch);
        }
    }

    fn reported(&mut self, batch: Vec<Report>) {
        let failing = batch.iter().filter_map(|report| match report {
            Report::Failing { worker } => Some(*worker),
            Report::Placed { .. } | Report::Circuit { .. } => None,
        });
        let is_down = |worker: &WorkerId| {
            let entry = self.rig.state.registry.get(*worker);
            entry.is_some_and(|entry| entry.cells.failures_in_a_row() > 0)
        };
        let down: Vec<WorkerId> = failing.filter(is_down).collect();
        self.turn(vec![Event::Reports(batch)]);
        down.into_iter().for_each(|worker| self.engines.emptied(worker));
    }
}
