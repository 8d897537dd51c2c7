//! What the flags of admission come to.

use std::num::NonZeroU32;
use std::time::Duration;

use fleet::admission::GateRules;
use fleet::admission::IN_FLIGHT_BY_CLASS_MAX;
use fleet::admission::IN_FLIGHT_MAX;
use fleet::admission::QUEUE_MAX;
use fleet::admission::STARTS_PER_S_MAX;
use fleet::admission::priority_names;

use super::require;
use super::seconds;
use crate::Failure;
use crate::cli::AdmissionFlags;

/// Value of `--max-concurrent-requests` that means no limit.
const NO_LIMIT: i64 = -1;
/// Places in the queue when no number is given: SGLang's.
const QUEUE_SIZE: u32 = 100;
/// Longest wait in seconds when none is given: SGLang's.
const QUEUE_TIMEOUT_S: u64 = 60;

/// What requests are admitted by; none when all are.
///
/// # Errors
/// The first flag that cannot be used, as one line.
pub(super) fn rules(flags: &AdmissionFlags) -> Result<Option<GateRules>, Failure> {
    let by_priority = flags.priority_scheduler_enabled;
    let rate = flags.rate_limit_tokens_per_second.and_then(NonZeroU32::new);
    if flags.max_concurrent_requests == NO_LIMIT {
        require(!by_priority, "--priority-scheduler-enabled needs --max-concurrent-requests")?;
        require(rate.is_none(), "--rate-limit-tokens-per-second needs --max-concurrent-requests")?;
        return Ok(None);
    }
    let most = if by_priority { IN_FLIGHT_BY_CLASS_MAX } else { IN_FLIGHT_MAX };
    let in_flight_max = u32::try_from(flags.max_concurrent_requests)
        .ok()
        .filter(|wanted| (1..=most).contains(wanted))
        .ok_or_else(|| {
            let classes = if by_priority { " with --priority-scheduler-enabled" } else { "" };
            Failure::usage(format!(
                "--max-concurrent-requests must be between 1 and {most}{classes}, or -1 for no limit"
            ))
        })?;
    require(
        rate.is_none_or(|rate| rate.get() <= STARTS_PER_S_MAX),
        &format!("--rate-limit-tokens-per-second must be between 0 and {STARTS_PER_S_MAX}"),
    )?;
    let rules = if by_priority { prioritised(flags, in_flight_max) } else { plain(flags, in_flight_max) };
    rules.map(|rules| Some(GateRules { starts_per_s: rate, ..rules }))
}

fn plain(flags: &AdmissionFlags, in_flight_max: u32) -> Result<GateRules, Failure> {
    let queue_size = flags.queue_size.unwrap_or(QUEUE_SIZE);
    require(queue_size <= QUEUE_MAX, &format!("--queue-size must be between 0 and {QUEUE_MAX}"))?;
    let timeout_s = flags.queue_timeout_secs.unwrap_or(QUEUE_TIMEOUT_S);
    let timeout = if queue_size == 0 { Duration::ZERO } else { seconds("--queue-timeout-secs", timeout_s)? };
    Ok(GateRules::plain(in_flight_max, queue_size, timeout))
}

fn prioritised(flags: &AdmissionFlags, in_flight_max: u32) -> Result<GateRules, Failure> {
    require(
        flags.queue_size.is_none() && flags.queue_timeout_secs.is_none(),
        "--queue-size and --queue-timeout-secs do not go with --priority-scheduler-enabled, whose classes have queues of \
         their own",
    )?;
    let rules = GateRules::by_priority(in_flight_max);
    let name = &flags.priority_scheduler_default_max_class;
    let class_max = rules.class_named(name.as_bytes()).ok_or_else(|| {
        let names = priority_names().join(", ");
        Failure::usage(format!("unknown --priority-scheduler-default-max-class `{name}`: use {names}"))
    })?;
    Ok(GateRules { class_max, ..rules })
}

/// The header, lower case, that names a request's tenant, if it is trusted.
///
/// # Errors
/// When it is no name of a header.
pub(super) fn tenant_header(flags: &AdmissionFlags) -> Result<Option<String>, Failure> {
    let name = &flags.tenant_header_name;
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    require(is_name, "--tenant-header-name takes the name of a header")?;
    Ok(flags.trust_tenant_header.then(|| name.to_ascii_lowercase()))
}
