//! Every bound of discovery, each with its reason.

use std::time::Duration;

/// How long changes of pods are gathered before control is told of them: a rollout changes many at once.
pub(crate) const GATHER: Duration = Duration::from_millis(20);
/// First pause after a watch has failed; it doubles with every further failure.
pub(crate) const WATCH_PAUSE_FIRST: Duration = Duration::from_millis(25);
/// Longest pause between two attempts to watch.
pub(crate) const WATCH_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest time of one watch, in seconds; a connection that died without a word is noticed then.
pub(crate) const WATCH_SECONDS_MAX: u32 = 60;
/// Longest wait for an answer's next bytes, beyond a watch's own time.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS_MAX as u64 + 15);
/// Longest wait for a connection to the cluster's API.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pods asked for at a time.
pub(crate) const PAGE_PODS: u32 = 500;

/// Shortest time for which an answer about a name holds, whatever it says: servers are not to be flooded.
pub(crate) const NAME_LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Longest such time: changes are seen at some point.
pub(crate) const NAME_LIFETIME_MAX: Duration = Duration::from_secs(300);
/// Pause before a name is asked for again that was not found.
pub(crate) const NAME_PAUSE: Duration = Duration::from_secs(1);
/// How often in a row a server must say that a name has no records before its workers are taken away.
pub(crate) const NAME_EMPTY_MIN: u32 = 3;
/// Names at most.
pub(crate) const NAMES_MAX: usize = 256;
