//! How fast one worker computes, over all shards: sums that only grow. Whoever compares two moments has what came
//! between them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Longest prompt, in bytes that the worker does not hold, whose time to the first token counts: about 2,000 tokens.
/// What is longer says more about the prompt than about the worker.
pub const FIRST_PROMPT_BYTES_MAX: u32 = 8 * 1024;

/// What the sums say, at a moment or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Tokens that followed another one; an event of a stream counts as one.
    pub tokens: u64,
    /// Time between these and the ones before, in microseconds.
    pub token_us: u64,
    /// First tokens of streams with a prompt of at most [`FIRST_PROMPT_BYTES_MAX`].
    pub firsts: u64,
    /// Time from the choice of the worker to these, in microseconds.
    pub first_us: u64,
    /// Bytes of prompts that it was given and did not hold, of whatever length.
    pub prompt_bytes: u64,
}

/// The sums. Shared additions: one a request, three a stream, and two for several tokens at a time.
#[derive(Debug, Default)]
pub struct PaceCell {
    tokens: AtomicU64,
    token_us: AtomicU64,
    firsts: AtomicU64,
    first_us: AtomicU64,
    prompt_bytes: AtomicU64,
}

impl PaceCell {
    /// The worker was given a prompt of which it has to compute so much.
    #[inline]
    pub fn add_prompt(&self, uncached_bytes: u32) {
        self.prompt_bytes.fetch_add(u64::from(uncached_bytes), Relaxed);
    }

    /// A first token came after so long.
    #[inline]
    pub fn add_first(&self, uncached_bytes: u32, us: u64) {
        if uncached_bytes <= FIRST_PROMPT_BYTES_MAX {
            self.first_us.fetch_add(us, Relaxed);
            self.firsts.fetch_add(1, Relaxed);
        }
    }

    /// So many tokens came in so long.
    #[inline]
    pub fn add_tokens(&self, tokens: u32, us: u64) {
        self.token_us.fetch_add(us, Relaxed);
        self.tokens.fetch_add(u64::from(tokens), Relaxed);
    }

    /// The sums by now; what is written at the same time may be in one of them and not yet in another.
    pub fn read(&self) -> Pace {
        Pace {
            tokens: self.tokens.load(Relaxed),
            token_us: self.token_us.load(Relaxed),
            firsts: self.firsts.load(Relaxed),
            first_us: self.first_us.load(Relaxed),
            prompt_bytes: self.prompt_bytes.load(Relaxed),
        }
    }
}

impl Pace {
    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(before.tokens),
            token_us: self.token_us.saturating_sub(before.token_us),
            firsts: self.firsts.saturating_sub(before.firsts),
            first_us: self.first_us.saturating_sub(before.first_us),
            prompt_bytes: self.prompt_bytes.saturating_sub(before.prompt_bytes),
        }
    }

    /// Mean time between two tokens, of at least `tokens_min`.
    pub fn token_gap(&self, tokens_min: u64) -> Option<Duration> {
        let mean_us = self.token_us.checked_div(self.tokens);
        mean_us.filter(|_| self.tokens >= tokens_min).map(Duration::from_micros)
    }

    /// Mean time to the first token, of at least `firsts_min`.
    pub fn first_token(&self, firsts_min: u64) -> Option<Duration> {
        let mean_us = self.first_us.checked_div(self.firsts);
        mean_us.filter(|_| self.firsts >= firsts_min).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_came_between() {
        let cell = PaceCell::default();
        cell.add_tokens(100, 100);
        cell.add_first(0, 1_000_000);
        let before = cell.read();
        cell.add_tokens(3, 70);
        cell.add_tokens(1, 10);
        cell.add_first(FIRST_PROMPT_BYTES_MAX, 500);
        cell.add_prompt(7);
        let pace = cell.read().since(before);
        assert_eq!(pace.token_gap(4), Some(Duration::from_micros(20)));
        assert_eq!(pace.token_gap(5), None);
        assert_eq!((pace.first_token(1), pace.first_token(2)), (Some(Duration::from_micros(500)), None));
        assert_eq!(pace.prompt_bytes, 7);
        assert_eq!(Pace::default().token_gap(0), None);
    }

    #[test]
    fn a_long_prompt_says_nothing_about_first_tokens() {
        let cell = PaceCell::default();
        cell.add_first(FIRST_PROMPT_BYTES_MAX + 1, 60_000_000);
        assert_eq!(cell.read(), Pace::default());
    }
}
