//! Every bound of the services thread, each with its reason.

use std::time::Duration;

/// Checks under way at once, as SGLang's gateway has them.
pub(crate) const CHECKS_PARALLEL_MAX: usize = 32;
/// Polls under way at once, beside the checks.
pub(crate) const POLLS_PARALLEL_MAX: usize = 32;
/// Longest wait for what one worker says about its load.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest metrics page that is read; it is not kept.
pub(crate) const METRICS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Workers asked at once by one admin call.
pub(crate) const ASKED_PARALLEL_MAX: usize = 32;
/// Longest wait for one worker's answer to an admin call.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one information endpoint.
pub(crate) const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to learn anything from a worker that was reached.
pub(crate) const DESCRIBE_ATTEMPTS_MAX: u32 = 3;
/// Pause between two such attempts.
pub(crate) const DESCRIBE_PAUSE: Duration = Duration::from_millis(500);
/// Largest answer of a worker that is read.
pub(crate) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait for an issuer's keys: less than a shard waits for a token.
pub(crate) const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before control's full inbox is tried again.
pub(crate) const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
