//! Reports of a replay: a table, JSON, and a plot.

mod axes;
pub mod json;
pub mod svg;
pub mod table;

use crate::measure::Outcome;
use crate::measure::share;
use crate::trace::Trace;

/// One policy's run, named.
#[derive(Clone, Debug)]
pub struct Row {
    /// The policy, with what sets it apart from others of its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Everything that is reported.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the requests came from.
    pub source: String,
    /// How they were run, in words.
    pub plan: String,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Share of them that one cache without a bound would have saved.
    pub reusable_share: f64,
    /// Tokens of a cache that would hold every prompt.
    pub distinct_tokens: u64,
    /// The runs, in the order asked for.
    pub rows: Vec<Row>,
}

// === impl Report ===

impl Report {
    /// A report about `trace`, with no rows yet.
    pub fn new(source: String, plan: String, trace: &Trace) -> Report {
        let prompt_tokens = trace.prompt_tokens();
        Report {
            source,
            plan,
            prompt_tokens,
            reusable_share: share(trace.reusable_tokens(), prompt_tokens),
            distinct_tokens: trace.distinct_tokens(),
            rows: Vec::new(),
        }
    }
}

/// Microseconds with the unit that fits.
fn duration_text(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{micros:.0} µs"),
        micros if micros < 1e6 => format!("{:.0} ms", micros / 1e3),
        micros if micros < 1e8 => format!("{:.2} s", micros / 1e6),
        micros => format!("{:.0} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests;
