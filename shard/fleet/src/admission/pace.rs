//! How fast the queue moves, and so when a refused client may come again.

/// Shortest time over which it is counted how fast the queue moves.
const PACE_WINDOW_US: u64 = 1_000_000;
/// Longest time that a refused client is asked to wait.
const RETRY_AFTER_S_MAX: u64 = 30;

/// How fast the queue moves.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since_us: u64,
    admitted: u64,
    /// Whether somebody has waited since then.
    is_moving: bool,
}

impl Pace {
    /// Counts one that waited and was admitted.
    pub(super) fn admit(&mut self) {
        self.admitted += 1;
    }

    /// At the end of each window: how long who comes now would wait behind so many.
    pub(super) fn retry_after_s(&mut self, waiting: u64, now_us: u64) -> Option<u32> {
        let elapsed_us = now_us.saturating_sub(self.since_us);
        let is_over =
            elapsed_us >= PACE_WINDOW_US && (self.admitted > 0 || elapsed_us >= 10 * PACE_WINDOW_US);
        let seconds = match self.is_moving {
            true if !is_over => return None,
            true => Some((waiting * elapsed_us).div_ceil(self.admitted.max(1) * 1_000_000)),
            // Nobody waited: the time before says nothing.
            false => None,
        };
        *self = Self { since_us: now_us, admitted: 0, is_moving: waiting > 0 };
        Some(seconds?.clamp(1, RETRY_AFTER_S_MAX) as u32)
    }
}
