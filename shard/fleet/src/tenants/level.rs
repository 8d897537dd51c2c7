//! How much of something has been had, as it is forgotten over a minute: in whole numbers, so nothing is rounded.

/// What one of something counts: a quota of so many a minute forgets as many in a microsecond.
const ONE: u64 = 60_000_000;

/// How much has been had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    had: u64,
    since_us: u64,
}

impl Level {
    /// Lets time pass, under so many a minute; none is no bound, under which nothing is remembered.
    pub(super) fn pass(&mut self, per_minute: Option<u32>, now_us: u64) {
        // Shards read the clock a moment apart.
        let elapsed_us = now_us.saturating_sub(self.since_us);
        self.since_us = self.since_us.max(now_us);
        self.had = match per_minute {
            Some(per_minute) => self.had.saturating_sub(elapsed_us.saturating_mul(per_minute.into())),
            None => 0,
        };
    }

    /// In how many microseconds `count` more may be had; 0 for now. More than a minute's worth may be had when all is
    /// forgotten, and is owed then.
    pub(super) fn due_us(&self, count: u32, per_minute: Option<u32>) -> u64 {
        let Some(per_minute) = per_minute else { return 0 };
        let after = self.had + u64::from(count.min(per_minute)) * ONE;
        after.saturating_sub(u64::from(per_minute) * ONE).div_ceil(per_minute.into())
    }

    /// Adds so many.
    pub(super) fn add(&mut self, count: u32) {
        self.had = self.had.saturating_add(u64::from(count) * ONE);
    }

    /// So many were added, and so many it was.
    pub(super) fn correct(&mut self, added: u32, used: u32) {
        self.had = match used.checked_sub(added) {
            Some(more) => self.had.saturating_add(u64::from(more) * ONE),
            None => self.had.saturating_sub(u64::from(added - used) * ONE),
        };
    }

    /// Whether all is forgotten.
    pub(super) fn is_even(&self) -> bool {
        self.had == 0
    }
}
