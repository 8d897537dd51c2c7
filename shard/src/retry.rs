//! When a request is tried again, and after what pause. Decisions only: the attempts are [`dispatch`](crate::dispatch)'s.

use std::time::Duration;

use fleet::breaker::Outcome;
use fleet::budget::RetryBudget;
use fleet::id::WorkerId;
use smallvec::SmallVec;
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
    /// Whether only who could not be asked, or broke off before an answer, is replaced, without a pause and whatever it
    /// adds up to, and nobody is asked twice: as vLLM's production-stack router does. Any status is an answer then.
    pub is_plain: bool,
}

/// How an attempt failed, as far as it matters for the next one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failed {
    /// The request did not get as far as a worker.
    pub is_unreached: bool,
    /// How long the worker asks to be left alone.
    pub retry_after: Duration,
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// It was tried as often as is allowed.
    Exhausted,
    /// The gateway has made as many retries as it may.
    Denied,
    /// Whoever could be asked wants to be left alone for too long.
    TooLong,
    /// There is nobody, not even of those who have failed.
    Nobody,
}

/// The attempts of one request: how many, and at whom.
///
/// While somebody routable has not been asked, nobody is asked twice. Who cannot be connected to is no reason to wait
/// before another is asked, and costs the fleet nothing; for everything else there is a pause and a budget.
#[derive(Debug, Default)]
pub struct Attempts {
    made: u32,
    tried: SmallVec<[WorkerId; 4]>,
    pause: Duration,
    /// How often nobody else was found since the last failure.
    in_vain: u32,
    is_second_round: bool,
}

impl Attempts {
    /// Attempts made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Whom not to ask now: who has failed, until everybody has.
    pub fn tried(&self) -> &[WorkerId] {
        &self.tried
    }

    /// Whether everybody has failed once: what fails now has failed before.
    pub fn is_second_round(&self) -> bool {
        self.is_second_round
    }

    /// Counts one more attempt.
    pub fn begin(&mut self) {
        self.made += 1;
    }

    /// The pause before somebody else is asked than `worker`, who has failed. `chance` is a draw between 0 and 1.
    ///
    /// # Errors
    /// When nobody is asked again.
    pub fn failed(
        &mut self,
        worker: WorkerId,
        failed: Failed,
        rules: &RetryRules,
        (budget, now_ms): (&RetryBudget, u64),
        chance: f64,
    ) -> Result<Duration, GiveUp> {
        if self.made >= rules.attempts_max {
            return Err(GiveUp::Exhausted);
        }
        if !rules.is_plain && !failed.is_unreached && !budget.withdraw(now_ms) {
            return Err(GiveUp::Denied);
        }
        self.tried.push(worker);
        self.in_vain = 0;
        self.pause = rules.pause(self.made, chance);
        Ok(if failed.is_unreached || rules.is_plain { Duration::ZERO } else { self.pause })
    }

    /// Nobody is there to choose who has not failed: the further pause before it is looked again. After that, those who
    /// have failed may be chosen too.
    ///
    /// # Errors
    /// When they are not asked again, or are not there.
    pub fn nobody_else(&mut self, failed: Failed, rules: &RetryRules) -> Result<Duration, GiveUp> {
        if rules.is_plain {
            return Err(GiveUp::Nobody);
        }
        self.in_vain += 1;
        match self.in_vain {
            1 => {
                let retry_after = failed.retry_after.saturating_sub(self.pause);
                let pause = if failed.is_unreached { self.pause } else { retry_after };
                if pause > rules.backoff_max { Err(GiveUp::TooLong) } else { Ok(pause) }
            }
            // Nobody came back meanwhile.
            2 => {
                self.tried.clear();
                self.is_second_round = true;
                Ok(Duration::ZERO)
            }
            _ => Err(GiveUp::Nobody),
        }
    }
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
pub fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// What a worker's status says about the worker: 4xx is the client's doing, and 429 and 503 are back-pressure.
pub fn outcome_of(status: u16) -> Outcome {
    match status {
        503 => Outcome::Neutral,
        0..400 => Outcome::Success,
        500.. => Outcome::Failure,
        400..500 => Outcome::Neutral,
    }
}

/// Whether a worker's answer with this status says that it has enough to do.
pub fn is_back_pressure(status: u16) -> bool {
    matches!(status, 429 | 503)
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
        is_plain: false,
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
    fn nobody_is_asked_twice_while_somebody_is_left() {
        let (budget, id) = (RetryBudget::new(20), |index| WorkerId { index, generation: 1 });
        let mut attempts = Attempts::default();
        let broken = Failed::default();
        attempts.begin();
        assert_eq!(attempts.failed(id(0), broken, &RULES, (&budget, 0), 0.5), Ok(RULES.backoff_first));
        attempts.begin();
        let refused = Failed { is_unreached: true, ..broken };
        assert_eq!(attempts.failed(id(1), refused, &RULES, (&budget, 0), 0.5), Ok(Duration::ZERO));
        assert_eq!((attempts.tried(), attempts.is_second_round()), (&[id(0), id(1)][..], false));
        assert_eq!(attempts.nobody_else(refused, &RULES), Ok(Duration::from_millis(75)), "now it is waited");
        assert_eq!(attempts.tried(), &[id(0), id(1)][..], "somebody may come back meanwhile");
        assert_eq!(attempts.nobody_else(refused, &RULES), Ok(Duration::ZERO));
        assert_eq!((attempts.tried(), attempts.is_second_round()), (&[][..], true));
        assert_eq!(attempts.nobody_else(refused, &RULES), Err(GiveUp::Nobody));
        assert_eq!(budget.left(), 99, "who was not reached costs nothing");
    }

    #[test]
    fn an_end_is_told_by_its_reason() {
        let (budget, worker) = (RetryBudget::new(0), WorkerId { index: 0, generation: 1 });
        let mut attempts = Attempts::default();
        let busy = Failed { is_unreached: false, retry_after: Duration::from_secs(1) };
        attempts.begin();
        assert!(attempts.failed(worker, busy, &RULES, (&budget, 0), 0.5).is_ok());
        assert_eq!(attempts.nobody_else(busy, &RULES), Err(GiveUp::TooLong));
        while budget.withdraw(0) {}
        assert_eq!(attempts.failed(worker, busy, &RULES, (&budget, 0), 0.5), Err(GiveUp::Denied));
        (0..4).for_each(|_| attempts.begin());
        assert_eq!(attempts.failed(worker, busy, &RULES, (&budget, 1_000), 0.5), Err(GiveUp::Exhausted));
    }

    #[test]
    fn jitter_goes_both_ways() {
        assert_eq!(RULES.pause(1, 0.0), Duration::from_millis(40));
        assert_eq!(RULES.pause(1, 1.0), Duration::from_millis(60));
    }
}
