//! Reads a trace file line by line, within bounds.

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::Read;

use serde_json::Value;

use crate::limits::BLOCKS_MAX;
use crate::limits::LINE_BYTES_MAX;
use crate::limits::REQUESTS_MAX;
use crate::trace::Captured;
use crate::trace::Trace;
use crate::trace::TraceRequest;
use crate::trace::decision;
use crate::trace::mooncake;

/// The unit of a `timestamp` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// As in the traces of Mooncake.
    #[default]
    Milliseconds,
    /// As in some others of the same shape.
    Seconds,
}

/// What a file does not say itself.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Tokens of one `hash_ids` block, unless the line says otherwise.
    pub block_tokens: u32,
    /// Unit of `timestamp`.
    pub time_unit: TimeUnit,
    /// Answer tokens of a request whose line does not tell: decisions are written before the answer is known.
    pub output_tokens: u32,
    /// The one model whose captured decisions are read; those of all when none is named.
    pub model: Option<String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { block_tokens: 512, time_unit: TimeUnit::Milliseconds, output_tokens: 128, model: None }
    }
}

/// Why a trace cannot be used, with the line at fault.
#[derive(Debug)]
pub struct ReadError {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Io(io::Error),
    TooLong,
    TooManyRequests,
    TooManyBlocks,
    Json(serde_json::Error),
    UnknownShape,
    Field(FieldError),
}

/// Which field of a line cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    /// It is not there.
    Missing(&'static str),
    /// It is not what it should be.
    Invalid(&'static str, &'static str),
}

/// Reads every request of `input`: JSON objects, one a line, of any known shape. Empty lines are skipped.
///
/// # Errors
/// The first line that cannot be used. Nothing is guessed: a trace is read whole or not at all.
pub fn read(input: impl BufRead, options: &ReadOptions) -> Result<Trace, ReadError> {
    let mut input = input;
    let mut requests = Vec::new();
    let mut captured = Vec::new();
    let mut blocks = 0;
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        line += 1;
        let at = |kind| ReadError { line, kind };
        text.clear();
        // One byte beyond the bound tells a line that is too long from one that just fits.
        let mut bounded = (&mut input).take(LINE_BYTES_MAX as u64 + 1);
        if bounded.read_until(b'\n', &mut text).map_err(|error| at(Kind::Io(error)))? == 0 {
            return Ok(Trace::with_captured(requests, captured));
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(at(Kind::TooLong));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if requests.len().max(captured.len()) == REQUESTS_MAX {
            return Err(at(Kind::TooManyRequests));
        }
        let (request, decision) = parse(&text, options).map_err(at)?;
        blocks += request.as_ref().map_or(0, |request| request.blocks.len());
        if blocks > BLOCKS_MAX {
            return Err(at(Kind::TooManyBlocks));
        }
        requests.extend(request);
        captured.extend(decision);
    }
}

/// Reads one line, of the shape its fields tell. A captured retry is a decision, but no request of its own.
fn parse(text: &[u8], options: &ReadOptions) -> Result<(Option<TraceRequest>, Option<Captured>), Kind> {
    let line: Value = serde_json::from_slice(text).map_err(Kind::Json)?;
    if line.get("hash_ids").is_some() {
        let request = mooncake::request(&line, options).map_err(Kind::Field)?;
        return Ok((Some(request), None));
    }
    if line.get("samples").is_some() {
        if options.model.as_ref().is_some_and(|model| line.get("model").is_none_or(|name| name != model)) {
            return Ok((None, None));
        }
        let captured = decision::captured(&line).map_err(Kind::Field)?;
        let is_retry = count_or(&line, "attempt", 0, u8::MAX.into()).map_err(Kind::Field)? > 0;
        let request = decision::request(&line, options).map_err(Kind::Field)?;
        return Ok(((!is_retry).then_some(request), Some(captured)));
    }
    Err(Kind::UnknownShape)
}

/// A field that holds a count from 0 to `most`.
pub(super) fn count(line: &Value, name: &'static str, most: u64) -> Result<u64, FieldError> {
    let value = line.get(name).ok_or(FieldError::Missing(name))?;
    let number = value.as_u64().filter(|&number| number <= most);
    number.ok_or(FieldError::Invalid(name, "not a whole number within its bound"))
}

/// The same, of a field that may be left out.
pub(super) fn count_or(line: &Value, name: &'static str, default: u64, most: u64) -> Result<u64, FieldError> {
    if line.get(name).is_some() { count(line, name, most) } else { Ok(default) }
}

// === impl ReadError ===

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.kind {
            Kind::Io(error) => write!(f, "{error}"),
            Kind::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Kind::TooManyRequests => write!(f, "more than {REQUESTS_MAX} requests"),
            Kind::TooManyBlocks => write!(f, "more than {BLOCKS_MAX} prompt blocks in all"),
            Kind::Json(error) => write!(f, "not JSON: {error}"),
            Kind::UnknownShape => write!(f, "neither `hash_ids` nor `samples`: no known kind of trace"),
            Kind::Field(FieldError::Missing(name)) => write!(f, "`{name}` is missing"),
            Kind::Field(FieldError::Invalid(name, reason)) => write!(f, "`{name}` is {reason}"),
        }
    }
}

impl std::error::Error for ReadError {}
