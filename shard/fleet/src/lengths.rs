//! How long prompts are: a histogram that shards write, from which control gives each worker its range of lengths.
//!
//! Four classes per doubling, so a bound is right to a fifth. Old requests fade: every taking halves the counts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Classes per doubling of length.
const PER_OCTAVE: usize = 4;
/// Classes: up to 4 GiB.
const CLASSES: usize = 32 * PER_OCTAVE;
/// Longest prompt of the last range before any prompt was seen, as SGLang's bucket policy begins.
const INITIAL_BYTES: u32 = 4096;

/// Bytes of prompt by length of prompt.
#[derive(Debug)]
pub struct LengthHistogram {
    bytes: Box<[AtomicU64]>,
}

impl Default for LengthHistogram {
    fn default() -> Self {
        Self { bytes: (0..CLASSES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl LengthHistogram {
    /// Counts a prompt.
    #[inline]
    pub fn add(&self, prompt_bytes: u32) {
        self.bytes[class(prompt_bytes)].fetch_add(u64::from(prompt_bytes), Relaxed);
    }

    /// Lengths that part prompts into `ranges` of about equal bytes, ascending, one fewer than the ranges.
    pub fn bounds(&self, ranges: usize) -> Vec<u32> {
        bounds(&self.counts(), ranges)
    }

    /// As [`LengthHistogram::bounds`], and halves the counts, so that what is new weighs more.
    pub fn take_bounds(&self, ranges: usize) -> Vec<u32> {
        let counts = self.counts();
        for (bytes, count) in self.bytes.iter().zip(&counts) {
            bytes.fetch_sub(count / 2, Relaxed);
        }
        bounds(&counts, ranges)
    }

    fn counts(&self) -> Vec<u64> {
        self.bytes.iter().map(|bytes| bytes.load(Relaxed)).collect()
    }
}

/// See [`LengthHistogram::bounds`].
fn bounds(counts: &[u64], ranges: usize) -> Vec<u32> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return (1..ranges as u64).map(|at| (u64::from(INITIAL_BYTES) * at / ranges as u64) as u32).collect();
    }
    let mut bounds = Vec::with_capacity(ranges.saturating_sub(1));
    let mut below = 0;
    for (class, count) in counts.iter().enumerate() {
        let (begin, end) = (length(class), length(class + 1));
        while bounds.len() + 1 < ranges {
            let wanted = (u128::from(total) * (bounds.len() as u128 + 1) / ranges as u128) as u64;
            if wanted > below + count || *count == 0 {
                break;
            }
            // Within a class, bytes are taken to be spread evenly.
            let share = (wanted - below) as f64 / *count as f64;
            bounds.push((f64::from(begin) + share * (f64::from(end) - f64::from(begin))) as u32);
        }
        below += count;
    }
    bounds.resize(ranges.saturating_sub(1), u32::MAX);
    bounds
}

/// The class of a length.
fn class(length: u32) -> usize {
    let octave = length.max(1).ilog2() as usize;
    let rest = u64::from(length.max(1)) - (1 << octave);
    octave * PER_OCTAVE + ((rest * PER_OCTAVE as u64) >> octave) as usize
}

/// The shortest length of a class.
fn length(class: usize) -> u32 {
    let (octave, quarter) = (class / PER_OCTAVE, class % PER_OCTAVE);
    let begin = (1u64 << octave) + ((1u64 << octave) * quarter as u64).div_ceil(PER_OCTAVE as u64);
    begin.min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_in_its_class() {
        for value in (0..100_000).chain([1 << 20, (1 << 20) + 77, u32::MAX - 1, u32::MAX]) {
            let class = class(value);
            assert!(class < CLASSES);
            let is_last = class + 1 == CLASSES;
            assert!(
                length(class) <= value.max(1) && (is_last || value.max(1) < length(class + 1)),
                "{value}"
            );
        }
    }

    #[test]
    fn ranges_have_equal_bytes() {
        let histogram = LengthHistogram::default();
        assert_eq!(histogram.take_bounds(4), [1024, 2048, 3072]);
        assert!(histogram.bounds(0).is_empty());
        // A hundred short prompts weigh as much as one long one.
        (0..100).for_each(|_| histogram.add(1_000));
        histogram.add(100_000);
        let bounds = histogram.take_bounds(2);
        assert!((896..=100_000).contains(&bounds[0]), "{bounds:?}");
    }

    #[test]
    fn only_taking_halves_the_counts() {
        let histogram = LengthHistogram::default();
        histogram.add(1_000);
        let before = histogram.counts();
        assert_eq!(histogram.bounds(3), histogram.bounds(3));
        assert_eq!(histogram.counts(), before);
        histogram.take_bounds(3);
        assert_ne!(histogram.counts(), before);
    }

    #[test]
    fn bounds_ascend_and_are_one_fewer_than_the_ranges() {
        let histogram = LengthHistogram::default();
        (1..5_000).for_each(|length| histogram.add(length));
        for ranges in [1, 2, 3, 8, 100] {
            let bounds = histogram.take_bounds(ranges);
            assert_eq!(bounds.len(), ranges - 1);
            assert!(bounds.is_sorted(), "{bounds:?}");
        }
    }
}
