//! Turns the bytes of a prompt into the block hashes that are the prefix tree's alphabet.
//!
//! Invariants
//! - Equal leading bytes give equal leading hashes, however the bytes are cut into parts.
//! - A prompt of at least one byte has at least one block, and never more than [`BLOCKS_PER_PROMPT_MAX`].
//! - Nothing is copied but the few blocks that cross from one part to the next, and those into a stack buffer.
//!
//! The first 128 bytes are three blocks (32 + 32 + 64), and what is left of a prompt under 512 bytes is one block more.
//! With whole blocks only, a fifth of short prompts would share bytes that the tree cannot see; with a tail block on
//! every prompt, the leaf of a chat could never be extended and its tree would be five times larger.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a block past the first 128 bytes of a prompt.
pub const BLOCK_BYTES: usize = 128;

/// Blocks indexed per prompt, so about 512 KiB. A bound on the work and on the depth of the tree, not on the prompt.
pub const BLOCKS_PER_PROMPT_MAX: usize = 4096;

/// A prompt shorter than this has a tail block, which covers its last bytes.
pub const SHORT_PROMPT_BYTES: usize = 512;

/// Lengths of the blocks that make up the first 128 bytes.
const FRONT_BYTES: [usize; 3] = [32, 32, 64];

/// Separates the hash of a tail from that of a whole block with the same bytes.
const TAIL_SALT: u64 = 0x9e37_79b9_7f4a_7c15;

const _: () = assert!(FRONT_BYTES[0] + FRONT_BYTES[1] + FRONT_BYTES[2] == BLOCK_BYTES);
const _: () = assert!(SHORT_PROMPT_BYTES.is_multiple_of(BLOCK_BYTES));

/// A sequence of block hashes that a search reads from the front and need not read to its end.
pub trait Blocks {
    /// The hash of the block at `index`, or `None` past the last block.
    fn get(&mut self, index: usize) -> Option<u64>;
}

/// The blocks of one prompt, hashed when first asked for, so that a search which misses early hashes no further.
///
/// The hashes are kept in the caller's vector; [`PromptBlocks::finish`] adds those which nobody asked for.
#[derive(Debug)]
pub struct PromptBlocks<'a, 'o, I> {
    parts: I,
    /// What is left of the part being read.
    part: &'a [u8],
    seed: u64,
    hashes: &'o mut Vec<u64>,
    ended: bool,
}

/// Hashes the concatenation of `parts` (raw JSON string bytes, in order) into `out`, which is emptied first.
///
/// `seed` is chosen once per process: with a known seed, colliding prompts can be crafted and steered to one worker.
pub fn hash_blocks<'a>(parts: impl Iterator<Item = &'a [u8]>, seed: u64, out: &mut Vec<u64>) {
    PromptBlocks::new(parts, seed, out).finish();
}

/// How many blocks a prompt of `prompt_bytes` has.
pub fn block_count(prompt_bytes: usize) -> u32 {
    let whole = match prompt_bytes {
        0..32 => 0,
        32..64 => 1,
        64..BLOCK_BYTES => 2,
        _ => 2 + prompt_bytes / BLOCK_BYTES,
    };
    let tail = prompt_bytes < SHORT_PROMPT_BYTES && whole_block_bytes(whole) < prompt_bytes;
    (whole + usize::from(tail)).min(BLOCKS_PER_PROMPT_MAX) as u32
}

/// How many bytes of a prompt of `prompt_bytes` its first `blocks` blocks cover.
///
/// The share of a prompt that matched is `bytes_covered(matched, n)` over `bytes_covered(block_count(n), n)`: bytes
/// that no block covers count neither way.
pub fn bytes_covered(blocks: u32, prompt_bytes: usize) -> usize {
    whole_block_bytes(blocks as usize).min(prompt_bytes)
}

/// Extends the rolling hash of a path by one block; start from 0. Equal values mean equal prefixes.
pub fn chain(previous: u64, block: u64) -> u64 {
    // The rotation makes order count, the multiplication spreads every bit upwards, the shift brings them back down.
    let mixed =
        (previous.rotate_left(23) ^ block).wrapping_add(TAIL_SALT).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}

// === impl PromptBlocks ===

impl<'a, 'o, I: Iterator<Item = &'a [u8]>> PromptBlocks<'a, 'o, I> {
    /// Begins the blocks of the concatenation of `parts`, to be kept in `hashes`, which is emptied first.
    pub fn new(parts: I, seed: u64, hashes: &'o mut Vec<u64>) -> Self {
        hashes.clear();
        PromptBlocks { parts, part: &[], seed, hashes, ended: false }
    }

    /// Hashes the blocks that were not asked for, and returns all of them.
    pub fn finish(mut self) -> &'o [u64] {
        while !self.ended {
            self.hash_next();
        }
        self.hashes
    }

    /// Appends one hash, or finds that the prompt has ended.
    fn hash_next(&mut self) {
        let index = self.hashes.len();
        if index == BLOCKS_PER_PROMPT_MAX {
            self.ended = true;
            return;
        }
        let wanted = FRONT_BYTES.get(index).copied().unwrap_or(BLOCK_BYTES);
        if let Some((block, rest)) = self.part.split_at_checked(wanted) {
            self.part = rest;
            self.hashes.push(xxh3_64_with_seed(block, self.seed));
            return;
        }
        self.hash_across_parts(wanted);
    }

    /// Gathers one block of `wanted` bytes from this part and the next ones.
    fn hash_across_parts(&mut self, wanted: usize) {
        let mut buffer = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < wanted {
            if self.part.is_empty() {
                match self.parts.next() {
                    Some(part) => self.part = part,
                    None => return self.hash_tail(&buffer[..filled]),
                }
            }
            let (taken, rest) = self.part.split_at(self.part.len().min(wanted - filled));
            buffer[filled..filled + taken.len()].copy_from_slice(taken);
            filled += taken.len();
            self.part = rest;
        }
        self.hashes.push(xxh3_64_with_seed(&buffer[..wanted], self.seed));
    }

    /// Ends the prompt. Its last bytes, too few for a block, count only when the prompt is short.
    fn hash_tail(&mut self, tail: &[u8]) {
        self.ended = true;
        let prompt_bytes = whole_block_bytes(self.hashes.len()) + tail.len();
        if !tail.is_empty() && prompt_bytes < SHORT_PROMPT_BYTES {
            let seed = self.seed ^ TAIL_SALT.wrapping_mul(tail.len() as u64);
            self.hashes.push(xxh3_64_with_seed(tail, seed));
        }
    }
}

// === impl Blocks ===

impl<'a, I: Iterator<Item = &'a [u8]>> Blocks for &mut PromptBlocks<'a, '_, I> {
    fn get(&mut self, index: usize) -> Option<u64> {
        while self.hashes.len() <= index && !self.ended {
            self.hash_next();
        }
        self.hashes.get(index).copied()
    }
}

impl<T: AsRef<[u64]> + ?Sized> Blocks for &T {
    fn get(&mut self, index: usize) -> Option<u64> {
        (**self).as_ref().get(index).copied()
    }
}

/// Bytes of the first `blocks` blocks when none of them is a tail.
const fn whole_block_bytes(blocks: usize) -> usize {
    match blocks {
        0 => 0,
        1 => FRONT_BYTES[0],
        2 => FRONT_BYTES[0] + FRONT_BYTES[1],
        _ => (blocks - 2) * BLOCK_BYTES,
    }
}

#[cfg(test)]
mod tests;
