//! The table of registered workers: ids, lookups by URL and UUID, and who is to be checked, polled and let in again when.
//!
//! Invariants
//! - An index is reused, a generation never: two registrations never share a [`WorkerId`].
//! - URLs and UUIDs lead to workers that are registered; a draining worker has given both up.
//! - A worker stands in a timetable exactly when its `due` says so.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use futures_channel::oneshot;
use uuid::Uuid;

use crate::control::limits::WORKERS_MAX;
use crate::control::timetable::Timetable;
use crate::control::url::WorkerUrl;
use crate::control::worker::Entry;
use crate::control::worker::Stage;
use crate::control::worker::WorkerSpec;

/// All workers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Vec<Option<Entry>>,
    free: BTreeSet<u32>,
    generation_last: u32,
    by_url: HashMap<Box<str>, WorkerId>,
    by_uuid: HashMap<Uuid, WorkerId>,
    /// Indices of registered workers, those that drain left out.
    members: BTreeSet<u32>,
    checks: Timetable,
    polls: Timetable,
    circuits: Timetable,
    draining: Vec<WorkerId>,
}

impl Registry {
    /// Whether one more worker fits.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < WORKERS_MAX || !self.free.is_empty()
    }

    /// Registers a worker whose URL is not registered. There must be room.
    pub(crate) fn insert(&mut self, uuid: Uuid, spec: WorkerSpec, now: Duration) -> WorkerId {
        assert!(self.has_room(), "the caller checks for room");
        let index = self.free.pop_first().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.generation_last =
            self.generation_last.checked_add(1).expect("fewer than 4 billion registrations");
        let id = WorkerId { index, generation: self.generation_last };
        let same_url = self.by_url.insert(spec.url.key(), id);
        let same_uuid = self.by_uuid.insert(uuid, id);
        assert!(same_url.is_none() && same_uuid.is_none(), "URLs and UUIDs are registered once");
        self.members.insert(index);
        self.slots[index as usize] = Some(Entry::new(id, uuid, spec, now));
        id
    }

    /// The worker with this id, also while it drains.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Entry> {
        self.slots.get(id.index as usize)?.as_ref().filter(|entry| entry.id == id)
    }

    /// As [`Registry::get`], to change it. When it is due is changed through [`Registry::schedule`] and
    /// [`Registry::schedule_poll`] alone.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Entry> {
        self.slots.get_mut(id.index as usize)?.as_mut().filter(|entry| entry.id == id)
    }

    pub(crate) fn by_url(&self, url: &WorkerUrl) -> Option<&Entry> {
        self.get(*self.by_url.get(&url.key())?)
    }

    pub(crate) fn by_uuid(&self, uuid: Uuid) -> Option<&Entry> {
        self.get(*self.by_uuid.get(&uuid)?)
    }

    /// Every slot by index, free ones included.
    pub(crate) fn slots(&self) -> &[Option<Entry>] {
        &self.slots
    }

    /// Registered workers in order of index, without those that drain.
    pub(crate) fn registered(&self) -> impl Iterator<Item = &Entry> {
        self.registered_from(0)
    }

    /// As [`Registry::registered`], from an index on. Costs what is taken of it, however many stand before.
    pub(crate) fn registered_from(&self, index: u32) -> impl Iterator<Item = &Entry> {
        self.members.range(index..).filter_map(|&index| self.slots[index as usize].as_ref())
    }

    /// How many there are of these.
    pub(crate) fn registered_count(&self) -> usize {
        self.members.len()
    }

    /// How many there are of each role: regular, prefill, decode.
    pub(crate) fn count_roles(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for index in &self.members {
            if let Some(entry) = &self.slots[*index as usize] {
                counts[entry.spec.role as usize] += 1;
            }
        }
        counts
    }

    /// Takes the ways back of all who wait for a worker to become healthy.
    pub(crate) fn take_waiting(&mut self) -> Vec<oneshot::Sender<AdminReply>> {
        self.slots.iter_mut().flatten().filter_map(|entry| entry.waiting.take()).collect()
    }

    /// Has the worker checked at `due`, or not at all.
    pub(crate) fn schedule(&mut self, id: WorkerId, due: Option<Duration>) {
        let Self { slots, checks, .. } = self;
        if let Some(entry) = scheduled(slots, id) {
            checks.set(id, &mut entry.due, due);
        }
    }

    /// Has the worker polled at `due`, or not at all.
    pub(crate) fn schedule_poll(&mut self, id: WorkerId, due: Option<Duration>) {
        let Self { slots, polls, .. } = self;
        if let Some(entry) = scheduled(slots, id) {
            polls.set(id, &mut entry.polling.due, due);
        }
    }

    /// Has the worker's circuit breaker or ramp go on at `due`, or not at all.
    pub(crate) fn schedule_circuit(&mut self, id: WorkerId, due: Option<Duration>) {
        let Self { slots, circuits, .. } = self;
        if let Some(entry) = scheduled(slots, id) {
            circuits.set(id, &mut entry.circuit_due, due);
        }
    }

    /// When the next check, poll, circuit breaker or ramp is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        [self.checks.next_due(), self.polls.next_due(), self.circuits.next_due()].into_iter().flatten().min()
    }

    /// Takes the next worker that is due to be checked by `now`.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<WorkerId> {
        let id = self.checks.first_due(now)?;
        self.schedule(id, None);
        Some(id)
    }

    /// Takes the next worker that is due to be polled by `now`.
    pub(crate) fn take_poll_due(&mut self, now: Duration) -> Option<WorkerId> {
        let id = self.polls.first_due(now)?;
        self.schedule_poll(id, None);
        Some(id)
    }

    /// Takes the next worker whose circuit breaker or ramp is due to go on by `now`.
    pub(crate) fn take_circuit_due(&mut self, now: Duration) -> Option<WorkerId> {
        let id = self.circuits.first_due(now)?;
        self.schedule_circuit(id, None);
        Some(id)
    }

    /// Begins the removal of a registered worker: it keeps its id until [`Registry::free_idle`] frees it.
    pub(crate) fn retire(&mut self, id: WorkerId) {
        self.schedule(id, None);
        self.schedule_poll(id, None);
        self.schedule_circuit(id, None);
        let entry = self.get_mut(id).expect("a worker that is retired is registered");
        assert_ne!(entry.stage, Stage::Draining, "a worker is retired once");
        entry.stage = Stage::Draining;
        let (key, uuid) = (entry.spec.url.key(), entry.uuid);
        self.by_url.remove(&key);
        self.by_uuid.remove(&uuid);
        self.members.remove(&id.index);
        self.draining.push(id);
    }

    pub(crate) fn has_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Frees draining workers whose last request has ended, and says who they were.
    pub(crate) fn free_idle(&mut self) -> Vec<WorkerId> {
        let Self { slots, free, draining, .. } = self;
        let mut freed = Vec::new();
        draining.retain(|id| {
            let slot = &mut slots[id.index as usize];
            let is_busy = slot.as_ref().is_some_and(|entry| entry.cells.load() > 0);
            if !is_busy {
                *slot = None;
                free.insert(id.index);
                freed.push(*id);
            }
            is_busy
        });
        freed
    }
}

/// The entry of a worker that is put on or taken off a timetable.
fn scheduled(slots: &mut [Option<Entry>], id: WorkerId) -> Option<&mut Entry> {
    let entry = slots.get_mut(id.index as usize)?.as_mut()?;
    assert_eq!(entry.id, id, "a worker that is scheduled is registered");
    Some(entry)
}
