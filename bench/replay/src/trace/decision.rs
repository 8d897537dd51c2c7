//! Lines as the gateway captures its own decisions: what was asked, what was known, who was chosen and why.
//!
//! A line holds no prompt, only samples of its block hashes at fixed depths. Two prompts share what lies before the
//! last depth at which their samples agree, so lineage is known to a quarter of an octave.

use fleet::decision::CANDIDATES_MAX;
use fleet::decision::Candidate;
use fleet::decision::Evidence;
use fleet::decision::Reason;
use fleet::decision::Role;
use fleet::decision::SAMPLE_DEPTHS;
use fleet::rules::Policy;
use fleet::rules::Rules;
use serde_json::Value;

use crate::limits::AT_US_MAX;
use crate::limits::PROMPT_TOKENS_MAX;
use crate::trace::BYTES_PER_TOKEN;
use crate::trace::PromptBlock;
use crate::trace::TraceRequest;
use crate::trace::chain;
use crate::trace::read::FieldError;
use crate::trace::read::ReadOptions;
use crate::trace::read::count;
use crate::trace::read::count_or;

/// A captured decision: what it was made from, and what came out.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The policy that decided, with the settings it weighs evidence by.
    pub policy: Policy,
    /// Everything it was made from.
    pub evidence: Evidence,
    /// Index of the worker that was chosen.
    pub chosen: u32,
    /// Why.
    pub reason: Reason,
}

pub(super) fn captured(line: &Value) -> Result<Captured, FieldError> {
    let candidates = line.get("candidates").and_then(Value::as_array);
    let candidates = candidates.ok_or(FieldError::Missing("candidates"))?;
    if candidates.len() > CANDIDATES_MAX {
        return Err(FieldError::Invalid("candidates", "too long a list"));
    }
    let u16_of = |name| count_or(line, name, 0, u16::MAX.into()).map(|number| number as u16);
    let u32_of = |name, default: u32| {
        count_or(line, name, default.into(), u32::MAX.into()).map(|number| number as u32)
    };
    let reason = word(line, "reason")?;
    Ok(Captured {
        policy: policy(line)?,
        evidence: Evidence {
            candidates: candidates.iter().map(candidate).collect::<Result<_, _>>()?,
            blocks: u16_of("blocks")?,
            known: u16_of("known")?,
            prompt_bytes: u32_of("prompt_bytes", 0)?,
            cost_max: u32_of("cost_max", u32::MAX)?,
            total: u32_of("total", 0)?,
            members: u32_of("members", 0)?,
        },
        chosen: count(line, "chosen", u32::MAX.into())? as u32,
        reason: Reason::from_name(reason).ok_or(FieldError::Invalid("reason", "not a known one"))?,
    })
}

/// The policy by its name. A line tells those settings that weigh evidence; the others were used to gather it.
fn policy(line: &Value) -> Result<Policy, FieldError> {
    let mut rules = Rules::default();
    let settings = line.get("settings").unwrap_or(&Value::Null);
    let ratio = |name: &'static str, default: f32| match settings.get(name) {
        None => Ok(default),
        Some(value) => {
            value.as_f64().map(|ratio| ratio as f32).ok_or(FieldError::Invalid(name, "not a number"))
        }
    };
    rules.cache_aware.cache_threshold = ratio("cache_threshold", rules.cache_aware.cache_threshold)?;
    let bucket = &mut rules.bucket;
    bucket.balance_rel_threshold = ratio("balance_rel_threshold", bucket.balance_rel_threshold)?;
    let abs = u64::from(bucket.balance_abs_threshold);
    bucket.balance_abs_threshold = count_or(settings, "balance_abs_threshold", abs, u32::MAX.into())? as u32;
    rules.policy(word(line, "policy")?).ok_or(FieldError::Invalid("policy", "not a known one"))
}

fn candidate(value: &Value) -> Result<Candidate, FieldError> {
    let u32_of = |name| count(value, name, u32::MAX.into()).map(|number| number as u32);
    let role = word(value, "role")?;
    Ok(Candidate {
        worker: u32_of("worker")?,
        cost: u32_of("cost")?,
        matched: count(value, "matched", u16::MAX.into())? as u16,
        role: Role::from_name(role).ok_or(FieldError::Invalid("role", "not a known one"))?,
        last_chosen: count_or(value, "last_chosen", 0, u32::MAX.into())? as u32,
        held_blocks: count_or(value, "held_blocks", 0, u32::MAX.into())? as u32,
        weight: count_or(value, "weight", 0, u16::MAX.into())? as u16,
    })
}

pub(super) fn request(line: &Value, options: &ReadOptions) -> Result<TraceRequest, FieldError> {
    let at_us = count(line, "at_us", AT_US_MAX)?;
    let bytes_max = u64::from(PROMPT_TOKENS_MAX) * u64::from(BYTES_PER_TOKEN);
    let prompt_bytes = count(line, "prompt_bytes", bytes_max)? as usize;
    let blocks = count(line, "blocks", u16::MAX.into())? as u16;
    let samples = line.get("samples").and_then(Value::as_array).ok_or(FieldError::Missing("samples"))?;
    if samples.len() > SAMPLE_DEPTHS.len() {
        return Err(FieldError::Invalid("samples", "too long a list"));
    }
    let samples: Option<Vec<u64>> = samples.iter().map(hex).collect();
    let samples = samples.ok_or(FieldError::Invalid("samples", "not a list of hexadecimal hashes"))?;
    let key = match line.get("key") {
        None | Some(Value::Null) => None,
        Some(key) => Some(hex(key).ok_or(FieldError::Invalid("key", "not a hexadecimal hash"))?),
    };
    Ok(TraceRequest {
        at_us,
        blocks: sampled(&samples, blocks, prompt_bytes),
        prompt_tokens: (prompt_bytes.div_ceil(BYTES_PER_TOKEN as usize) as u32).max(1),
        output_tokens: options.output_tokens.max(1),
        key,
    })
}

/// The prompt as its samples tell it: each covers the bytes since the one before it.
fn sampled(samples: &[u64], blocks: u16, prompt_bytes: usize) -> Box<[PromptBlock]> {
    let mut prefix = 0;
    let mut before = 0;
    samples
        .iter()
        .zip(SAMPLE_DEPTHS.into_iter().take_while(|depth| *depth <= blocks))
        .map(|(sample, depth)| {
            prefix = chain(prefix, *sample);
            let bytes = fleet::blocks::bytes_covered(depth.into(), prompt_bytes);
            let tokens = (bytes / BYTES_PER_TOKEN as usize) as u32 - before;
            before += tokens;
            PromptBlock { prefix, tokens }
        })
        .collect()
}

fn word<'a>(line: &'a Value, name: &'static str) -> Result<&'a str, FieldError> {
    match line.get(name) {
        Some(Value::String(word)) => Ok(word),
        Some(_) => Err(FieldError::Invalid(name, "not a text")),
        None => Err(FieldError::Missing(name)),
    }
}

fn hex(value: &Value) -> Option<u64> {
    value.as_str().and_then(|digits| u64::from_str_radix(digits, 16).ok())
}
