//! Connections to workers: one keep-alive pool per worker, on this shard alone; over HTTP/2, a few that are shared.

use std::net::SocketAddr;

use fleet::id::WorkerId;
use fleet::snapshot::Fleet;
use fleet::snapshot::Worker;

use crate::http2::Multiplexed;
use crate::limits;
use crate::rt::socket::Received;
use crate::rt::socket::Socket;

/// A connection in use by one exchange.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Socket,
    /// Where it leads. A worker whose name moves on leaves its old connections behind.
    pub(crate) address: SocketAddr,
    /// Whether it has served a request before, so that the worker may have closed it meanwhile.
    pub(crate) is_reused: bool,
}

#[derive(Debug)]
struct Idle {
    stream: Socket,
    address: SocketAddr,
    since_ms: u64,
}

#[derive(Debug, Default)]
struct WorkerPool {
    generation: u32,
    /// Most recently used last: taken from the end, so that the excess ages at the front.
    idle: Vec<Idle>,
    /// Over HTTP/2: connections that carry streams, or may.
    shared: Vec<Shared>,
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    connection: Multiplexed,
    address: SocketAddr,
    /// When it last began a stream.
    since_ms: u64,
}

/// The pools, by worker index.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    pools: Vec<WorkerPool>,
}

impl Upstreams {
    /// Takes the most recently used idle connection that is still good.
    ///
    /// Every one is looked at first, however short it was idle: bytes that nobody asked for would be taken for the
    /// answer to the next request, and every later answer would go to the wrong client.
    pub(crate) fn checkout(&mut self, worker: &Worker, now_ms: u64) -> Option<Connection> {
        let pool = self.pools.get_mut(worker.id.index as usize)?;
        if pool.generation != worker.id.generation {
            return None;
        }
        if let Some(shared) = pool.share(worker) {
            shared.since_ms = now_ms;
            let stream = shared.connection.open();
            return Some(Connection { stream, address: shared.address, is_reused: true });
        }
        while let Some(Idle { stream, address, .. }) = pool.idle.pop() {
            if worker.addresses.contains(&address) && is_open(&stream) {
                return Some(Connection { stream, address, is_reused: true });
            }
        }
        None
    }

    /// Keeps a connection for the next request to the same worker.
    pub(crate) fn checkin(&mut self, worker: WorkerId, connection: Connection, now_ms: u64) {
        if self.is_outdated(worker) {
            return;
        }
        let pool = self.pool(worker);
        if pool.idle.len() < limits::UPSTREAM_IDLE_PER_WORKER_MAX {
            pool.idle.push(Idle { stream: connection.stream, address: connection.address, since_ms: now_ms });
        }
    }

    /// Takes over an HTTP/2 connection, of which the first stream is returned.
    pub(crate) fn adopt(
        &mut self,
        worker: WorkerId,
        address: SocketAddr,
        connection: Multiplexed,
        now_ms: u64,
    ) -> Socket {
        let stream = connection.open();
        if self.is_outdated(worker) {
            return stream;
        }
        let pool = self.pool(worker);
        // Many requests that came at once may each have made one: those beyond the bound end with their stream.
        if pool.shared.len() < limits::HTTP2_WORKER_CONNECTIONS_MAX {
            pool.shared.push(Shared { connection, address, since_ms: now_ms });
        }
        stream
    }

    /// Whether another worker has its place by now; generations only grow.
    fn is_outdated(&self, worker: WorkerId) -> bool {
        self.pools.get(worker.index as usize).is_some_and(|pool| pool.generation > worker.generation)
    }

    fn pool(&mut self, worker: WorkerId) -> &mut WorkerPool {
        let index = worker.index as usize;
        if self.pools.len() <= index {
            self.pools.resize_with(index + 1, WorkerPool::default);
        }
        let pool = &mut self.pools[index];
        if pool.generation != worker.generation {
            *pool = WorkerPool { generation: worker.generation, ..WorkerPool::default() };
        }
        pool
    }

    /// Closes what the worker has closed, what is too old, and all that belongs to workers that have left.
    pub(crate) fn sweep(&mut self, fleet: &Fleet, now_ms: u64) {
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let id = WorkerId { index: index as u32, generation: pool.generation };
            let Some(worker) = fleet.worker(id) else {
                pool.idle = Vec::new();
                pool.shared = Vec::new();
                continue;
            };
            let is_young = |since_ms: u64| {
                u128::from(now_ms.saturating_sub(since_ms)) < limits::UPSTREAM_IDLE_MAX.as_millis()
            };
            pool.idle.retain(|idle| {
                is_young(idle.since_ms) && worker.addresses.contains(&idle.address) && is_open(&idle.stream)
            });
            pool.shared.retain_mut(|shared| {
                (is_young(shared.since_ms) || shared.connection.streams() > 0)
                    && worker.addresses.contains(&shared.address)
                    && shared.connection.is_open()
            });
        }
    }

    /// Idle connections kept, over all workers.
    pub(crate) fn idle(&self) -> usize {
        let is_idle = |shared: &&Shared| shared.connection.streams() == 0;
        self.pools.iter().map(|pool| pool.idle.len() + pool.shared.iter().filter(is_idle).count()).sum()
    }
}

// === impl WorkerPool ===

impl WorkerPool {
    /// The HTTP/2 connection for the next stream; none when another is better made.
    fn share(&mut self, worker: &Worker) -> Option<&mut Shared> {
        self.shared
            .retain_mut(|shared| worker.addresses.contains(&shared.address) && shared.connection.is_open());
        let is_full = self.shared.len() >= limits::HTTP2_WORKER_CONNECTIONS_MAX;
        // The least busy one: of several that are full, the one with the shortest wait.
        let least = self.shared.iter_mut().min_by_key(|shared| shared.connection.streams())?;
        (least.connection.has_room() || is_full).then_some(least)
    }
}

/// Whether an idle connection is still good: nothing to read. A byte out of turn is as bad as a close.
fn is_open(stream: &Socket) -> bool {
    matches!(stream.peek(), Ok(Received::WouldBlock))
}
