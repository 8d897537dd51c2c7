//! The queue of one class: fair among tenants by the tokens they ask for, first come first served within each.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): a tenant's next request has a start tag, which is where its last
//! one ended; the least tag goes first, and virtual time is the tag of who went last. A tenant that comes back begins
//! at virtual time: what it left unused is not saved up. What a request turned out to cost beyond or below what it was
//! taken for moves its tenant's tag, so shares are of tokens used, not of tokens asked for.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;

use super::TenantId;

/// Tenants remembered beyond those that wait: who got more than virtual time, for as long as it has. A few hundred KiB;
/// beyond it the one that is least ahead is forgotten.
const IDLE_TENANTS_MAX: usize = 4096;
/// Where virtual time begins: high enough that a tag can go below it.
const TIME_BEGIN: u64 = 1 << 40;

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    /// Names it among all that ever waited.
    pub(super) id: u64,
    pub(super) tenant: TenantId,
    /// What it is taken to cost.
    pub(super) tokens: u32,
    pub(super) entered_us: u64,
    /// How it is told what became of it.
    pub(super) reply: T,
}

#[derive(Debug)]
struct Tenant<T> {
    /// Start tag of its next request.
    tag: u64,
    /// Each with its number in the order of arrival.
    queue: VecDeque<(u64, Waiter<T>)>,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    virtual_time: u64,
    arrivals: u64,
    len: usize,
    tenants: HashMap<TenantId, Tenant<T>>,
    /// Tenants that wait, by start tag.
    by_tag: BTreeSet<(u64, TenantId)>,
    /// Tenants that wait, by the arrival of their first.
    by_arrival: BTreeSet<(u64, TenantId)>,
    /// Tenants that wait, by how many places they hold.
    by_places: BTreeSet<(usize, TenantId)>,
    /// Tenants that do not wait, by tag.
    idle: BTreeSet<(u64, TenantId)>,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Self {
        Self {
            virtual_time: TIME_BEGIN,
            arrivals: 0,
            len: 0,
            tenants: HashMap::new(),
            by_tag: BTreeSet::new(),
            by_arrival: BTreeSet::new(),
            by_places: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// When who has waited longest came.
    pub(super) fn oldest_us(&self) -> Option<u64> {
        let &(_, tenant) = self.by_arrival.first()?;
        let (_, first) = self.tenants.get(&tenant)?.queue.front()?;
        Some(first.entered_us)
    }

    /// Takes a waiter in.
    pub(super) fn push(&mut self, waiter: Waiter<T>) {
        self.arrivals += 1;
        let (arrival, virtual_time) = (self.arrivals, self.virtual_time);
        self.update(waiter.tenant, |tenant| {
            if tenant.queue.is_empty() {
                tenant.tag = tenant.tag.max(virtual_time);
            }
            tenant.queue.push_back((arrival, waiter));
        });
    }

    /// Whose turn it is.
    pub(super) fn pop_fair(&mut self) -> Option<Waiter<T>> {
        let &(tag, tenant) = self.by_tag.first()?;
        self.virtual_time = self.virtual_time.max(tag);
        self.pop_front(tenant)
    }

    /// Who has waited longest.
    pub(super) fn pop_oldest(&mut self) -> Option<Waiter<T>> {
        let &(_, tenant) = self.by_arrival.first()?;
        self.pop_front(tenant)
    }

    fn pop_front(&mut self, tenant: TenantId) -> Option<Waiter<T>> {
        self.update(tenant, |tenant| {
            let (_, waiter) = tenant.queue.pop_front()?;
            tenant.tag += u64::from(waiter.tokens);
            Some(waiter)
        })
    }

    /// Who gives up its place to a newcomer: the last of the tenant that holds most, if places are then shared more
    /// evenly than before.
    pub(super) fn displace_for(&mut self, newcomer: TenantId) -> Option<Waiter<T>> {
        let held = self.tenants.get(&newcomer).map_or(0, |tenant| tenant.queue.len());
        let &(most, holder) = self.by_places.last()?;
        if most < held + 2 {
            return None;
        }
        self.update(holder, |tenant| tenant.queue.pop_back()).map(|(_, waiter)| waiter)
    }

    /// Takes out who has left.
    pub(super) fn remove(&mut self, tenant: TenantId, id: u64) -> Option<Waiter<T>> {
        let queue = &self.tenants.get(&tenant)?.queue;
        let at = queue.iter().position(|(_, waiter)| waiter.id == id)?;
        self.update(tenant, |tenant| tenant.queue.remove(at)).map(|(_, waiter)| waiter)
    }

    /// Moves a tenant's tag by what a request cost beyond (or below) what it was taken for. Whoever has been forgotten
    /// is no longer ahead, and stays so.
    pub(super) fn settle(&mut self, tenant: TenantId, tokens: i64) {
        if self.tenants.contains_key(&tenant) {
            self.update(tenant, |tenant| tenant.tag = tenant.tag.saturating_add_signed(tokens));
        }
    }

    /// Changes a tenant, and then what it is found by.
    fn update<R>(&mut self, id: TenantId, change: impl FnOnce(&mut Tenant<T>) -> R) -> R {
        let begin = || Tenant { tag: self.virtual_time, queue: VecDeque::new() };
        let tenant = self.tenants.entry(id).or_insert_with(begin);
        match tenant.queue.front() {
            Some(&(arrival, _)) => {
                self.by_tag.remove(&(tenant.tag, id));
                self.by_arrival.remove(&(arrival, id));
                self.by_places.remove(&(tenant.queue.len(), id));
                self.len -= tenant.queue.len();
            }
            None => {
                self.idle.remove(&(tenant.tag, id));
            }
        }
        let result = change(tenant);
        match tenant.queue.front() {
            Some(&(arrival, _)) => {
                self.by_tag.insert((tenant.tag, id));
                self.by_arrival.insert((arrival, id));
                self.by_places.insert((tenant.queue.len(), id));
                self.len += tenant.queue.len();
            }
            None => {
                self.idle.insert((tenant.tag, id));
            }
        }
        self.forget();
        result
    }

    /// Forgets tenants that are not ahead, and everybody when nobody waits: then there is nothing to share.
    fn forget(&mut self) {
        if self.len == 0 {
            let last = self.idle.last().map_or(0, |&(tag, _)| tag);
            self.virtual_time = self.virtual_time.max(last);
            self.idle.clear();
            self.tenants.clear();
            return;
        }
        while let Some(&(tag, id)) = self.idle.first()
            && (tag <= self.virtual_time || self.idle.len() > IDLE_TENANTS_MAX)
        {
            self.idle.pop_first();
            self.tenants.remove(&id);
        }
    }

    /// Tenants remembered.
    #[cfg(test)]
    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }
}
