//! The cell that holds what an engine last said of its prefix cache. Its two numbers are read one after the other: they
//! are shown, and nothing is decided by them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What an engine says of its prefix cache since its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixCache {
    /// Tokens that were there.
    pub hits: f64,
    /// Tokens that were looked for.
    pub queries: f64,
}

#[derive(Debug)]
pub(super) struct PrefixCacheCell {
    hits: AtomicU64,
    queries: AtomicU64,
}

/// No number of tokens.
const UNKNOWN: f64 = f64::NAN;

impl PrefixCache {
    /// The share that was there, 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        if self.queries > 0.0 { self.hits / self.queries } else { 0.0 }
    }
}

impl Default for PrefixCacheCell {
    fn default() -> Self {
        Self { hits: AtomicU64::new(UNKNOWN.to_bits()), queries: AtomicU64::new(UNKNOWN.to_bits()) }
    }
}

impl PrefixCacheCell {
    pub(super) fn get(&self) -> Option<PrefixCache> {
        let read = |cell: &AtomicU64| f64::from_bits(cell.load(Ordering::Relaxed));
        let (hits, queries) = (read(&self.hits), read(&self.queries));
        (!hits.is_nan() && !queries.is_nan()).then_some(PrefixCache { hits, queries })
    }

    pub(super) fn set(&self, said: Option<PrefixCache>) {
        let PrefixCache { hits, queries } = said.unwrap_or(PrefixCache { hits: UNKNOWN, queries: UNKNOWN });
        self.hits.store(hits.to_bits(), Ordering::Relaxed);
        self.queries.store(queries.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_zero() {
        let cell = PrefixCacheCell::default();
        assert_eq!(cell.get(), None);
        cell.set(Some(PrefixCache { hits: 1.0, queries: 4.0 }));
        assert_eq!(cell.get().map(|cache| cache.hit_rate()), Some(0.25));
        cell.set(Some(PrefixCache { hits: 0.0, queries: 0.0 }));
        assert_eq!(cell.get().map(|cache| cache.hit_rate()), Some(0.0));
        cell.set(None);
        assert_eq!(cell.get(), None);
    }
}
