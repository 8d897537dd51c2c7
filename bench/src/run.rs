//! A run: the load spread over cores, and their measurements put together.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::cores;
use crate::drive::{Share, drive};
use crate::load::Load;
use crate::progress::{Bar, Counters};
use crate::record::Record;
use crate::target::Target;

/// Time between two looks at the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Entries of each ring: its memory is locked on older kernels, and connections share it.
const RING_DEPTH: usize = 64;

/// Why there was no run.
#[derive(Debug)]
pub enum RunError {
    /// The target's host has no address.
    Resolve {
        /// The target.
        target: Target,
        /// What the resolver said.
        error: io::Error,
    },
    /// The limit of locked memory is below what the generator's rings need.
    LockedMemory {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// A generator thread did not start.
    Start {
        /// The CPU it was for.
        core: usize,
        /// What the runtime said.
        reason: String,
    },
    /// A generator thread ended without its measurements.
    Lost,
}

/// Runs `load` against `target`; `label` names it while it runs.
pub fn run(load: &Load, target: &Target, label: &str) -> Result<Record, RunError> {
    assert!(!load.cores.is_empty() && load.connections > 0, "a load has a core and a connection");
    if let Some(limit_bytes) = cores::locked_bytes_too_low() {
        return Err(RunError::LockedMemory { limit_bytes });
    }
    let address = target.resolve().map_err(|error| RunError::Resolve { target: target.clone(), error })?;
    let counters = Arc::new(Counters::default());
    let bar = Bar::new(load, label);
    let loads = shares_of(load);
    let (sender, records) = sync_channel(loads.len());
    let mut threads = Vec::with_capacity(loads.len());
    for (index, load) in loads.iter().enumerate() {
        let core = load.cores[0];
        let share = Share {
            load: load.clone(),
            target: target.clone(),
            address,
            index,
            counters: Arc::clone(&counters),
        };
        let sender = sender.clone();
        let thread = LocalExecutorBuilder::new(Placement::Fixed(core))
            .name("bench")
            .io_memory(load.ring_memory_kib * 1024)
            .ring_depth(RING_DEPTH)
            .spawn(move || async move {
                // The receiver outlives the threads.
                let _ = sender.send(drive(share).await);
            })
            .map_err(|error| RunError::Start { core, reason: error.to_string() })?;
        threads.push((core, thread));
    }
    drop(sender);
    let mut whole = Record::default();
    let mut received = 0;
    loop {
        match records.recv_timeout(PROGRESS_INTERVAL) {
            Ok(record) => {
                whole.merge(&record);
                received += 1;
            }
            Err(RecvTimeoutError::Timeout) => bar.show(&counters),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for (core, thread) in threads {
        thread.join().map_err(|error| RunError::Start { core, reason: error.to_string() })?;
    }
    if received == loads.len() { Ok(whole) } else { Err(RunError::Lost) }
}

/// The load of each core.
fn shares_of(load: &Load) -> Vec<Load> {
    let cores_used = load.cores.len().min(load.connections);
    (0..cores_used)
        .map(|index| Load {
            cores: vec![load.cores[index]],
            connections: part(load.connections as u64, cores_used, index) as usize,
            rate_per_s: load.rate_per_s.map(|rate| rate / cores_used as f64),
            requests_max: load.requests_max.map(|requests| part(requests, cores_used, index)),
            ..load.clone()
        })
        .collect()
}

/// The `index`th of `parts` parts that add up to `whole`.
fn part(whole: u64, parts: usize, index: usize) -> u64 {
    let (parts, index) = (parts as u64, index as u64);
    whole / parts + u64::from(index < whole % parts)
}

// === impl RunError ===

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Resolve { target, error } => write!(formatter, "cannot resolve {target}: {error}"),
            RunError::LockedMemory { limit_bytes } => write!(
                formatter,
                "the limit of locked memory is {} KiB and the rings need 512: raise it with `ulimit -l 512`, \
                 in limits.conf, or with LimitMEMLOCK=",
                limit_bytes / 1024
            ),
            RunError::Start { core, reason } => write!(
                formatter,
                "no generator thread on CPU {core}: {reason}; it needs io_uring, that CPU, and locked memory \
                 (see `ulimit -l`; --memory-kib lowers the need)"
            ),
            RunError::Lost => write!(formatter, "a generator thread ended without its measurements"),
        }
    }
}

impl std::error::Error for RunError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        for whole in 0..20 {
            let parts: Vec<u64> = (0..3).map(|index| part(whole, 3, index)).collect();
            assert_eq!(parts.iter().sum::<u64>(), whole);
        }
    }
}
