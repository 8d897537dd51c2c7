//! What a shard keeps between requests: snapshot, replica, worker connections, buffers, slots.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api::peek::PromptSpans;
use arc_swap::ArcSwap;
use arc_swap::Cache;
use fleet::admission::Gate;
use fleet::budget::RetryBudget;
use fleet::cell::Lifecycle;
use fleet::decision::DecisionRing;
use fleet::peers::Admission;
use fleet::peers::Slot;
use fleet::pressure::FullWorkers;
use fleet::snapshot::Fleet;
use fleet::snapshot::Snapshot;
use fleet::stats::ShardStats;
use fleet::tenants::Tenants;
use policy::Replica;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::ShardConfig;
use crate::Shared;
use crate::admit::Queue;
use crate::client::Origin;
use crate::clock::Clock;
use crate::guard::Door;
use crate::limits;
use crate::port::Ports;
use crate::rt::wait::Slots;
use crate::upstream::Upstreams;

/// Keeps the replica's draws apart from those for request ids.
const SALT_REPLICA: u64 = 0x7265_706c_6963_6100;
const SALT_IDS: u64 = 0x6964_7300_0000_0000;
const ID_CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random characters of a made-up request id, as SGLang's gateway makes them.
const ID_RANDOM_LEN: usize = 24;

/// Working memory that no request keeps over an await.
pub(crate) struct Scratch {
    /// Bytes just read from a worker.
    pub(crate) inbound: Box<[u8]>,
    /// Bytes about to be written to a client.
    pub(crate) outbound: Vec<u8>,
}

pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) slots: Slots,
    pub(crate) ports: Ports,
    pub(crate) upstreams: RefCell<Upstreams>,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) prompt: RefCell<Prompt>,
    pub(crate) replica: RefCell<Replica>,
    /// Workers that this shard has to let off.
    pub(crate) full_workers: RefCell<FullWorkers>,
    pub(crate) decisions: Arc<DecisionRing>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) retry_budget: Arc<RetryBudget>,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) queue: Queue,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    /// The settings of this moment, as a copy that no other shard touches.
    config: RefCell<Rc<ShardConfig>>,
    /// What that is a copy of, and where a changed one will be.
    settings: RefCell<Arc<ShardConfig>>,
    settings_source: Arc<ArcSwap<ShardConfig>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    /// Capacity of all of them.
    buffer_bytes: Cell<usize>,
    ids: RefCell<SmallRng>,
    connections: Cell<u64>,
}

/// Working memory of one routing decision.
#[derive(Default)]
pub(crate) struct Prompt {
    pub(crate) spans: PromptSpans,
    pub(crate) blocks: Vec<u64>,
}

impl Shard {
    pub(crate) fn new(
        index: usize,
        shared: Shared,
        stats: Arc<ShardStats>,
        decisions: Arc<DecisionRing>,
        start: Instant,
    ) -> Self {
        let ports = Ports::new(&shared);
        let snapshot = Cache::new(shared.snapshot);
        let settings = shared.config.load_full();
        let config = ShardConfig::clone(&settings);
        let shard_seed = config.seed.wrapping_add(index as u64);
        Self {
            index,
            clock: Clock::new(start),
            slots: Slots::default(),
            ports,
            upstreams: RefCell::new(Upstreams::default()),
            scratch: RefCell::new(Scratch {
                inbound: vec![0; limits::STREAM_READ_BYTES].into_boxed_slice(),
                outbound: Vec::with_capacity(limits::STREAM_READ_BYTES),
            }),
            prompt: RefCell::new(Prompt::default()),
            replica: RefCell::new(Replica::new(shard_seed ^ SALT_REPLICA)),
            full_workers: RefCell::default(),
            decisions,
            lifecycle: shared.lifecycle,
            retry_budget: shared.retry_budget,
            gate: shared.gate,
            tenants: shared.tenants,
            queue: Queue::default(),
            snapshot: RefCell::new(snapshot),
            buffers: RefCell::new(Vec::new()),
            buffer_bytes: Cell::new(0),
            ids: RefCell::new(SmallRng::seed_from_u64(shard_seed ^ SALT_IDS)),
            connections: Cell::new(0),
            config: RefCell::new(Rc::new(config)),
            settings: RefCell::new(settings),
            settings_source: shared.config,
            stats,
        }
    }

    /// The settings of this moment. Whoever needs the same ones later keeps what this returns.
    #[inline]
    pub(crate) fn config(&self) -> Rc<ShardConfig> {
        Rc::clone(&self.config.borrow())
    }

    /// Takes over settings that were changed since the last call.
    pub(crate) fn take_settings(&self) {
        let settings = self.settings_source.load();
        if !Arc::ptr_eq(&settings, &self.settings.borrow()) {
            *self.config.borrow_mut() = Rc::new(ShardConfig::clone(&settings));
            *self.settings.borrow_mut() = Arc::clone(&settings);
        }
    }

    /// Calls `f` with the latest snapshot.
    ///
    /// A snapshot is never kept: it would keep an old prefix tree alive for the length of a stream.
    pub(crate) fn with_snapshot<T>(&self, f: impl FnOnce(&Snapshot) -> T) -> T {
        f(self.snapshot.borrow_mut().load())
    }

    /// The latest fleet, for a moment: no stream keeps one either.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        self.with_snapshot(|snapshot| Arc::clone(&snapshot.fleet))
    }

    /// An empty read buffer.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        match self.buffers.borrow_mut().pop() {
            Some(buffer) => {
                self.buffer_bytes.set(self.buffer_bytes.get() - buffer.capacity());
                buffer
            }
            None => Vec::with_capacity(limits::BUFFER_BYTES),
        }
    }

    /// Takes a buffer back, unless it grew too large or there are enough.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        let is_worth_keeping =
            (limits::BUFFER_BYTES..=limits::BUFFER_KEPT_BYTES_MAX).contains(&buffer.capacity());
        let bytes = self.buffer_bytes.get() + buffer.capacity();
        if is_worth_keeping
            && buffers.len() < limits::BUFFERS_KEPT_MAX
            && bytes <= limits::BUFFERS_KEPT_BYTES_MAX
        {
            self.buffer_bytes.set(bytes);
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A draw between 0 and 1.
    pub(crate) fn chance(&self) -> f64 {
        self.ids.borrow_mut().random()
    }

    /// A random number that is never 0.
    pub(crate) fn draw(&self) -> u64 {
        self.ids.borrow_mut().random_range(1..=u64::MAX)
    }

    /// Makes up a request id in the form of a random UUID (RFC 9562 §5.4).
    pub(crate) fn new_uuid(&self) -> String {
        let bits = u128::from(self.draw()) << 64 | u128::from(self.draw());
        let bits = bits & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
        let hex = format!("{bits:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    /// Makes up a request id.
    pub(crate) fn new_request_id(&self, prefix: &str) -> String {
        let mut ids = self.ids.borrow_mut();
        let mut id = String::with_capacity(prefix.len() + ID_RANDOM_LEN);
        id.push_str(prefix);
        for _ in 0..ID_RANDOM_LEN / 8 {
            // Six bits a character, and the two values beyond the alphabet fold onto its start.
            let bits: u64 = ids.random();
            id.extend((0..8).map(|at| ID_CHARACTERS[(bits >> (at * 6)) as usize % 64 % 62] as char));
        }
        id
    }

    /// Counts a client connection, unless the shard or its address has its fill.
    pub(crate) fn admit_connection(self: &Rc<Self>, origin: Origin) -> Option<ConnectionPermit> {
        let spare = match origin.door {
            Door::Main => 0,
            Door::Admin => limits::ADMIN_CONNECTIONS_SPARE,
        };
        if self.connections.get() >= self.config.borrow().connections_max.saturating_add(spare) {
            self.stats.connections_refused_total.add(1);
            return None;
        }
        let admission = self
            .config
            .borrow()
            .peers
            .as_ref()
            .map_or(Admission::Uncounted, |peers| peers.enter(origin.peer));
        let slot = match admission {
            Admission::Counted(slot) => Some(slot),
            Admission::Uncounted => None,
            Admission::Refused => {
                self.stats.connections_over_address_total.add(1);
                return None;
            }
        };
        self.connections.set(self.connections.get() + 1);
        self.stats.connections_active.add(1);
        self.stats.connections_total.add(1);
        Some(ConnectionPermit { shard: Rc::clone(self), slot })
    }
}

/// One counted client connection; dropping it counts it out.
pub(crate) struct ConnectionPermit {
    shard: Rc<Shard>,
    /// Where its address is counted.
    slot: Option<Slot>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let (Some(peers), Some(slot)) = (&self.shard.config().peers, &self.slot) {
            peers.leave(slot);
        }
        self.shard.connections.set(self.shard.connections.get() - 1);
        self.shard.stats.connections_active.sub(1);
    }
}
