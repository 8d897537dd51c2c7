//! A routing decision as it is remembered: what it was made from, what came out and how long it took, in a fixed
//! number of words without any text.
//!
//! Each shard writes its decisions into a ring of its own that any thread may read. A record is numbers in atomic
//! cells between two writes of its sequence number, so a reader that meets a writer sees that and skips the record
//! (a seqlock, Boehm 2012).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::fence;

use smallvec::SmallVec;

/// Candidates weighed in a decision at most.
pub const CANDIDATES_MAX: usize = 8;
/// Depths, in blocks, at which a prompt's hashes are kept: four per doubling, so that what two prompts share is known
/// to a fifth.
pub const SAMPLE_DEPTHS: [u16; SAMPLES_MAX] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 19, 23, 27, 32, 38, 45, 54, 64, 76, 91, 108, 128, 152, 181, 215,
    256, 304, 362, 431, 512, 609, 724, 861, 1024, 1218, 1448, 1722, 2048, 2435, 2896, 3444, 4096,
];
/// Hashes kept of a prompt at most.
pub const SAMPLES_MAX: usize = 44;
/// Decisions a shard remembers.
pub const DECISIONS_PER_SHARD: usize = 4096;

/// Why a worker is a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has the least to do.
    Least,
    /// It holds a prefix of the prompt.
    Holder,
    /// It was sent a prefix of the prompt a moment ago.
    Recent,
    /// The request's key belongs to it.
    Key,
    /// The request names it, or continues an answer that only it has.
    Pinned,
    /// It is its turn.
    Turn,
    /// It was drawn.
    Drawn,
    /// The ring, or a range of lengths, gives it the request.
    Placed,
    /// It has about as little to do as the least loaded.
    Spare,
}

/// A worker that was weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index in the fleet.
    pub worker: u32,
    /// What it had to do, in the units of its pool's board.
    pub cost: u32,
    /// Blocks of the prompt it is known to hold.
    pub matched: u16,
    /// Why it is here.
    pub role: Role,
    /// The shard's turn at which it was chosen last; 0 for never.
    pub last_chosen: u32,
    /// Blocks of any prompts that it is known to hold; only where that is weighed.
    pub held_blocks: u32,
    /// Its weight in sixteenths of the usual one; only where that is weighed, else 0.
    pub weight: u16,
}

/// Everything a decision was made from. The decision is a function of this and of the policy's settings alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who was weighed.
    pub candidates: SmallVec<[Candidate; CANDIDATES_MAX]>,
    /// Blocks of the prompt.
    pub blocks: u16,
    /// Leading blocks of it that anybody holds.
    pub known: u16,
    /// Length of the prompt.
    pub prompt_bytes: u32,
    /// Cost up to which affinity is followed.
    pub cost_max: u32,
    /// The pool's total cost.
    pub total: u32,
    /// Workers that could be chosen.
    pub members: u32,
}

/// Why a worker was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was the only candidate.
    Only,
    /// It was its turn.
    Turn,
    /// Chance.
    Chance,
    /// It had less to do than the other one drawn.
    Lighter,
    /// It holds the longest known prefix.
    Prefix,
    /// The request's key belongs to it.
    Key,
    /// The request named it, or continues what only it has.
    Pinned,
    /// No affinity: it had the least to do.
    LeastLoad,
    /// Who holds more has too much to do: the longest prefix among the others, or the least to do.
    Spread,
    /// Its place on the ring or among the ranges of lengths.
    Place,
    /// A new key was assigned to it.
    Assigned,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, in microseconds since the process started.
    pub at_us: u64,
    /// What it was made from.
    pub evidence: Evidence,
    /// Index of the chosen worker in the fleet.
    pub worker: u32,
    /// Generation of its registration.
    pub generation: u32,
    /// Why.
    pub reason: Reason,
    /// Lower half of the model's block seed, by which control knows the model.
    pub model_hash: u32,
    /// Number of the policy, as in `Policy::NAMES`.
    pub policy: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// Hash, seeded by the process, of the key that the decision looked at; 0 for none.
    pub key: u64,
    /// Time spent on hashing the prompt, in nanoseconds.
    pub hash_ns: u32,
    /// Time spent on choosing, in nanoseconds.
    pub choose_ns: u32,
    /// Hashes of the prompt at [`SAMPLE_DEPTHS`], lower halves.
    pub samples: SmallVec<[u32; SAMPLES_MAX]>,
}

/// Words of a record.
const WORDS: usize = 56;
/// Where parts of a record stand in it.
const CANDIDATES_AT: usize = 9;
const SAMPLES_AT: usize = CANDIDATES_AT + 3 * CANDIDATES_MAX;
const _: () = assert!(SAMPLES_AT + SAMPLES_MAX.div_ceil(2) <= WORDS);

/// The last decisions of one shard. One thread writes; any may read.
#[derive(Debug)]
pub struct DecisionRing {
    records: Box<[AtomicU64]>,
    /// Decisions ever written.
    written: AtomicU64,
}

// === impl DecisionRing ===

impl Default for DecisionRing {
    fn default() -> Self {
        Self {
            records: (0..DECISIONS_PER_SHARD * WORDS).map(|_| AtomicU64::new(0)).collect(),
            written: AtomicU64::new(0),
        }
    }
}

impl DecisionRing {
    /// Writes a decision over the oldest one. Only the owning shard may call this.
    pub fn push(&self, decision: &Decision) {
        let number = self.written.load(Relaxed);
        let record = self.record(number);
        // Odd while it is written; readers compare it before and after.
        record[0].store(2 * number + 1, Relaxed);
        fence(Release);
        decision.write(record);
        record[0].store(2 * number + 2, Release);
        self.written.store(number + 1, Release);
    }

    /// The last decisions, latest first, `max` at most. One that is being overwritten is left out.
    pub fn latest(&self, max: usize) -> Vec<Decision> {
        let written = self.written.load(Acquire);
        let count = written.min(DECISIONS_PER_SHARD as u64).min(max as u64);
        (0..count).filter_map(|back| self.read(written - 1 - back)).collect()
    }

    /// The first decisions at or after `at_us`, oldest first, `max` at most. Records are in the order of their times, so
    /// what came before is found without being read. One that is being overwritten is left out.
    pub fn since(&self, at_us: u64, max: usize) -> Vec<Decision> {
        let written = self.written.load(Acquire);
        let (mut begin, mut end) = (written.saturating_sub(DECISIONS_PER_SHARD as u64), written);
        while begin < end {
            let middle = begin.midpoint(end);
            // Whatever is being overwritten is the oldest.
            if self.read(middle).is_some_and(|decision| decision.at_us >= at_us) {
                end = middle;
            } else {
                begin = middle + 1;
            }
        }
        (begin..written).filter_map(|number| self.read(number)).take(max).collect()
    }

    fn read(&self, number: u64) -> Option<Decision> {
        let record = self.record(number);
        let before = record[0].load(Acquire);
        let mut words = [0; WORDS];
        for (word, cell) in words.iter_mut().zip(record) {
            *word = cell.load(Relaxed);
        }
        fence(Acquire);
        let is_whole = before == 2 * number + 2 && record[0].load(Relaxed) == before;
        is_whole.then(|| Decision::read(&words)).flatten()
    }

    fn record(&self, number: u64) -> &[AtomicU64] {
        let at = (number as usize % DECISIONS_PER_SHARD) * WORDS;
        &self.records[at..at + WORDS]
    }
}

// === impl Decision ===

/// Two halves of a word.
fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Decision {
    fn write(&self, record: &[AtomicU64]) {
        let Evidence { candidates, blocks, known, prompt_bytes, cost_max, total, members } = &self.evidence;
        let counts = u32::from(self.policy)
            | u32::from(self.attempt) << 8
            | (self.reason as u32) << 16
            | (candidates.len() as u32) << 24;
        let head = [
            self.at_us,
            join(self.worker, self.generation),
            join(counts, self.model_hash),
            self.key,
            join(self.hash_ns, self.choose_ns),
            join(u32::from(*blocks) | u32::from(*known) << 16, *prompt_bytes),
            join(*cost_max, *total),
            join(*members, self.samples.len() as u32),
        ];
        for (cell, word) in record[1..].iter().zip(head) {
            cell.store(word, Relaxed);
        }
        for (cells, candidate) in
            record[CANDIDATES_AT..].chunks(3).zip(candidates.iter().take(CANDIDATES_MAX))
        {
            let what = u32::from(candidate.matched) | (candidate.role as u32) << 16;
            cells[0].store(join(candidate.worker, candidate.cost), Relaxed);
            cells[1].store(join(what, candidate.last_chosen), Relaxed);
            cells[2].store(join(candidate.held_blocks, u32::from(candidate.weight)), Relaxed);
        }
        for (cell, pair) in record[SAMPLES_AT..].iter().zip(self.samples.chunks(2)) {
            cell.store(join(pair[0], pair.get(1).copied().unwrap_or(0)), Relaxed);
        }
    }

    fn read(words: &[u64; WORDS]) -> Option<Self> {
        let (worker, generation) = split(words[2]);
        let (counts, model_hash) = split(words[3]);
        let (hash_ns, choose_ns) = split(words[5]);
        let (depths, prompt_bytes) = split(words[6]);
        let (cost_max, total) = split(words[7]);
        let (members, samples_len) = split(words[8]);
        let candidate = |cells: &[u64]| {
            let ((worker, cost), (what, last_chosen)) = (split(cells[0]), split(cells[1]));
            let (matched, role) = (what as u16, Role::from_number(what >> 16)?);
            let (held_blocks, weight) = split(cells[2]);
            Some(Candidate { worker, cost, matched, role, last_chosen, held_blocks, weight: weight as u16 })
        };
        let count = ((counts >> 24) as usize).min(CANDIDATES_MAX);
        let candidates = words[CANDIDATES_AT..].chunks(3).take(count).filter_map(candidate).collect();
        let samples = words[SAMPLES_AT..].iter().flat_map(|&word| <[u32; 2]>::from(split(word)));
        Some(Self {
            at_us: words[1],
            worker,
            generation,
            reason: Reason::from_number((counts >> 16) & 0xff)?,
            model_hash,
            policy: counts as u8,
            attempt: (counts >> 8) as u8,
            key: words[4],
            hash_ns,
            choose_ns,
            samples: samples.take((samples_len as usize).min(SAMPLES_MAX)).collect(),
            evidence: Evidence {
                candidates,
                blocks: depths as u16,
                known: (depths >> 16) as u16,
                prompt_bytes,
                cost_max,
                total,
                members,
            },
        })
    }
}

/// The hashes of a prompt that a record keeps.
pub fn samples(blocks: &[u64]) -> SmallVec<[u32; SAMPLES_MAX]> {
    SAMPLE_DEPTHS
        .iter()
        .map_while(|&depth| blocks.get(usize::from(depth) - 1))
        .map(|&hash| hash as u32)
        .collect()
}

macro_rules! numbered {
    ($name:ident: $($variant:ident $text:literal,)*) => {
        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in logs, headers and pages.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The variant of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.name() == name)
            }

            fn from_number(number: u32) -> Option<Self> {
                Self::ALL.get(number as usize).copied()
            }
        }
    };
}

numbered! { Role:
    Least "least",
    Holder "holder",
    Recent "recent",
    Key "key",
    Pinned "pinned",
    Turn "turn",
    Drawn "drawn",
    Placed "placed",
    Spare "spare",
}

numbered! { Reason:
    Only "only",
    Turn "turn",
    Chance "chance",
    Lighter "lighter",
    Prefix "prefix",
    Key "key",
    Pinned "pinned",
    LeastLoad "least_load",
    Spread "spread",
    Place "place",
    Assigned "assigned",
}

#[cfg(test)]
mod tests;
