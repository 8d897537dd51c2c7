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
