//! Lines as the gateway captures its own decisions: what was asked, what was known, who was chosen and why.
//!
//! A line holds no prompt, only samples of its block hashes at fixed depths. Two prompts share what lies before the
//! last depth at which their samples agree, so lineage is known to a quarter of an octave.

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

/// The depths, in blocks, at which a prompt is sampled.
const DEPTHS: [u32; 44] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 19, 23, 27, 32, 38, 45, 54, 64, 76, 91, 108, 128, 152, 181, 215,
    256, 304, 362, 431, 512, 609, 724, 861, 1024, 1218, 1448, 1722, 2048, 2435, 2896, 3444, 4096,
];

/// A captured decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Name of the policy that decided.
    pub policy: Box<str>,
    /// Index of the worker that was chosen.
    pub chosen: u32,
    /// Why, in the policy's own words.
    pub reason: Box<str>,
    /// The whole line: what the decision was made from.
    pub evidence: Value,
}

pub(super) fn request(line: Value, options: &ReadOptions) -> Result<TraceRequest, FieldError> {
    let at_us = count(&line, "at_us", AT_US_MAX)?;
    let bytes_max = u64::from(PROMPT_TOKENS_MAX) * u64::from(BYTES_PER_TOKEN);
    let prompt_bytes = count(&line, "prompt_bytes", bytes_max)? as usize;
    let blocks = count(&line, "blocks", u32::MAX.into())? as u32;
    let samples = line.get("samples").and_then(Value::as_array).ok_or(FieldError::Missing("samples"))?;
    if samples.len() > DEPTHS.len() {
        return Err(FieldError::Invalid("samples", "too long a list"));
    }
    let samples: Option<Vec<u64>> = samples.iter().map(hex).collect();
    let samples = samples.ok_or(FieldError::Invalid("samples", "not a list of hexadecimal hashes"))?;
    let key = match line.get("key") {
        None | Some(Value::Null) => None,
        Some(key) => Some(hex(key).ok_or(FieldError::Invalid("key", "not a hexadecimal hash"))?),
    };
    let recorded = Recorded {
        policy: word(&line, "policy")?,
        chosen: count(&line, "chosen", u32::MAX.into())? as u32,
        reason: word(&line, "reason")?,
        evidence: Value::Null,
    };
    let tokens_of = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN as usize) as u32;
    Ok(TraceRequest {
        at_us,
        blocks: sampled(&samples, blocks, prompt_bytes),
        prompt_tokens: tokens_of(prompt_bytes).max(1),
        output_tokens: options.output_tokens.max(1),
        key,
        recorded: Some(Box::new(Recorded { evidence: line, ..recorded })),
    })
}

/// The prompt as its samples tell it: each covers the bytes since the one before it.
fn sampled(samples: &[u64], blocks: u32, prompt_bytes: usize) -> Box<[PromptBlock]> {
    let mut prefix = 0;
    let mut before = 0;
    let tokens_until =
        |depth: u32| (fleet::blocks::bytes_covered(depth, prompt_bytes) / BYTES_PER_TOKEN as usize) as u32;
    samples
        .iter()
        .zip(DEPTHS.into_iter().take_while(|depth| *depth <= blocks))
        .map(|(sample, depth)| {
            prefix = chain(prefix, *sample);
            let tokens = tokens_until(depth) - before;
            before += tokens;
            PromptBlock { prefix, tokens }
        })
        .collect()
}

fn word(line: &Value, name: &'static str) -> Result<Box<str>, FieldError> {
    match line.get(name) {
        Some(Value::String(word)) => Ok(word.as_str().into()),
        Some(_) => Err(FieldError::Invalid(name, "not a text")),
        None => Err(FieldError::Missing(name)),
    }
}

fn hex(value: &Value) -> Option<u64> {
    value.as_str().and_then(|digits| u64::from_str_radix(digits, 16).ok())
}
