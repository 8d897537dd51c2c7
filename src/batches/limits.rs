//! Every bound of files and batches, each with its reason.

use std::time::Duration;

/// Files kept at once.
pub(super) const FILES_MAX: u64 = 20_000;
/// Bytes of all files, those that batches wrote included; beyond it nothing is uploaded.
pub(super) const FILES_BYTES_MAX: u64 = 64 << 30;
/// Files in one page of a list, as OpenAI has them.
pub(super) const FILES_PAGE_MAX: u64 = 10_000;
/// The same, where no number is asked for.
pub(super) const FILES_PAGE: u64 = 1000;
/// Batches in one page of a list, as OpenAI has them.
pub(super) const BATCHES_PAGE_MAX: u64 = 100;
/// The same, where no number is asked for.
pub(super) const BATCHES_PAGE: u64 = 20;
/// Batches that are not over, running or waiting.
pub(super) const BATCHES_QUEUED_MAX: u64 = 1000;
/// The same of one tenant.
pub(super) const BATCHES_QUEUED_PER_OWNER_MAX: u64 = 250;
/// Batches remembered; the oldest that are over are forgotten, their files are not.
pub(super) const BATCHES_KEPT_MAX: u64 = 20_000;
/// Batches worked off at once.
pub(super) const BATCHES_RUNNING_MAX: usize = 4;
/// Requests of one batch, as OpenAI has them.
pub(super) const LINES_MAX: u32 = 50_000;
/// Longest line of a batch: a prompt with pictures in it.
pub(super) const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest `custom_id`.
pub(super) const CUSTOM_ID_BYTES_MAX: usize = 256;
/// Faults of an input file that are told.
pub(super) const FAULTS_SHOWN_MAX: usize = 50;
/// Lines read ahead of those that are asked.
pub(super) const LINES_AHEAD_MAX: usize = 64;
/// Bytes of lines read ahead, beyond the line that exceeds them.
pub(super) const LINES_AHEAD_BYTES_MAX: usize = 1024 * 1024;
/// Requests of one batch under way at once.
pub(super) const LINES_PARALLEL_PER_BATCH: usize = 16;
/// Requests of all batches under way at once.
pub(super) const LINES_PARALLEL_MAX: usize = 32;
/// Largest answer that is kept.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Times that a request is made which the gateway has no room or no worker for, or that finds no connection to it.
pub(super) const LINE_ATTEMPTS_MAX: u32 = 10;
/// The same where the gateway does not let the batch in: in an upgrade another process may have taken the connection.
pub(super) const NOT_ALLOWED_ATTEMPTS_MAX: u32 = 4;
/// Pause before the second time; each further one is twice as long.
pub(super) const LINE_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause.
pub(super) const LINE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest time for a connection to the gateway itself.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest idle time of such a connection: less than the gateway keeps one.
pub(super) const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
/// Longest time that results wait to be written.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of results that wait to be written; beyond it they are written at once.
pub(super) const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Least time between two notes of how many requests of a batch are done.
pub(super) const COUNTS_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before a disk or database that failed is tried again.
pub(super) const STORAGE_PAUSE: Duration = Duration::from_secs(5);
/// Pause between two looks for batches that other processes made or cancelled, and at the process's phase.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Calls of clients worked on at once; more wait on the road.
pub(super) const CALLS_PARALLEL_MAX: usize = 64;
/// Uploads written at once.
pub(super) const UPLOADS_PARALLEL_MAX: usize = 4;
/// Questions to the database that wait.
pub(super) const STORE_CALLS_QUEUED_MAX: usize = 256;
/// Longest wait for another process that writes to the database.
pub(super) const STORE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Age of a file that belongs to nothing, such as a broken upload, at which it is removed at a start.
pub(super) const ORPHAN_AGE: Duration = Duration::from_secs(3600);
/// Longest file name that is remembered.
pub(super) const FILE_NAME_BYTES_MAX: usize = 512;
/// Parts of an upload.
pub(super) const PARTS_MAX: usize = 16;
/// Longest head of a part.
pub(super) const PART_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest value of a field that is no file.
pub(super) const FIELD_BYTES_MAX: usize = 1024;
/// Longest class (`x-smg-priority`) that is remembered.
pub(super) const PRIORITY_BYTES_MAX: usize = 64;
/// Pairs of a batch's metadata, and the bytes of their keys and values, as OpenAI has them.
pub(super) const METADATA_PAIRS_MAX: usize = 16;
pub(super) const METADATA_KEY_BYTES_MAX: usize = 64;
pub(super) const METADATA_VALUE_BYTES_MAX: usize = 512;
/// Time a batch has, where it does not say.
pub(super) const WINDOW: &str = "24h";
/// Longest time a batch may ask for, in seconds: a week.
pub(super) const WINDOW_S_MAX: u64 = 7 * 24 * 3600;
