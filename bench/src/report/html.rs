//! A run as one page that needs nothing else: the table, the latencies' distributions, and the rates.

use super::svg::{Axis, Line, plot};
use super::{latencies, table};
use crate::load::Load;
use crate::record::{Record, SLOT, Slot};
use crate::target::Target;

/// Most points of a line over time; longer runs are averaged.
const TIME_POINTS_MAX: usize = 240;

/// The page.
pub fn page(load: &Load, target: &Target, record: &Record) -> String {
    let title = escaped(&format!("{} against {target}", load.shape));
    let how = match load.rate_per_s {
        Some(rate) => format!("open loop, {rate} arrivals a second, {} connections", load.connections),
        None => format!("closed loop, {} connections", load.connections),
    };
    let how = escaped(&format!("{how}, seed {}", load.seed));
    let table = escaped(&table::text(record));
    let (latencies, rates) = (latency_plot(record), rate_plots(record));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:14px system-ui,sans-serif;max-width:820px;margin:2em auto;color:#222}}\
         svg{{width:100%;font-size:11px;fill:#444}} .grid{{stroke:#ddd}} pre{{background:#f6f6f6;padding:1em;\
         overflow-x:auto}}</style></head>\n<body><h1>{title}</h1><p>{how}</p>\n<pre>{table}</pre>\n\
         <h2>Share of requests within a latency</h2>\n{latencies}\n{rates}</body></html>\n"
    )
}

fn latency_plot(record: &Record) -> String {
    let latencies = latencies(record);
    let least = latencies.iter().map(|latency| latency.micros.min()).min().unwrap_or(1);
    let most = latencies.iter().map(|latency| latency.micros.max()).max().unwrap_or(10);
    let x = Axis::log_micros("latency", least as f64, most as f64);
    let y = Axis {
        name: "%".to_owned(),
        from: 0.0,
        to: 1.0,
        is_log: false,
        ticks: [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
            .map(|share| (share, format!("{:.0}", share * 100.0)))
            .to_vec(),
    };
    let lines: Vec<Line> = latencies
        .iter()
        .map(|latency| {
            let (mut seen, all) = (0, latency.micros.len() as f64);
            let points = latency.micros.iter_recorded().map(|value| {
                seen += value.count_since_last_iteration();
                (value.value_iterated_to() as f64, seen as f64 / all)
            });
            Line { name: latency.name.to_owned(), points: points.collect() }
        })
        .collect();
    plot(&x, &y, &lines)
}

fn rate_plots(record: &Record) -> String {
    let slots_per_point = record.slots.len().div_ceil(TIME_POINTS_MAX).max(1);
    let seconds_per_point = SLOT.as_secs_f64() * slots_per_point as f64;
    let points_of = |count: fn(&Slot) -> u64| -> Vec<(f64, f64)> {
        let rate = |slots: &[Slot]| slots.iter().map(count).sum::<u64>() as f64 / seconds_per_point;
        let chunks = record.slots.chunks(slots_per_point).enumerate();
        chunks.map(|(index, slots)| ((index as f64 + 0.5) * seconds_per_point, rate(slots))).collect()
    };
    let most =
        |lines: &[Line]| lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let x = || Axis::linear("seconds", record.slots.len() as f64 * SLOT.as_secs_f64());
    let mut requests =
        vec![Line { name: "answered a second".to_owned(), points: points_of(|slot| slot.requests) }];
    if record.failures_count() > 0 {
        requests.push(Line { name: "failed a second".to_owned(), points: points_of(|slot| slot.failures) });
    }
    let tokens =
        [Line { name: "answer tokens a second".to_owned(), points: points_of(|slot| slot.answer_tokens) }];
    let requests_plot = plot(&x(), &Axis::linear("/s", most(&requests)), &requests);
    let tokens_plot = plot(&x(), &Axis::linear("/s", most(&tokens)), &tokens);
    format!("<h2>Requests over time</h2>\n{requests_plot}<h2>Tokens over time</h2>\n{tokens_plot}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
