//! The shard's doors to other threads: reports to control, and admin calls with their answers.

use std::cell::RefCell;

use crossbeam_channel::Sender;
use fleet::admin::AdminCall;
use fleet::admin::AdminReply;
use fleet::report::REPORTS_PER_BATCH_MAX;
use fleet::report::Report;
use fleet::stats::ShardStats;
use futures_channel::oneshot;

pub(crate) struct Ports {
    reports: Sender<Vec<Report>>,
    admin: Sender<AdminCall>,
    batch: RefCell<Vec<Report>>,
}

impl Ports {
    pub(crate) fn new(reports: Sender<Vec<Report>>, admin: Sender<AdminCall>) -> Self {
        Self { reports, admin, batch: RefCell::new(Vec::new()) }
    }

    /// Puts a report into the batch, which leaves when it is full or at the next [`Ports::flush`].
    pub(crate) fn report(&self, report: Report, stats: &ShardStats) {
        let is_full = {
            let mut batch = self.batch.borrow_mut();
            batch.push(report);
            batch.len() >= REPORTS_PER_BATCH_MAX
        };
        if is_full {
            self.flush(stats);
        }
    }

    /// Sends what there is. A batch that control has no room for is dropped and counted.
    pub(crate) fn flush(&self, stats: &ShardStats) {
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        if !batch.is_empty() && self.reports.try_send(batch).is_err() {
            stats.reports_dropped_total.add(1);
        }
    }

    /// Hands a call to control; none when its inbox is full or it is gone.
    pub(crate) fn call(&self, make: impl FnOnce(oneshot::Sender<AdminReply>) -> AdminCall) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        self.admin.try_send(make(reply)).ok().map(|()| answer)
    }
}

/// The answer to an admin call, when it comes.
pub(crate) type Reply = oneshot::Receiver<AdminReply>;
