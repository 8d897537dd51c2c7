//! The table at the end of a run.

use std::fmt::Write;

use super::{duration_text, latencies};
use crate::record::Record;

/// Quantiles shown, and their names.
pub(super) const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p99.9")];

/// The table, with a line's end after each line.
pub fn text(record: &Record) -> String {
    let mut table = String::new();
    // Writing to a string does not fail.
    let _ = write_counts(&mut table, record);
    let _ = write_latencies(&mut table, record);
    let _ = write_failures(&mut table, record);
    table
}

fn write_counts(table: &mut String, record: &Record) -> std::fmt::Result {
    let seconds = record.elapsed.as_secs_f64();
    writeln!(table, "requests     {} in {seconds:.2} s, {:.1}/s", record.requests, record.requests_per_s())?;
    writeln!(table, "tokens       {} answered, {:.1}/s", record.answer_tokens, record.tokens_per_s())?;
    let hit_percent = record.cache_hit_rate() * 100.0;
    writeln!(table, "prompts      {} tokens, {hit_percent:.1} % cached", record.prompt_tokens)?;
    if record.reconnects > 0 {
        writeln!(table, "reconnects   {}", record.reconnects)?;
    }
    Ok(())
}

fn write_latencies(table: &mut String, record: &Record) -> std::fmt::Result {
    write!(table, "\n{:<20}{:>11}", "latency", "mean")?;
    for (_, name) in QUANTILES {
        write!(table, "{name:>11}")?;
    }
    writeln!(table, "{:>11}", "max")?;
    for latency in latencies(record) {
        write!(table, "{:<20}{:>11}", latency.name, duration_text(latency.micros.mean()))?;
        for (quantile, _) in QUANTILES {
            write!(table, "{:>11}", duration_text(latency.micros.value_at_quantile(quantile) as f64))?;
        }
        writeln!(table, "{:>11}", duration_text(latency.micros.max() as f64))?;
    }
    Ok(())
}

fn write_failures(table: &mut String, record: &Record) -> std::fmt::Result {
    if !record.failures.is_empty() {
        writeln!(table, "\nfailures     {}", record.failures_count())?;
    }
    for (failure, count) in &record.failures {
        writeln!(table, "  {:<18}{count:>11}", failure.to_string())?;
    }
    Ok(())
}
