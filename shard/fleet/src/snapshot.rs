//! The immutable picture of the fleet that shards route by.
//!
//! Invariants
//! - A published snapshot never changes; a new one replaces it behind one pointer.
//! - Every worker in a pool is routable and stands in the worker table under its own id.
//! - Pools are ordered by model name, members by worker index.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cell::WorkerCells;
use crate::id::WorkerId;
use crate::stats::ModelStats;
use crate::tree::TreeSnapshot;

/// One worker as shards see it.
#[derive(Debug)]
pub struct Worker {
    /// Identity inside the process.
    pub id: WorkerId,
    /// As registered, without a trailing slash.
    pub url: Box<str>,
    /// Value of the Host header: host, and port when the URL names one.
    pub host: Box<str>,
    /// Path that the URL puts before every endpoint; empty for most.
    pub base_path: Box<str>,
    /// Resolved addresses, in the order to try them. Never empty for a routable worker.
    pub addresses: Box<[SocketAddr]>,
    /// `Authorization` value that replaces the client's, if the worker has a key.
    pub authorization: Option<Box<str>>,
    /// Shared load and failure cells.
    pub cells: Arc<WorkerCells>,
}

/// The routable workers of one model.
#[derive(Debug)]
pub struct Pool {
    /// Model id as clients name it.
    pub model: Box<str>,
    /// Seed of the block hashes: prompts for two models never match each other.
    pub block_seed: u64,
    /// Routable workers.
    pub members: Box<[Arc<Worker>]>,
    /// Rotation counter, shared by every shard and kept over publications, so that round robin is exact.
    pub rotation: Arc<AtomicU64>,
    /// Counters of this model.
    pub stats: Arc<ModelStats>,
}

impl Pool {
    /// Takes the next turn of the rotation.
    #[inline]
    pub fn next_turn(&self) -> u64 {
        self.rotation.fetch_add(1, Ordering::Relaxed)
    }
}

/// A page that shards answer by themselves.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

/// Workers, pools and the pages made from them. Replaced when the fleet changes.
#[derive(Debug)]
pub struct Fleet {
    /// Every registered worker by index, routable or not; `None` where nothing is registered.
    pub workers: Box<[Option<Arc<Worker>>]>,
    /// One pool per model, ordered by name. A pool may have no members.
    pub pools: Box<[Arc<Pool>]>,
    /// Answer of `/readiness`.
    pub readiness: Page,
    /// Answer of `/health_generate`.
    pub health_generate: Page,
    /// Answer of `/v1/models`.
    pub models: Page,
}

/// Why no pool serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPool {
    /// No worker is registered.
    NoWorkers,
    /// Several models are served and the request names none.
    ModelRequired,
    /// The request names a model that nobody serves.
    UnknownModel,
}

impl Fleet {
    /// The worker with this id, if it is still registered.
    #[inline]
    pub fn worker(&self, id: WorkerId) -> Option<&Arc<Worker>> {
        self.workers.get(id.index as usize)?.as_ref().filter(|worker| worker.id == id)
    }

    /// Where in `pools` a request that names `model` belongs.
    ///
    /// A fleet of one model serves every request, whatever name it gives, as SGLang's single-model router does.
    ///
    /// # Errors
    /// Says what is missing: workers, a model name, or that model.
    pub fn pool_index(&self, model: Option<&str>) -> Result<usize, NoPool> {
        match (&*self.pools, model) {
            ([], _) => Err(NoPool::NoWorkers),
            ([_], _) => Ok(0),
            (_, None) => Err(NoPool::ModelRequired),
            (pools, Some(model)) => {
                pools.binary_search_by(|pool| (*pool.model).cmp(model)).map_err(|_| NoPool::UnknownModel)
            }
        }
    }
}

/// What shards route by: fleet and prefix tree of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts publications.
    pub version: u64,
    /// Workers and pools.
    pub fleet: Arc<Fleet>,
    /// Which worker holds which prompt prefix.
    pub tree: TreeSnapshot,
}
