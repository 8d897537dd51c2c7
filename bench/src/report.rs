//! Reports of a run: a table, JSON, and a page.

pub mod html;
pub mod json;
mod svg;
pub mod table;

use hdrhistogram::Histogram;

/// Names a histogram where it is shown.
pub(crate) struct Latency<'a> {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) micros: &'a Histogram<u64>,
}

/// A record's histograms that measured anything.
pub(crate) fn latencies(record: &crate::record::Record) -> Vec<Latency<'_>> {
    let all = [
        Latency { name: "time to first token", key: "ttft_us", micros: &record.ttft_us },
        Latency { name: "inter-token", key: "inter_token_us", micros: &record.gap_us },
        Latency { name: "total", key: "total_us", micros: &record.total_us },
    ];
    all.into_iter().filter(|latency| !latency.micros.is_empty()).collect()
}

/// Microseconds with the unit that fits.
pub(crate) fn duration_text(micros: f64) -> String {
    match micros {
        micros if micros < 1_000.0 => format!("{micros:.0} µs"),
        micros if micros < 1_000_000.0 => format!("{:.2} ms", micros / 1_000.0),
        micros => format!("{:.2} s", micros / 1_000_000.0),
    }
}
