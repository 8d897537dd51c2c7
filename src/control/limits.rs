//! Every bound and period of the control plane, each with its reason.

use std::time::Duration;

/// Workers registered at once, draining ones included: below the tree's table of holders.
pub(crate) const WORKERS_MAX: usize = 16_384;
/// Model names that get a pool of their own, over the life of the process: each costs counters on every shard.
pub(crate) const MODELS_MAX: usize = 1024;
/// Calls of the control plane that wait for workers; beyond it 503.
pub(crate) const CALLS_WAITING_MAX: usize = 16;
/// The same of calls that anybody may make: a bound of their own, so that they keep no admin waiting.
pub(crate) const PUBLIC_CALLS_WAITING_MAX: usize = 16;
/// All of these at services at once.
pub(crate) const CALLS_PARALLEL_MAX: usize = CALLS_WAITING_MAX + PUBLIC_CALLS_WAITING_MAX;
/// Failed registrations remembered, so that their ids can be asked for.
pub(crate) const FAILED_JOBS_MAX: usize = 1024;
/// How long a failed registration is remembered, as SGLang's gateway does.
pub(crate) const FAILED_JOB_LIFETIME: Duration = Duration::from_secs(300);
/// Addresses kept of one name.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Longest worker URL.
pub(crate) const WORKER_URL_BYTES_MAX: usize = 2048;
/// Longest worker key.
pub(crate) const KEY_BYTES_MAX: usize = 4096;
/// Labels of one worker.
pub(crate) const LABELS_MAX: usize = 64;
/// Bytes of their names and values together. With this and the next bound, whatever is registered can be handed over:
/// it fits a frame, however it is escaped there.
pub(crate) const LABELS_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the fields together that a worker is registered with and that are only shown.
pub(crate) const DECLARED_BYTES_MAX: usize = 64 * 1024;

/// First pause between two attempts to reach a new worker; it doubles.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two attempts to reach a new worker.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two checks of one worker, whatever was asked for.
pub(crate) const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Shortest time between two polls of one worker's load: what a poll finds is kept by the second.
pub(crate) const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often a removed worker is looked at for its last requests.
pub(crate) const DRAIN_CHECK: Duration = Duration::from_millis(250);
/// How often a shutdown looks for the last requests.
pub(crate) const SHUTDOWN_CHECK: Duration = Duration::from_millis(50);
/// Shortest time in which a process that has handed over goes on to serve whoever is connected. A client that asks more
/// often than that is told to connect anew with its next answer, and meets no connection that is closed as it sends.
pub(crate) const HANDED_OVER_LINGER: Duration = Duration::from_secs(5);
/// Shortest shutdown: two ticks of a shard and what it waits for handshakes to end, so that each has seen it, has taken
/// in who waited at its door, and has counted what they ask.
pub(crate) const SHUTDOWN_SETTLE: Duration = Duration::from_millis(600);

/// Reports are looked at once in this time, and what they change is published once.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);
/// Shortest time between two counts of what every worker holds: one walk of the registry.
pub(crate) const HELD_BLOCKS_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks at every circuit breaker: one walk of the registry.
pub(crate) const CIRCUITS_INTERVAL: Duration = Duration::from_secs(1);
/// Batches of reports taken in one turn: about 5 ms of tree writes, so that an admin call never waits for longer.
pub(crate) const BATCHES_PER_TURN_MAX: usize = 32;
/// Admin calls and results of services taken in one turn.
pub(crate) const EVENTS_PER_TURN_MAX: usize = 256;

/// Tasks that wait for services: one check per worker, twice, for those removed while one waits.
pub(crate) const CHECKS_QUEUED_MAX: usize = 2 * WORKERS_MAX;
/// Polls that wait for services: one per worker, twice, as above.
pub(crate) const POLLS_QUEUED_MAX: usize = 2 * WORKERS_MAX;
/// Results that wait for control; beyond it services wait.
pub(crate) const RESULTS_QUEUED_MAX: usize = 1024;

const _: () = assert!(WORKERS_MAX <= fleet::tree::HOLDERS_MAX as usize);
const _: () = assert!(EVENTS_PER_TURN_MAX <= RESULTS_QUEUED_MAX);
