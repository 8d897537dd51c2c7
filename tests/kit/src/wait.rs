//! Waiting for conditions.

use std::thread;
use std::time::Duration;
use std::time::Instant;

/// When a wait is given up: far beyond any good run, also on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(DEADLINE, condition), "waited {DEADLINE:?} in vain until {what}");
}

/// Whether `condition` comes to hold within `limit`.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    some_within(limit, || condition().then_some(())).is_some()
}

/// What `look` finds, once it finds something.
#[track_caller]
pub fn some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let found = some_within(DEADLINE, look);
    assert!(found.is_some(), "waited {DEADLINE:?} in vain for {what}");
    found.expect("just asserted")
}

fn some_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
