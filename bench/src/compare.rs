//! Two targets under the same load, in turns, so that what disturbs the machine disturbs both.

use std::fmt::Write;

use crate::load::Load;
use crate::record::Record;
use crate::report::duration_text;
use crate::run::{RunError, run};
use crate::target::Target;

/// A number taken from each round.
struct Measure {
    name: &'static str,
    is_duration: bool,
    /// None where a round measured nothing of the kind.
    of: fn(&Record) -> Option<f64>,
}

const MEASURES: [Measure; 8] = [
    Measure { name: "requests/s", is_duration: false, of: |record| Some(record.requests_per_s()) },
    Measure { name: "tokens/s", is_duration: false, of: |record| Some(record.tokens_per_s()) },
    Measure { name: "cached %", is_duration: false, of: |record| Some(record.cache_hit_rate() * 100.0) },
    Measure { name: "ttft p50", is_duration: true, of: |record| quantile(&record.ttft_us, 0.5) },
    Measure { name: "ttft p99", is_duration: true, of: |record| quantile(&record.ttft_us, 0.99) },
    Measure { name: "inter-token p50", is_duration: true, of: |record| quantile(&record.gap_us, 0.5) },
    Measure { name: "total p50", is_duration: true, of: |record| quantile(&record.total_us, 0.5) },
    Measure { name: "total p99", is_duration: true, of: |record| quantile(&record.total_us, 0.99) },
];

/// The rounds of both targets.
#[derive(Debug, Default)]
pub struct Rounds {
    /// What the first target measured, round by round.
    pub left: Vec<Record>,
    /// What the second measured.
    pub right: Vec<Record>,
}

/// Runs `rounds` rounds against each target; who comes first alternates.
///
/// A round's load is the same for both but for a salt in the texts: two gateways may stand before the same
/// engines, and the second must not hit what the first left in their caches.
pub fn compare(load: &Load, targets: [&Target; 2], rounds: usize) -> Result<Rounds, RunError> {
    let mut done = Rounds::default();
    for round in 0..rounds {
        let load = Load { seed: load.seed.wrapping_add(round as u64), ..load.clone() };
        let label = |side: &str| format!("round {}/{rounds} {side}", round + 1);
        let salt = load.salt + 2 * round as u64;
        let left_load = Load { salt, ..load.clone() };
        let right_load = Load { salt: salt + 1, ..load };
        let (left, right);
        if round % 2 == 0 {
            left = run(&left_load, targets[0], &label("A"))?;
            right = run(&right_load, targets[1], &label("B"))?;
        } else {
            right = run(&right_load, targets[1], &label("B"))?;
            left = run(&left_load, targets[0], &label("A"))?;
        }
        done.left.push(left);
        done.right.push(right);
    }
    Ok(done)
}

// === impl Rounds ===

impl Rounds {
    /// Requests that failed, in all rounds.
    pub fn failures_count(&self) -> u64 {
        self.left.iter().chain(&self.right).map(Record::failures_count).sum()
    }

    /// Each measure's medians, and the ratios B/A of the rounds: their median, least and greatest.
    pub fn table(&self) -> String {
        let mut table = format!("{:<18}{:>12}{:>12}{:>9}  {}\n", "", "A", "B", "B/A", "min..max");
        for measure in &MEASURES {
            let pairs: Vec<(f64, f64)> = self
                .left
                .iter()
                .zip(&self.right)
                .filter_map(|(left, right)| Some(((measure.of)(left)?, (measure.of)(right)?)))
                .collect();
            if pairs.is_empty() {
                continue;
            }
            let left = median(pairs.iter().map(|pair| pair.0).collect());
            let right = median(pairs.iter().map(|pair| pair.1).collect());
            let ratios: Vec<f64> =
                pairs.iter().filter(|pair| pair.0 > 0.0).map(|pair| pair.1 / pair.0).collect();
            // Writing to a string does not fail.
            let _ =
                write!(table, "{:<18}{:>12}{:>12}", measure.name, measure.text(left), measure.text(right));
            let _ = match ratios.is_empty() {
                true => writeln!(table, "{:>9}", "-"),
                false => {
                    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = ratios.iter().copied().fold(0.0, f64::max);
                    writeln!(table, "{:>9.3}  {least:.3}..{most:.3}", median(ratios))
                }
            };
        }
        table
    }
}

impl Measure {
    fn text(&self, value: f64) -> String {
        if self.is_duration { duration_text(value) } else { format!("{value:.1}") }
    }
}

fn quantile(micros: &hdrhistogram::Histogram<u64>, quantile: f64) -> Option<f64> {
    (!micros.is_empty()).then(|| micros.value_at_quantile(quantile) as f64)
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "a median is of something");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
