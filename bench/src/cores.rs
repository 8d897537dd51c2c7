//! Lists of CPUs, and what a generator thread needs of the machine.

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

/// Locked memory the generator's runtime asks for before it starts, in bytes.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// Reads `1`, `0,2` or `2-5`.
pub(crate) fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// The last CPU this process may run on: the first ones are where others tend to be.
pub(crate) fn last() -> usize {
    let allowed = sched_getaffinity(None).ok();
    let is_allowed = |core: &usize| allowed.as_ref().is_some_and(|set| set.is_set(*core));
    (0..CpuSet::MAX_CPU).rev().find(is_allowed).unwrap_or(0)
}

/// The limit of locked memory in bytes, if it is too low.
pub(crate) fn locked_bytes_too_low() -> Option<u64> {
    getrlimit(Resource::Memlock).current.filter(|limit| *limit < LOCKED_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!(parse("1"), Some(vec![1]));
        assert_eq!(parse("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!(parse("3-1"), None);
        assert_eq!(parse("a"), None);
    }
}
