//! What passes between the gate and who asks it: a claim, a ticket while it waits, a permit in the end.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use futures_channel::oneshot;

use super::ClassId;
use super::Stake;

/// Who a request is from, as far as sharing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

/// What a request that must wait is queued by.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Whose it is.
    pub tenant: TenantId,
    /// Tokens it is taken to cost, prompt and answer.
    pub tokens: u32,
}

/// Where somebody waits, or has waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) class: ClassId,
    pub(super) tenant: TenantId,
    pub(super) id: u64,
}

/// One request in flight. It goes back through [`Gate::release`], and is worth nothing but that.
#[derive(Debug)]
#[must_use = "a permit that is not released is lost"]
pub struct Permit {
    pub(super) class: ClassId,
    /// What its tenant has been charged, if it waited.
    pub(super) charged: Option<(Place, u32)>,
    /// Where it is told to end, if a higher class may have it broken off.
    pub(super) stake: Option<Stake>,
}

impl Permit {
    /// Its class.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// Where it is told to end, if a higher class may have it broken off.
    pub fn stake(&self) -> Option<Stake> {
        self.stake
    }
}

/// What came of a wait.
#[derive(Debug)]
pub enum Verdict {
    /// It is admitted.
    Admitted {
        /// Its permit.
        permit: Permit,
        /// Whether it went before a higher class, having waited too long.
        is_promoted: bool,
    },
    /// It found no place in the queue, or had to give up its own.
    Refused,
}

/// A place in the queue, and the future of what comes of it. Whoever gives it up calls [`Gate::leave`].
#[derive(Debug)]
#[must_use = "a ticket that is not given back holds its place in the queue"]
pub struct Ticket {
    pub(super) place: Place,
    pub(super) verdict: oneshot::Receiver<Verdict>,
}

/// What becomes of an arrival.
#[derive(Debug)]
pub enum Entry {
    /// It is admitted at once.
    Admitted(Permit),
    /// It waits.
    Queued(Ticket),
    /// There is no place for it.
    Full,
}

// === impl Ticket ===

impl Future for Ticket {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        // A waiter is never dropped without a verdict.
        Pin::new(&mut self.verdict).poll(cx).map(|verdict| verdict.unwrap_or(Verdict::Refused))
    }
}
