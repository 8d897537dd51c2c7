//! What is printed, to the letter.

use super::*;
use crate::engine::EngineStats;

fn report() -> Report {
    let engine =
        |requests, cached_tokens| EngineStats { requests, prompt_tokens: 4_000, cached_tokens, busy_us: 9 };
    let outcome = |ttft_us: Vec<u64>, cached: [u64; 2]| Outcome {
        requests: 4,
        prompt_tokens: 8_000,
        cached_tokens: cached.iter().sum(),
        latency_us: ttft_us.iter().map(|micros| micros * 2).collect(),
        ttft_us,
        makespan_us: 2_000_000,
        in_flight_imbalance: 1.25,
        in_flight_peak: 3,
        engines: vec![engine(3, cached[0]), engine(1, cached[1])],
    };
    Report {
        source: "a.jsonl: 4 requests, recorded at 2.00 a second".to_owned(),
        plan: "2 engines".to_owned(),
        prompt_tokens: 8_000,
        reusable_share: 0.75,
        distinct_tokens: 2_000,
        rows: vec![
            Row {
                name: "random".to_owned(),
                outcome: outcome(vec![900, 20_000, 30_000, 2_000_000], [1_000, 1_000]),
            },
            Row { name: "a<b & c".to_owned(), outcome: outcome(vec![100, 100, 200, 300], [3_000, 3_000]) },
        ],
    }
}

#[test]
fn the_table_has_a_line_per_policy() {
    let expect = "\
a.jsonl: 4 requests, recorded at 2.00 a second
2 engines
8000 prompt tokens, 2000 distinct; one cache without a bound would hit 75.0 %

policy    hits  TTFT mean      p50      p90      p99    req/s  makespan  in flight max/avg  peak  requests max/avg  computed max/avg
random   25.0%     513 ms    20 ms   2.00 s   2.00 s     2.00    2.00 s               1.25     3              1.50              1.00
a<b & c  75.0%     175 µs   100 µs   300 µs   300 µs     2.00    2.00 s               1.25     3              1.50              1.00
";
    assert_eq!(table::text(&report()), expect);
}

#[test]
fn json_says_what_the_table_says() {
    let value = json::value(&report());
    let random = &value["policies"][0];
    assert_eq!(random["policy"], "random");
    assert_eq!(random["hit_rate"], 0.25);
    assert_eq!(random["ttft_us"]["p90"], 2_000_000);
    assert_eq!(random["ttft_us"]["percents"].as_array().map(Vec::len), Some(101));
    assert_eq!(random["engines"][0]["requests"], 3);
    assert_eq!(value["reusable_share"], 0.75);
}

#[test]
fn the_plot_has_a_curve_and_a_bar_per_policy() {
    let svg = svg::text(&report());
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!((svg.matches("<polyline").count(), svg.matches("<rect").count()), (2, 3));
    assert!(svg.contains("25.0 % random") && svg.contains("75.0 % a&lt;b &amp; c") && !svg.contains("NaN"));
}

#[test]
fn nothing_is_reported_as_nothing() {
    let outcome = Outcome {
        requests: 0,
        prompt_tokens: 0,
        cached_tokens: 0,
        ttft_us: Vec::new(),
        latency_us: Vec::new(),
        makespan_us: 0,
        in_flight_imbalance: 1.0,
        in_flight_peak: 0,
        engines: Vec::new(),
    };
    let rows = vec![Row { name: "none".to_owned(), outcome }];
    let report = Report { rows, ..report() };
    assert!(!svg::text(&report).contains("NaN") && !table::text(&report).contains("NaN"));
}
