//! The only reader of the clocks.
#![allow(clippy::disallowed_methods, reason = "every other file takes the time as an argument")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since the Unix epoch, for `created` fields.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
