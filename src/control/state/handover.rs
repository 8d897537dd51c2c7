//! What one process tells the next, and how the next one goes on with it: the fleet as it stands, who holds which
//! prefix, whose a key is. Workers are routable there at once.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleet::id::WorkerId;
use fleet::snapshot::Fleet;
use fleet::tree::HolderId;
use fleet::tree::Malformed;
use fleet::tree::TreeImport;
use fleet::tree::TreeSnapshot;

use super::State;
use crate::control::record::HealthRecord;
use crate::control::record::WorkerRecord;
use crate::control::url::WorkerUrl;
use crate::control::worker::Recovery;
use crate::control::worker::Source;
use crate::control::worker::Stage;
use crate::control::worker::WorkerSpec;

/// Bytes of a key with its owner: the key, the owner's index, the tick of its last use.
const KEY_BYTES: usize = 16;

/// Everything that one process tells the next. It is taken at one moment and costs control a list of its workers; the
/// rest is shared and read where it is sent.
pub struct Export {
    /// Time of this process at that moment.
    pub(crate) now: Duration,
    pub(crate) block_seed: u64,
    pub(crate) started_unix_s: u64,
    pub(crate) workers: Vec<WorkerRecord>,
    pub(crate) tree: TreeSnapshot,
    pub(crate) fleet: Arc<Fleet>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// Under which id each worker goes on, by its index in the process before.
#[derive(Debug, Default)]
pub(crate) struct Successors(HashMap<u32, WorkerId>);

impl Export {
    /// Every key that belongs to a worker which is told of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = [u8; KEY_BYTES]> + '_ {
        self.fleet.sticky.entries().filter_map(|(key, owner)| {
            let worker = self.fleet.workers.get(owner.index)?;
            let mut bytes = [0; KEY_BYTES];
            bytes[..8].copy_from_slice(&key.to_le_bytes());
            bytes[8..12].copy_from_slice(&owner.index.to_le_bytes());
            bytes[12..].copy_from_slice(&owner.tick.to_le_bytes());
            owner.is(worker.id).then_some(bytes)
        })
    }
}

impl Successors {
    fn holder(&self, holder: HolderId) -> Option<HolderId> {
        self.0.get(&holder.0).map(|id| HolderId(id.index))
    }
}

impl State {
    /// Whether the fleet may be changed by a call: not from the moment on at which another process has been told of it,
    /// unless that one does not come to serve.
    pub(crate) fn may_change(&self) -> bool {
        !self.is_told
    }

    /// Everything that the next process has to know.
    pub(super) fn export(&mut self, now: Duration) -> Export {
        self.is_told = true;
        let policy =
            |entry: &super::Entry| entry.pools.first().map(|pool| self.models.get(pool).policy.name());
        Export {
            now,
            block_seed: self.config.block_seed,
            started_unix_s: self.config.started_unix_s,
            workers: self
                .registry
                .registered()
                .filter_map(|entry| WorkerRecord::of(entry, policy(entry)))
                .collect(),
            tree: self.tree.snapshot(),
            fleet: Arc::clone(&self.fleet),
        }
    }

    /// Takes over the workers of the process before, but those which its settings named and `specs`, the settings of
    /// this one, do not.
    pub(super) fn go_on_with(&mut self, workers: Vec<WorkerRecord>, specs: &[WorkerSpec], now: Duration) {
        let named: HashMap<_, _> = specs.iter().map(|spec| (spec.url.key(), spec)).collect();
        let mut successors = Successors::default();
        let mut uuids = HashSet::new();
        for record in workers {
            let (Ok(url), Some(uuid)) = (WorkerUrl::parse_unit(&record.url), record.uuid()) else { continue };
            let url = if self.config.dp_aware || url.is_further_rank() { url } else { url.at_rank(None) };
            let is_rank_too_many = url.is_further_rank() && !self.config.dp_aware;
            let named = named.get(&url.at_rank(None).key());
            let is_unwanted = record.source == Source::Settings && named.is_none();
            let is_refused = self.config.destinations.check(&url).is_err();
            let is_twice = self.registry.by_url(&url).is_some() || !uuids.insert(uuid);
            if is_unwanted || is_refused || is_twice || is_rank_too_many || !self.registry.has_room() {
                continue;
            }
            let named = named.filter(|_| record.source == Source::Settings);
            let spec = WorkerSpec {
                api_key: named.map_or_else(|| record.key(), |named| named.api_key.clone()),
                model_id: record.model_id.clone(),
                role: named.map_or_else(|| record.role.into(), |named| named.role),
                bootstrap_port: named.map_or(record.bootstrap_port, |named| named.bootstrap_port),
                priority: record.priority,
                cost: record.cost,
                labels: record.labels.clone(),
                declared: record.declared(),
                source: record.source,
                ..WorkerSpec::new(url, named.map_or_else(|| record.checks.checks(), |named| named.checks))
            };
            let since = Duration::from_millis(record.since_ms).min(now);
            let id = self.registry.insert(uuid, spec, since);
            successors.0.insert(record.index, id);
            self.go_on_with_one(id, record, now);
        }
        self.successors = successors;
    }

    fn go_on_with_one(&mut self, id: WorkerId, record: WorkerRecord, now: Duration) {
        let Some(entry) = self.registry.get_mut(id) else { return };
        entry.is_expected_back = record.is_expected_back;
        entry.cells.breaker().restore(record.breaker);
        entry.set_addresses(record.addresses);
        let is_known = record.health != HealthRecord::Pending && !record.models.is_empty();
        if !is_known {
            self.registry.schedule(id, Some(now));
            return self.touch(id);
        }
        *entry.metadata = record.metadata.metadata();
        for name in &record.models {
            let name = self.models.admit(name, entry.spec.role, record.policy.as_deref());
            if entry.pools.contains(&name) {
                self.models.release(&[name]);
            } else {
                entry.pools.push(name);
            }
        }
        entry.set_boards(entry.pools.iter().map(|name| Arc::clone(&self.models.get(name).board)).collect());
        entry.stage = match record.health {
            HealthRecord::Unhealthy => Stage::Unhealthy { successes: 0 },
            HealthRecord::Ready | HealthRecord::Pending => Stage::Ready { failures: 0 },
        };
        if let Some(since_ms) = record.recovers_since_ms {
            entry.recovery = Recovery::Since(Duration::from_millis(since_ms).min(now));
        }
        self.touch(id);
        self.schedule_check(id, now);
        self.watch_load(id, now);
        self.circuit_moved(id, now);
        self.circuit_due(id, now);
    }

    /// Takes over the prefix tree of the process before, part by part.
    ///
    /// # Errors
    /// What `next` fails with, or what it makes of parts that are none.
    pub(crate) fn take_tree<E: From<Malformed>>(
        &mut self,
        mut next: impl FnMut() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        let successors = std::mem::take(&mut self.successors);
        let mut import = TreeImport::new(&mut self.tree);
        while let Some(part) = next()? {
            import.take(&part, |holder| successors.holder(holder))?;
        }
        import.finish();
        self.successors = successors;
        for entry in self.registry.registered() {
            entry.cells.set_held_blocks(self.tree.holder_blocks(HolderId(entry.id.index)));
        }
        Ok(())
    }

    /// Takes over keys of the process before.
    ///
    /// # Errors
    /// When the bytes are no keys.
    pub(crate) fn take_keys(&self, bytes: &[u8]) -> Result<(), Malformed> {
        let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
        if !rest.is_empty() {
            return Err(Malformed);
        }
        for bytes in keys {
            let word = u128::from_le_bytes(*bytes);
            let (key, index, tick) = (word as u64, (word >> 64) as u32, (word >> 96) as u32);
            if let Some(&worker) = self.successors.0.get(&index)
                && key != 0
            {
                self.sticky.assign(key, None, worker, tick);
            }
        }
        Ok(())
    }
}
