//! What a shard counts about admission, by class.

use std::sync::Arc;

use super::CLASSES_MAX;
use crate::cell::Counter;
use crate::cell::Histogram;

/// What became of a request that asked to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was admitted.
    Admitted,
    /// The queue was full.
    QueueFull,
    /// It waited too long.
    QueueTimeout,
    /// Its client left while it waited.
    ClientLeft,
    /// The gateway began to drain while it waited.
    ShuttingDown,
}

impl Outcome {
    /// Every outcome, in table order.
    pub const ALL: [Self; 5] =
        [Self::Admitted, Self::QueueFull, Self::QueueTimeout, Self::ClientLeft, Self::ShuttingDown];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ClientLeft => "client_left",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// What one shard counts about admission.
#[derive(Debug)]
pub struct AdmissionStats {
    /// Requests that asked to be admitted, by class and [`Outcome`].
    pub outcomes_total: [[Counter; Outcome::ALL.len()]; CLASSES_MAX],
    /// Time that admitted requests waited in the queue, by class; those that did not are left out.
    pub queue_wait: [Histogram; CLASSES_MAX],
    /// Of these, requests that went before a higher class, by class.
    pub promotions_total: [Counter; CLASSES_MAX],
    /// Requests that made room for one of a higher class, by their own class.
    pub preempted_total: [Counter; CLASSES_MAX],
    /// Requests that asked for a higher class than they may have.
    pub clamped_total: Counter,
    /// Requests that asked for a class there is not.
    pub unknown_priority_total: Counter,
}

impl AdmissionStats {
    /// All zero.
    pub fn new(duration_bounds_us: &Arc<[u64]>) -> Self {
        Self {
            outcomes_total: Default::default(),
            queue_wait: std::array::from_fn(|_| Histogram::new(Arc::clone(duration_bounds_us))),
            promotions_total: Default::default(),
            preempted_total: Default::default(),
            clamped_total: Counter::default(),
            unknown_priority_total: Counter::default(),
        }
    }
}
