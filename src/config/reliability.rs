//! What the flags of retries, circuit breakers and stalls mean.

use std::time::Duration;

use fleet::breaker::BreakerRules;
use fleet::breaker::PROBES_MAX;
use fleet::breaker::THRESHOLD_MAX;
use shard::retry::RetryRules;

use super::SECONDS_MAX;
use super::require;
use super::seconds;
use crate::Failure;
use crate::cli::BreakerFlags;
use crate::cli::RetryFlags;
use crate::control::pace::PaceRules;

/// Attempts of a request when no flag says how many, as in SGLang's gateway.
const ATTEMPTS: u32 = 5;
/// Most attempts: beyond it a request does more harm than it can do good.
const ATTEMPTS_MAX: u32 = 100;
/// Longest pause between two attempts: an hour.
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// Workers that take less than this many times the median are as good as the others.
const SLOW_FACTOR_MIN: f64 = 1.5;
/// Beyond this, stalls are what to look for.
const SLOW_FACTOR_MAX: f64 = 1_000.0;

pub(super) fn retry(flags: &RetryFlags) -> Result<RetryRules, Failure> {
    let attempts = match (flags.retry_max_retries, flags.max_total_retries) {
        (Some(one), Some(other)) => one.min(other),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => ATTEMPTS,
    };
    let attempts_name =
        if flags.retry_max_retries.is_some() { "--retry-max-retries" } else { "--max-total-retries" };
    require(
        (1..=ATTEMPTS_MAX).contains(&attempts),
        &format!("{attempts_name} must be between 1 and {ATTEMPTS_MAX}"),
    )?;
    let (first_ms, max_ms) = (flags.retry_initial_backoff_ms, flags.retry_max_backoff_ms);
    require(first_ms > 0, "--retry-initial-backoff-ms must be above 0")?;
    require(max_ms >= first_ms, "--retry-max-backoff-ms must be at least --retry-initial-backoff-ms")?;
    require(max_ms <= BACKOFF_MS_MAX, &format!("--retry-max-backoff-ms must be at most {BACKOFF_MS_MAX}"))?;
    let multiplier = flags.retry_backoff_multiplier;
    require(multiplier.is_finite() && multiplier >= 1.0, "--retry-backoff-multiplier must be at least 1")?;
    let jitter = flags.retry_jitter_factor;
    require((0.0..=1.0).contains(&jitter), "--retry-jitter-factor must be between 0 and 1")?;
    require(flags.retry_budget_percent <= 100, "--retry-budget-percent must be between 0 and 100")?;
    Ok(RetryRules {
        attempts_max: if flags.disable_retries { 1 } else { attempts },
        backoff_first: Duration::from_millis(first_ms),
        backoff_max: Duration::from_millis(max_ms),
        multiplier,
        jitter,
        is_plain: false,
    })
}

pub(super) fn breaker(flags: &BreakerFlags) -> Result<Option<BreakerRules>, Failure> {
    let bounded = |name: &str, threshold: u32, max: u32| {
        require((1..=max).contains(&threshold), &format!("{name} must be between 1 and {max}"))
    };
    bounded("--cb-failure-threshold", flags.cb_failure_threshold, THRESHOLD_MAX)?;
    bounded("--cb-success-threshold", flags.cb_success_threshold, PROBES_MAX)?;
    let millis = |name, count| seconds(name, count).map(|duration| duration.as_millis() as u64);
    let rules = BreakerRules {
        failure_threshold: flags.cb_failure_threshold,
        success_threshold: flags.cb_success_threshold,
        open_ms: millis("--cb-timeout-duration-secs", flags.cb_timeout_duration_secs)?,
        window_ms: millis("--cb-window-duration-secs", flags.cb_window_duration_secs)?,
    };
    Ok((!flags.disable_circuit_breaker).then_some(rules))
}

/// How long a worker that was in trouble takes to get its whole share again.
pub(super) fn recovery_ramp(flags: &BreakerFlags) -> Duration {
    Duration::from_secs(flags.recovery_ramp_secs.min(SECONDS_MAX))
}

/// When a worker is slow beside the others of its model.
pub(super) fn pace(flags: &BreakerFlags) -> Result<Option<PaceRules>, Failure> {
    let factor = flags.slow_worker_factor;
    let is_good = factor == 0.0 || (SLOW_FACTOR_MIN..=SLOW_FACTOR_MAX).contains(&factor);
    let message =
        format!("--slow-worker-factor must be 0 or between {SLOW_FACTOR_MIN} and {SLOW_FACTOR_MAX}");
    require(is_good, &message)?;
    Ok((factor != 0.0).then(|| PaceRules::by_factor(factor)))
}

/// A time limit of which 0 means none.
pub(super) fn optional(flag: &str, count: u64) -> Result<Option<Duration>, Failure> {
    if count == 0 { Ok(None) } else { seconds(flag, count).map(Some) }
}
