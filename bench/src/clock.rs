//! The only reader of the clock.
#![allow(clippy::disallowed_methods, reason = "every other file asks this one")]

use std::time::Instant;

/// The monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}
