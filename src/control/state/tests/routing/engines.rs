//! Simulated engines: which process runs behind each address, and an exact record of the prompts each was sent.

use std::collections::BTreeMap;

use fleet::blocks::chain;
use fleet::id::WorkerId;
use fleet::snapshot::Worker;

#[derive(Default)]
pub(super) struct Engines {
    /// By URL, how often the process behind it was started.
    boots: BTreeMap<String, u64>,
    /// By registration and prefix, the process that was sent it last, as long as control may believe that it is there.
    sent: BTreeMap<WorkerId, BTreeMap<u64, u64>>,
}

impl Engines {
    /// The process that runs behind this URL.
    pub(super) fn boot(&self, url: &str) -> u64 {
        self.boots.get(url).copied().unwrap_or(0)
    }

    pub(super) fn restart(&mut self, url: &str) {
        *self.boots.entry(url.to_owned()).or_default() += 1;
    }

    pub(super) fn place(&mut self, worker: &Worker, blocks: &[u64]) {
        let boot = self.boot(&worker.url);
        let sent = self.sent.entry(worker.id).or_default();
        sent.extend(prefixes(blocks).map(|prefix| (prefix, boot)));
    }

    /// Control has learnt that whatever this worker was sent may be gone.
    pub(super) fn emptied(&mut self, id: WorkerId) {
        self.sent.remove(&id);
    }

    /// Control has learnt that this process is another one than before.
    pub(super) fn replaced(&mut self, id: WorkerId, boot: u64) {
        if let Some(sent) = self.sent.get_mut(&id) {
            sent.retain(|_, process| *process >= boot);
        }
    }

    /// Whether this registration was sent the prefix by the process that control knows.
    pub(super) fn was_sent(&self, id: WorkerId, prefix: u64) -> bool {
        self.sent.get(&id).is_some_and(|sent| sent.contains_key(&prefix))
    }

    /// Blocks it was sent.
    pub(super) fn blocks(&self, id: WorkerId) -> u64 {
        self.sent.get(&id).map_or(0, |sent| sent.len() as u64)
    }
}

/// Rolling hashes of the prefixes of a prompt, shortest first.
pub(super) fn prefixes(blocks: &[u64]) -> impl Iterator<Item = u64> + '_ {
    blocks.iter().scan(0, |prefix, &block| {
        *prefix = chain(*prefix, block);
        Some(*prefix)
    })
}
