//! Admin calls whose answer needs workers: asked through services, and answered when all of them have said something.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fleet::admin::AdminReply;
use fleet::id::WorkerId;
use futures_channel::oneshot;

use super::Order;
use super::State;
use crate::admin::answer;
use crate::admin::fan_out;
use crate::admin::fan_out::Unit;
use crate::admin::stack;
use crate::control::event::Failure;
use crate::control::limits::CALLS_WAITING_MAX;
use crate::control::limits::PUBLIC_CALLS_WAITING_MAX;
use crate::control::task::Question;
use crate::control::task::Task;
use crate::control::worker::Entry;

/// The calls that wait.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: BTreeMap<u64, Call>,
    ticket_last: u64,
}

#[derive(Debug)]
struct Call {
    question: Question,
    asked: Vec<WorkerId>,
    units: Vec<Unit>,
    to: oneshot::Sender<AdminReply>,
}

impl Calls {
    fn has_room(&self, question: &Question) -> bool {
        let is_public = question.is_public();
        let alike = self.waiting.values().filter(|call| call.question.is_public() == is_public).count();
        alike < if is_public { PUBLIC_CALLS_WAITING_MAX } else { CALLS_WAITING_MAX }
    }
}

impl State {
    /// Asks `workers`, which must be registered, and has `to` answered with what they say.
    pub(crate) fn ask(
        &mut self,
        question: Question,
        workers: Vec<WorkerId>,
        to: oneshot::Sender<AdminReply>,
        orders: &mut Vec<Order>,
    ) {
        if !self.calls.has_room(&question) {
            return orders.push(Order::Reply { to, reply: answer::busy() });
        }
        let entries =
            || workers.iter().map(|&id| self.registry.get(id).expect("only registered workers are asked"));
        let targets = entries().map(|entry| Arc::clone(&entry.target)).collect();
        // A flush is for all ranks behind an address.
        let whole = |entry: &Entry| Unit { url: entry.spec.url.address().into(), rank: None };
        let unit = |entry: &Entry| Unit { url: entry.spec.url.text.clone(), rank: entry.spec.url.rank };
        let units =
            entries().map(|entry| if question == Question::FlushCache { whole(entry) } else { unit(entry) });
        let units = units.collect();
        self.calls.ticket_last += 1;
        let ticket = self.calls.ticket_last;
        self.calls.waiting.insert(ticket, Call { question: question.clone(), asked: workers, units, to });
        orders.push(Order::Task(Task::Call { ticket, question, targets }));
    }

    /// Answers the call that `answers` belong to.
    pub(super) fn called(
        &mut self,
        ticket: u64,
        answers: &[Result<Bytes, Failure>],
        orders: &mut Vec<Order>,
    ) {
        // The call may have been refused because the process is ending.
        let Some(Call { question, asked, units, to }) = self.calls.waiting.remove(&ticket) else { return };
        assert_eq!(answers.len(), asked.len(), "every worker that was asked has an answer or a failure");
        let reply = match question {
            Question::FlushCache => {
                let flushed = asked.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
                for (&id, _) in flushed {
                    for id in self.ranks_of(id) {
                        self.forget_placements(id);
                    }
                }
                fan_out::flushed(&units, answers, self.registry.registered_count())
            }
            Question::Load => fan_out::loads(&units, answers),
            Question::Sleep(_) | Question::WakeUp(_) | Question::IsSleeping => {
                stack::answered(self, question, asked.first().copied(), answers.first())
            }
            Question::ModelInfo => {
                let metadata =
                    asked.first().and_then(|&id| self.registry.get(id)).map(|entry| &*entry.metadata);
                fan_out::model_info(answers.first(), metadata)
            }
        };
        orders.push(Order::Reply { to, reply });
    }

    /// Refuses every call that waits for something, because the process is ending.
    pub(super) fn refuse_waiting(&mut self, orders: &mut Vec<Order>) {
        let calls = std::mem::take(&mut self.calls.waiting).into_values().map(|call| call.to);
        let joining = self.registry.take_waiting();
        orders.extend(calls.chain(joining).map(|to| Order::Reply { to, reply: answer::shutting_down() }));
    }
}
