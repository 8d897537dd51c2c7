//! The table: one line per policy.

use std::fmt::Write;

use crate::measure::Outcome;
use crate::report::Report;
use crate::report::Row;
use crate::report::duration_text;

/// Headings, right-aligned over columns as wide as they are with two spaces before them.
const COLUMNS: [&str; 11] = [
    " hits",
    "TTFT mean",
    "    p50",
    "    p90",
    "    p99",
    "  req/s",
    "makespan",
    "in flight max/avg",
    "peak",
    "requests max/avg",
    "computed max/avg",
];

/// The table, with a line's end after each line.
pub fn text(report: &Report) -> String {
    let mut table = String::new();
    // Writing to a string does not fail.
    let _ = write_table(&mut table, report);
    table
}

fn write_table(table: &mut String, report: &Report) -> std::fmt::Result {
    let Report { source, plan, prompt_tokens, reusable_share, distinct_tokens, rows } = report;
    writeln!(table, "{source}")?;
    writeln!(table, "{plan}")?;
    writeln!(
        table,
        "{prompt_tokens} prompt tokens, {distinct_tokens} distinct; one cache without a bound would hit {:.1} %\n",
        reusable_share * 100.0
    )?;
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("policy".len());
    write!(table, "{:<name_width$}", "policy")?;
    for column in COLUMNS {
        write!(table, "  {column}")?;
    }
    writeln!(table)?;
    for Row { name, outcome } in rows {
        write!(table, "{name:<name_width$}")?;
        for (column, cell) in COLUMNS.iter().zip(cells(outcome)) {
            write!(table, "  {cell:>width$}", width = column.len())?;
        }
        writeln!(table)?;
    }
    Ok(())
}

fn cells(outcome: &Outcome) -> [String; COLUMNS.len()] {
    let ttft = |quantile| duration_text(Outcome::quantile(&outcome.ttft_us, quantile) as f64);
    [
        format!("{:.1}%", outcome.hit_rate() * 100.0),
        duration_text(Outcome::mean(&outcome.ttft_us)),
        ttft(0.5),
        ttft(0.9),
        ttft(0.99),
        format!("{:.2}", outcome.requests_per_s()),
        duration_text(outcome.makespan_us as f64),
        format!("{:.2}", outcome.in_flight_imbalance),
        outcome.in_flight_peak.to_string(),
        format!("{:.2}", outcome.request_imbalance()),
        format!("{:.2}", outcome.computed_imbalance()),
    ]
}
