//! Who is due when: workers in order of time, each at most once.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::id::WorkerId;

/// Workers by the time they are due. Each entry keeps its own time too, by which it is found here.
#[derive(Debug, Default)]
pub(crate) struct Timetable(BTreeSet<(Duration, WorkerId)>);

impl Timetable {
    /// Moves a worker from where it stands to `due`, or takes it out.
    pub(crate) fn set(&mut self, id: WorkerId, stands: &mut Option<Duration>, due: Option<Duration>) {
        if let Some(before) = std::mem::replace(stands, due) {
            self.0.remove(&(before, id));
        }
        self.0.extend(due.map(|due| (due, id)));
    }

    /// When the first is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.0.first().map(|(due, _)| *due)
    }

    /// The first, if it is due by `now`. It stays until it is set anew.
    pub(crate) fn first_due(&self, now: Duration) -> Option<WorkerId> {
        self.0.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }
}
