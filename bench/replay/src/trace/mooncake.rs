//! Lines as Mooncake publishes its traces: `{"timestamp":0,"input_length":700,"output_length":5,"hash_ids":[0,1]}`.
//!
//! A hash id names one block of the prompt together with all before it. The published files have blocks of 512 tokens
//! and milliseconds; a line of ours carries `block_tokens`, so that it can be read without being told.

use serde_json::Value;

use crate::limits::AT_US_MAX;
use crate::limits::BLOCKS_PER_REQUEST_MAX;
use crate::limits::OUTPUT_TOKENS_MAX;
use crate::limits::PROMPT_TOKENS_MAX;
use crate::trace::TraceRequest;
use crate::trace::read::FieldError;
use crate::trace::read::ReadOptions;
use crate::trace::read::TimeUnit;
use crate::trace::read::count;

pub(super) fn request(line: &Value, options: &ReadOptions) -> Result<TraceRequest, FieldError> {
    let prompt_tokens = count(line, "input_length", PROMPT_TOKENS_MAX.into())? as u32;
    let output_tokens = count(line, "output_length", OUTPUT_TOKENS_MAX.into())? as u32;
    let block_tokens = match line.get("block_tokens") {
        Some(_) => count(line, "block_tokens", PROMPT_TOKENS_MAX.into())? as u32,
        None => options.block_tokens,
    };
    let ids = line.get("hash_ids").and_then(Value::as_array).ok_or(FieldError::Missing("hash_ids"))?;
    if ids.len() > BLOCKS_PER_REQUEST_MAX {
        return Err(FieldError::Invalid("hash_ids", "too long a list"));
    }
    let ids: Option<Vec<u64>> = ids.iter().map(block_id).collect();
    let ids = ids.ok_or(FieldError::Invalid("hash_ids", "not a list of whole numbers"))?;
    let at_us = at_us(line, options.time_unit)?;
    Ok(TraceRequest::from_block_ids(at_us, prompt_tokens, output_tokens, block_tokens, ids))
}

/// Ids are opaque: a negative one is as good a name as any.
fn block_id(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_i64().map(i64::cast_unsigned))
}

fn at_us(line: &Value, unit: TimeUnit) -> Result<u64, FieldError> {
    let value = line.get("timestamp").ok_or(FieldError::Missing("timestamp"))?;
    let unit_us = match unit {
        TimeUnit::Milliseconds => 1e3,
        TimeUnit::Seconds => 1e6,
    };
    let at_us = value.as_f64().map(|timestamp| timestamp * unit_us);
    let at_us = at_us.filter(|at_us| (0.0..=AT_US_MAX as f64).contains(at_us));
    at_us
        .map(|at_us| at_us.round() as u64)
        .ok_or(FieldError::Invalid("timestamp", "not a time within a year"))
}
