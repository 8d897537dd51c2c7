//! What the holder of the arbiter does: reads the news, admits whoever can be, and has others broken off for who waits.

use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Relaxed;

use futures_channel::oneshot;

use super::CLASSES_MAX;
use super::ClassId;
use super::Gate;
use super::GateRules;
use super::NEVER;
use super::Permit;
use super::SETTLEMENTS_QUEUED_MAX;
use super::Verdict;
use super::arbiter::Arbiter;
use super::lane::Waiter;
use super::pace::Pace;
use super::permit::Place;

/// News for the arbiter.
#[derive(Debug)]
pub(super) enum News {
    Entered(ClassId, Waiter<oneshot::Sender<Verdict>>),
    Left(Place),
}

/// What a request cost beyond what its tenant was charged, or below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settlement {
    pub(super) place: Place,
    pub(super) tokens: i64,
}

/// What whoever takes the lock takes hold of.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) arbiter: Arbiter<oneshot::Sender<Verdict>>,
    pub(super) pace: Pace,
    /// What the arbiter goes by.
    pub(super) rules: Arc<GateRules>,
    /// Requests of each class that were broken off and have not ended.
    pub(super) ending: [u32; CLASSES_MAX],
    /// For whom nobody was found to be broken off, and how many stakes had been taken then.
    pub(super) in_vain: Option<(ClassId, u64)>,
}

impl Gate {
    /// Reads the news and hands permits out.
    pub(super) fn work(&self, desk: &mut Desk, now_us: u64) {
        for Settlement { place, tokens } in self.settlements.1.try_iter().take(SETTLEMENTS_QUEUED_MAX) {
            desk.arbiter.settle(place, tokens);
        }
        self.take_over_rules(desk);
        self.count_ended(desk);
        // First those who wait already: a place that they leave is there for who enters.
        self.admit(desk, now_us);
        // As many as there are now: what comes meanwhile is marked, and read in the next round.
        for _ in 0..self.news.1.len() {
            match self.news.1.try_recv() {
                Ok(News::Entered(class, waiter)) => {
                    if let Some(refused) = desk.arbiter.enter(class, waiter) {
                        self.conclude(refused.reply.send(Verdict::Refused).is_ok());
                    }
                }
                Ok(News::Left(place)) => {
                    desk.arbiter.leave(place);
                    self.word.end_waiting();
                }
                Err(_) => break,
            }
        }
        let due_us = self.admit(desk, now_us);
        if due_us == NEVER {
            self.preempt(desk);
        }
        self.due_us.store(due_us, Relaxed);
        let mut waiting = 0;
        for class in desk.rules.class_ids() {
            let depth = desk.arbiter.depth(class) as u32;
            waiting += u64::from(depth);
            self.depths[usize::from(class.0)].store(depth, Relaxed);
        }
        if let Some(retry_after_s) = desk.pace.retry_after_s(waiting, now_us) {
            self.retry_after_s.store(retry_after_s, Relaxed);
        }
    }

    /// Counts out who waited, if it was told; if it left before, the word that it did counts it out.
    fn conclude(&self, is_told: bool) {
        if is_told {
            self.word.end_waiting();
        }
    }

    fn take_over_rules(&self, desk: &mut Desk) {
        let rules = self.rules.load();
        if !Arc::ptr_eq(&rules, &desk.rules) {
            desk.arbiter.set_rules(&rules);
            desk.in_vain = None;
            desk.rules = Arc::clone(&rules);
        }
    }

    /// Counts who was broken off and has ended. What they held is free by now.
    fn count_ended(&self, desk: &mut Desk) {
        if self.stakes.is_none() {
            return;
        }
        for (ended, ending) in self.ended.iter().zip(&mut desk.ending) {
            let ended = if ended.load(Relaxed) == 0 { continue } else { ended.swap(0, AcqRel) };
            *ending -= ended;
            desk.arbiter.owe(ended);
            desk.in_vain = None;
        }
    }

    /// Breaks off as many requests as those who wait may have broken off, if nobody of them may start.
    ///
    /// Only a class that has more in flight than places of its own makes room for others by one less, and none does
    /// while more are in flight than may be.
    fn preempt(&self, desk: &mut Desk) {
        let Some(stakes) = &self.stakes else { return };
        while let Some(class) = desk.arbiter.preemptor(desk.ending.iter().sum()) {
            let published = stakes.published();
            if desk.in_vain.is_some_and(|(before, then)| class >= before && then == published) {
                return;
            }
            let counts = self.word.load();
            if self.word.is_over(counts) {
                return;
            }
            let may_yield =
                |class: ClassId| self.word.may_yield(counts, class, desk.ending[usize::from(class.0)]);
            match stakes.preempt(class, may_yield) {
                Some(chosen) => desk.ending[usize::from(chosen.0)] += 1,
                None => {
                    desk.in_vain = Some((class, published));
                    return;
                }
            }
        }
    }

    /// Admits whoever can be; returns when the next start is due if that is what is waited for.
    fn admit(&self, desk: &mut Desk, now_us: u64) -> u64 {
        // One bucket for all of them: a start goes back to where it was taken.
        let bucket = if self.has_pace() { self.bucket.load_full() } else { None };
        let put_back = || bucket.iter().for_each(|bucket| bucket.put_back());
        while !desk.arbiter.is_empty() {
            if let Some(Err(due_us)) = bucket.as_ref().map(|bucket| bucket.take(now_us)) {
                return due_us;
            }
            let counts = self.word.load();
            let turn = desk.arbiter.next(|class| self.word.may_start(counts, class), now_us);
            let Some(turn) = turn else {
                put_back();
                break;
            };
            let Waiter { id, tenant, tokens, reply, .. } = turn.waiter;
            let place = Place { class: turn.class, tenant, id };
            // Counted in first: once it is sent it may come back at once.
            self.word.start_waiting(turn.class);
            // Whoever starved has waited its time out.
            let stake = if turn.is_promoted { None } else { self.stake(turn.class) };
            let permit = Permit { class: turn.class, charged: Some((place, tokens)), stake };
            match reply.send(Verdict::Admitted { permit, is_promoted: turn.is_promoted }) {
                Ok(()) => {
                    self.word.end_waiting();
                    desk.pace.admit();
                    desk.in_vain = None;
                }
                Err(verdict) => {
                    if let Verdict::Admitted { permit, .. } = verdict {
                        self.give_stake(&permit);
                    }
                    self.word.end(turn.class);
                    desk.arbiter.settle(place, -i64::from(tokens));
                    put_back();
                }
            }
        }
        NEVER
    }
}
