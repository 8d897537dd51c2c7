//! Who is next: the queues of all classes as a plain value, which knows neither threads nor clocks.
//!
//! Classes go in strict order, as far as each may start. So that none waits for ever, at most every
//! [`PROMOTION_EVERY`]th start goes to whoever has waited longest beyond its class's patience.

use super::ClassId;
use super::GateRules;
use super::Place;
use super::lane::Lane;
use super::lane::Waiter;

/// Of so many starts, one may go to a class out of its turn: those above it keep three quarters of the capacity.
pub(super) const PROMOTION_EVERY: u32 = 4;

#[derive(Debug)]
pub(super) struct Arbiter<T> {
    lanes: Vec<Lane<T>>,
    queue_max: Vec<usize>,
    starvation_us: Vec<Option<u64>>,
    /// Starts since the last one out of turn.
    starts_in_turn: u32,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turn<T> {
    pub(super) class: ClassId,
    pub(super) waiter: Waiter<T>,
    /// A class above it waits still.
    pub(super) is_promoted: bool,
}

impl<T> Arbiter<T> {
    pub(super) fn new(rules: &GateRules) -> Self {
        let micros = |duration: std::time::Duration| duration.as_micros() as u64;
        Self {
            lanes: rules.classes.iter().map(|_| Lane::new()).collect(),
            queue_max: rules.classes.iter().map(|class| class.queue_max as usize).collect(),
            starvation_us: rules.classes.iter().map(|class| class.starvation.map(micros)).collect(),
            starts_in_turn: 0,
        }
    }

    /// How many of a class wait.
    pub(super) fn depth(&self, class: ClassId) -> usize {
        self.lanes[usize::from(class.0)].len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.len() == 0)
    }

    /// Takes a waiter in. Where its class's queue is full, somebody is turned away: the last of the tenant that holds
    /// most places, if that shares them more evenly, else the waiter itself.
    pub(super) fn enter(&mut self, class: ClassId, waiter: Waiter<T>) -> Option<Waiter<T>> {
        let at = usize::from(class.0);
        let lane = &mut self.lanes[at];
        if lane.len() < self.queue_max[at] {
            lane.push(waiter);
            return None;
        }
        match lane.displace_for(waiter.tenant) {
            Some(displaced) => {
                lane.push(waiter);
                Some(displaced)
            }
            None => Some(waiter),
        }
    }

    /// Takes out who has left, if it is still here.
    pub(super) fn leave(&mut self, place: Place) -> Option<Waiter<T>> {
        self.lanes[usize::from(place.class.0)].remove(place.tenant, place.id)
    }

    /// Takes out whose turn it is among the classes that may start one more.
    pub(super) fn next(&mut self, may_start: impl Fn(ClassId) -> bool, now_us: u64) -> Option<Turn<T>> {
        let ready = |at: &usize| self.lanes[*at].len() > 0 && may_start(ClassId(*at as u8));
        let first = (0..self.lanes.len()).find(ready)?;
        let starved = (self.starts_in_turn + 1 >= PROMOTION_EVERY)
            .then(|| (first + 1..self.lanes.len()).filter(ready).filter(|&at| self.is_starved(at, now_us)))
            .and_then(|starved| starved.min_by_key(|&at| self.lanes[at].oldest_us()));
        let (at, waiter) = match starved {
            Some(at) => (at, self.lanes[at].pop_oldest()?),
            None => (first, self.lanes[first].pop_fair()?),
        };
        self.starts_in_turn = if starved.is_some() { 0 } else { self.starts_in_turn.saturating_add(1) };
        Some(Turn { class: ClassId(at as u8), waiter, is_promoted: starved.is_some() })
    }

    fn is_starved(&self, at: usize, now_us: u64) -> bool {
        match (self.starvation_us[at], self.lanes[at].oldest_us()) {
            (Some(patience_us), Some(oldest_us)) => now_us.saturating_sub(oldest_us) >= patience_us,
            _ => false,
        }
    }

    /// Corrects what a request of a tenant was taken to cost.
    pub(super) fn settle(&mut self, place: Place, tokens: i64) {
        self.lanes[usize::from(place.class.0)].settle(place.tenant, tokens);
    }
}
