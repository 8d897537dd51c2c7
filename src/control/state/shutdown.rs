//! The end of the process, step by step: settle, drain, stop; or hand over, and drain once nobody asks any more.

use std::time::Duration;

use fleet::cell::Phase;
use tracing::info;

use super::News;
use super::Order;
use super::State;
use crate::control::limits;

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    Running,
    /// Everything is served, while balancers learn from `/readiness` to go elsewhere.
    Settling {
        until: Duration,
    },
    /// Another process serves whoever comes; who is here is served to the end, however long that takes.
    HandedOver {
        since: Duration,
        check_due: Duration,
    },
    /// What is in flight ends, within the grace period if there is one.
    Draining {
        since: Duration,
        check_due: Duration,
        has_grace: bool,
    },
    Stopping,
}

impl Shutdown {
    pub(super) fn phase(self) -> Phase {
        match self {
            Self::Running | Self::Settling { .. } => Phase::Running,
            Self::HandedOver { .. } => Phase::HandedOver,
            Self::Draining { .. } => Phase::Draining,
            Self::Stopping => Phase::Stopping,
        }
    }

    pub(super) fn next_due(self) -> Option<Duration> {
        match self {
            Self::Settling { until } => Some(until),
            Self::HandedOver { check_due, .. } | Self::Draining { check_due, .. } => Some(check_due),
            Self::Running | Self::Stopping => None,
        }
    }

    fn draining(now: Duration, has_grace: bool) -> Self {
        Self::Draining { since: now, check_due: now + limits::SHUTDOWN_CHECK, has_grace }
    }
}

impl State {
    // Running => (Settling | Draining); HandedOver => Draining; (Settling | Draining) => Stopping
    pub(super) fn terminate(&mut self, now: Duration, orders: &mut Vec<Order>) {
        let settle = self.config.drain_settle;
        self.shutdown = match self.shutdown {
            Shutdown::Running if !settle.is_zero() => {
                info!(?settle, "not ready any more");
                Shutdown::Settling { until: now + settle }
            }
            Shutdown::Running | Shutdown::HandedOver { .. } => {
                info!(grace = ?self.config.shutdown_grace, "draining");
                Shutdown::draining(now, true)
            }
            Shutdown::Settling { .. } | Shutdown::Draining { .. } | Shutdown::Stopping => Shutdown::Stopping,
        };
        self.refuse_waiting(orders);
        self.say_draining();
    }

    // (Running | Settling) => HandedOver
    pub(super) fn handed_over(&mut self, now: Duration, orders: &mut Vec<Order>) {
        if let Shutdown::Running | Shutdown::Settling { .. } = self.shutdown {
            info!("another process serves now: what is in flight here goes on to its end");
            self.shutdown = Shutdown::HandedOver { since: now, check_due: now + limits::HANDED_OVER_LINGER };
            self.refuse_waiting(orders);
            self.say_draining();
        }
    }

    fn say_draining(&mut self) {
        self.publisher.set_draining();
        self.changed(News::Fleet);
    }

    // Settling => Draining; HandedOver => Draining; Draining => (Draining | Stopping)
    pub(super) fn drain(&mut self, requests_active: u64, now: Duration) {
        if self.shutdown.next_due().is_none_or(|due| now < due) {
            return;
        }
        self.shutdown = match self.shutdown {
            Shutdown::Settling { .. } => {
                info!(grace = ?self.config.shutdown_grace, "draining");
                Shutdown::draining(now, true)
            }
            Shutdown::HandedOver { .. } if requests_active == 0 => Shutdown::draining(now, false),
            Shutdown::HandedOver { since, .. } => {
                Shutdown::HandedOver { since, check_due: now + limits::SHUTDOWN_CHECK }
            }
            Shutdown::Draining { since, has_grace, .. } => {
                let for_how_long = now - since;
                let is_drained = requests_active == 0 && for_how_long >= limits::SHUTDOWN_SETTLE;
                if is_drained || (has_grace && for_how_long >= self.config.shutdown_grace) {
                    info!(requests_active, "stopping");
                    Shutdown::Stopping
                } else {
                    Shutdown::Draining { since, check_due: now + limits::SHUTDOWN_CHECK, has_grace }
                }
            }
            other @ (Shutdown::Running | Shutdown::Stopping) => other,
        };
    }
}
