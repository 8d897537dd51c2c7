//! What the flags of admission come to.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use fleet::admission::CLASSES_MAX;
use fleet::admission::ClassSettings;
use fleet::admission::GateRules;
use fleet::admission::IN_FLIGHT_BY_CLASS_MAX;
use fleet::admission::IN_FLIGHT_MAX;
use fleet::admission::PRIORITIES;
use fleet::admission::QUEUE_BY_CLASS_MAX;
use fleet::admission::QUEUE_MAX;
use fleet::admission::STARTS_PER_S_MAX;
use fleet::admission::priority_names;

use super::SECONDS_MAX;
use super::require;
use super::seconds;
use super::yaml::Document;
use super::yaml::Section;
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
    require(
        by_priority || flags.priority_scheduler_config.is_none(),
        "--priority-scheduler-config needs --priority-scheduler-enabled",
    )?;
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
    let rules = GateRules::with_classes(in_flight_max, &classes(flags.priority_scheduler_config.as_deref())?);
    let name = &flags.priority_scheduler_default_max_class;
    let class_max = rules.class_named(name.as_bytes()).ok_or_else(|| {
        let names = priority_names().join(", ");
        Failure::usage(format!("unknown --priority-scheduler-default-max-class `{name}`: use {names}"))
    })?;
    Ok(GateRules { class_max, ..rules })
}

/// What each class may have: SGLang's numbers, or those of the file instead.
fn classes(path: Option<&Path>) -> Result<[ClassSettings; CLASSES_MAX], Failure> {
    let mut classes = PRIORITIES;
    let Some(path) = path else { return Ok(classes) };
    let document = Document::read("--priority-scheduler-config", path)?;
    let mut root = document.root()?;
    let mut section = root.section("classes")?;
    for class in &mut classes {
        let mut fields = section.section(class.name)?;
        override_with(class, &mut fields)?;
        fields.end()?;
    }
    let places: u32 = classes.iter().map(|class| class.queue_size).sum();
    if places > QUEUE_BY_CLASS_MAX {
        let what =
            format!("have {places} places in their queues together, and may have {QUEUE_BY_CLASS_MAX}");
        return Err(root.wrong("classes", &what));
    }
    for pair in classes.windows(2) {
        if pair[1].preempt && !pair[0].preempt {
            let what = format!("cannot be true while that of {} is not", pair[0].name);
            return Err(section.wrong(&format!("{}.preempt", pair[1].name), &what));
        }
    }
    if let Some(class) = classes.iter().find(|class| class.preempt && class.queue_size == 0) {
        let what = "cannot be 0 in a class that preempts: it waits until the other has ended";
        return Err(section.wrong(&format!("{}.queue_size", class.name), what));
    }
    section.end()?;
    root.end()?;
    Ok(classes)
}

fn override_with(class: &mut ClassSettings, fields: &mut Section<'_>) -> Result<(), Failure> {
    let places = u64::from(IN_FLIGHT_BY_CLASS_MAX);
    if let Some(floor) = fields.number("reserved_floor", 0..=places)? {
        class.reserved_floor = floor as u32;
    }
    if let Some(share) = fields.share("share")? {
        class.share = share;
    }
    if let Some(size) = fields.number("queue_size", 0..=QUEUE_BY_CLASS_MAX.into())? {
        class.queue_size = size as u32;
    }
    if let Some(timeout_s) = fields.number("queue_timeout_secs", 1..=SECONDS_MAX)? {
        class.queue_timeout_s = timeout_s;
    }
    if let Some(starvation_s) = fields.number("starvation_secs", 1..=SECONDS_MAX)? {
        class.starvation_s = starvation_s;
    }
    if let Some(preempt) = fields.switch("preempt")? {
        class.preempt = preempt;
    }
    Ok(())
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
