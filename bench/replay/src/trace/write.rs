//! Writes a trace in Mooncake's shape, so that any tool that reads those can read it.

use std::io;
use std::io::Write;

use serde_json::json;

use crate::trace::Trace;

/// Writes every request on a line of its own. Keys and recorded decisions have no place in this shape and are left out.
///
/// # Errors
/// What the output says.
pub fn write(trace: &Trace, output: &mut impl Write) -> io::Result<()> {
    for request in trace.requests() {
        let ids: Vec<u64> = request.blocks.iter().map(|block| block.prefix).collect();
        let line = json!({
            "timestamp": request.at_us as f64 / 1e3,
            "input_length": request.prompt_tokens,
            "output_length": request.output_tokens,
            "hash_ids": ids,
            // The first block is a whole one unless the prompt is shorter than it.
            "block_tokens": request.blocks.first().map_or(1, |block| block.tokens),
        });
        writeln!(output, "{line}")?;
    }
    Ok(())
}
