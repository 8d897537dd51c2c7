//! Who is next: the queues of all classes as a plain value, which knows neither threads nor clocks.
//!
//! Classes go in strict order, as far as each may start. So that none waits for ever, at most every
//! [`PROMOTION_EVERY`]th start goes to whoever has waited longest beyond its class's patience. A place for which a
//! request was broken off is not given away like that.

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
    /// How many of the highest classes preempt.
    preempting: usize,
    /// Starts since the last one out of turn.
    starts_in_turn: u32,
    /// Requests that were broken off and have ended, and whose place nobody of a preempting class has taken yet.
    owed: u32,
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
        let mut arbiter = Self {
            lanes: rules.classes.iter().map(|_| Lane::new()).collect(),
            queue_max: Vec::new(),
            starvation_us: Vec::new(),
            preempting: 0,
            starts_in_turn: 0,
            owed: 0,
        };
        arbiter.set_rules(rules);
        arbiter
    }

    /// Goes by other rules from now on. Whoever waits keeps its place.
    pub(super) fn set_rules(&mut self, rules: &GateRules) {
        let micros = |duration: std::time::Duration| duration.as_micros() as u64;
        self.queue_max = rules.classes.iter().map(|class| class.queue_max as usize).collect();
        self.starvation_us = rules.classes.iter().map(|class| class.starvation.map(micros)).collect();
        self.preempting = rules.preempting();
    }

    /// For which class one more request has to be broken off, when so many are about to end and nobody who waits may
    /// start: the highest for which the places under way do not suffice.
    pub(super) fn preemptor(&self, under_way: u32) -> Option<ClassId> {
        let mut waiting = 0;
        (0..self.preempting).map(|at| ClassId(at as u8)).find(|&class| {
            waiting += self.depth(class);
            waiting > under_way as usize && self.depth(class) > 0
        })
    }

    /// So many requests that were broken off have ended: their places are for who had that done.
    pub(super) fn owe(&mut self, places: u32) {
        self.owed += places;
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
        if self.lanes[..self.preempting].iter().all(|lane| lane.len() == 0) {
            self.owed = 0;
        }
        let starved = (self.starts_in_turn + 1 >= PROMOTION_EVERY && self.owed == 0)
            .then(|| (first + 1..self.lanes.len()).filter(ready).filter(|&at| self.is_starved(at, now_us)))
            .and_then(|starved| starved.min_by_key(|&at| self.lanes[at].oldest_us()));
        let (at, waiter) = match starved {
            Some(at) => (at, self.lanes[at].pop_oldest()?),
            None => (first, self.lanes[first].pop_fair()?),
        };
        if at < self.preempting {
            self.owed = self.owed.saturating_sub(1);
        }
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
