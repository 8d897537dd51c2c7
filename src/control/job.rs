//! Registrations that failed, remembered for a while so that whoever asked for one can learn why.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;

use crate::control::limits::FAILED_JOB_LIFETIME;
use crate::control::limits::FAILED_JOBS_MAX;

/// A worker that never became healthy.
#[derive(Clone, Debug)]
pub(crate) struct FailedJob {
    /// The id it was given.
    pub(crate) uuid: Uuid,
    /// Its URL.
    pub(crate) url: Box<str>,
    /// Why it failed.
    pub(crate) message: String,
    /// When it failed.
    pub(crate) at: Duration,
}

/// The latest failures, oldest first.
#[derive(Debug, Default)]
pub(crate) struct FailedJobs(VecDeque<FailedJob>);

impl FailedJobs {
    /// Remembers a failure and forgets those that are too old or too many.
    pub(crate) fn push(&mut self, job: FailedJob) {
        let now = job.at;
        self.0.push_back(job);
        while self.0.len() > FAILED_JOBS_MAX || self.0.front().is_some_and(|job| is_over(job, now)) {
            self.0.pop_front();
        }
    }

    /// The failure that `is_it` recognises, unless it is too old.
    pub(crate) fn find(&self, now: Duration, is_it: impl Fn(&FailedJob) -> bool) -> Option<&FailedJob> {
        self.0.iter().rev().find(|job| is_it(job) && !is_over(job, now))
    }
}

fn is_over(job: &FailedJob, now: Duration) -> bool {
    now.saturating_sub(job.at) >= FAILED_JOB_LIFETIME
}
