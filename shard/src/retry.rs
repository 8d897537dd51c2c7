//! When a request is tried again, and after what pause. Decisions only: the attempts are [`dispatch`](crate::dispatch)'s.

use std::time::Duration;

use wire::ResponseHead;

/// How often a request is tried, and how long to wait in between (`--retry-*`).
#[derive(Clone, Copy, Debug)]
pub struct RetryRules {
    /// Attempts in all, at least one.
    pub attempts_max: u32,
    /// Pause before the second attempt.
    pub backoff_first: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Each pause is so many times the one before, at least 1.
    pub multiplier: f64,
    /// A pause is longer or shorter by up to this share of it, 0 to 1.
    pub jitter: f64,
}

impl RetryRules {
    /// The pause before the attempt that follows `attempts` others. `chance` is a draw between 0 and 1.
    pub(crate) fn pause(&self, attempts: u32, chance: f64) -> Duration {
        let grown = self.backoff_first.as_secs_f64()
            * self.multiplier.powi(attempts.saturating_sub(1).min(1_000) as i32);
        let bounded = grown.min(self.backoff_max.as_secs_f64());
        Duration::from_secs_f64(bounded * (1.0 + self.jitter * (2.0 * chance - 1.0)))
    }
}

/// Whether a worker's answer with this status is no answer to the client yet, as in SGLang's gateway.
pub(crate) fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long a worker asks to be left alone. A date instead of seconds is rare among engines and counts as nothing said.
pub(crate) fn retry_after(head: &ResponseHead<'_>) -> Option<Duration> {
    let seconds = std::str::from_utf8(head.header("retry-after")?).ok()?.trim();
    seconds.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RetryRules = RetryRules {
        attempts_max: 5,
        backoff_first: Duration::from_millis(50),
        backoff_max: Duration::from_millis(150),
        multiplier: 1.5,
        jitter: 0.2,
    };

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let pauses: Vec<f64> =
            (1..=5).map(|attempts| RULES.pause(attempts, 0.5).as_secs_f64() * 1_000.0).collect();
        let expected = [50.0, 75.0, 112.5, 150.0, 150.0];
        assert!(pauses.iter().zip(expected).all(|(is, should)| (is - should).abs() < 1e-6), "{pauses:?}");
        assert_eq!(RULES.pause(u32::MAX, 0.5), RULES.backoff_max);
    }

    #[test]
    fn jitter_goes_both_ways() {
        assert_eq!(RULES.pause(1, 0.0), Duration::from_millis(40));
        assert_eq!(RULES.pause(1, 1.0), Duration::from_millis(60));
    }
}
