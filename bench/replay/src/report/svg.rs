//! The plot: how long requests wait for their first token, and how much of the prompts is cached, policy by policy.

use std::fmt::Write;

use crate::measure::Outcome;
use crate::report::Report;
use crate::report::Row;
use crate::report::axes::Axis;
use crate::report::axes::BOTTOM;
use crate::report::axes::HEIGHT;
use crate::report::axes::LEFT;
use crate::report::axes::TOP;
use crate::report::axes::WIDTH;

/// Colours of the policies, in order; told apart by most readers with a colour vision deficiency.
const COLOURS: [&str; 8] =
    ["#2166ac", "#d6604d", "#4d9221", "#762a83", "#b8860b", "#1b7837", "#c51b7d", "#4d4d4d"];
/// Room for the names at the right of the curves.
const NAMES: f64 = 220.0;
/// Height of a bar, with the space to the next.
const BAR: f64 = 22.0;
/// Points of a curve.
const POINTS: u32 = 200;

/// The plot as a file of its own, without scripts.
pub fn text(report: &Report) -> String {
    let width = LEFT + WIDTH + NAMES;
    let bars_top = TOP + HEIGHT + BOTTOM;
    let height = bars_top + TOP + BAR * (report.rows.len() as f64 + 1.0) + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    // Writing to a string does not fail.
    let _ = write_curves(&mut svg, report);
    let _ = write_bars(&mut svg, report, bars_top);
    svg.push_str("</svg>\n");
    svg
}

/// A curve per policy: the share of the requests whose first token came within a time.
fn write_curves(svg: &mut String, report: &Report) -> std::fmt::Result {
    let ends = |of: fn(&[u64]) -> Option<&u64>| {
        report.rows.iter().filter_map(move |row| of(&row.outcome.ttft_us).copied())
    };
    let least = ends(<[u64]>::first).min().unwrap_or(1) as f64;
    let most = ends(<[u64]>::last).max().unwrap_or(1) as f64;
    let (x, y) = (Axis::log_micros(least, most), Axis::share());
    let title = "Time to the first token: share of the requests that had it within…";
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>", TOP - 12.0)?;
    write_grid(svg, &x, &y)?;
    for (index, Row { name, outcome }) in report.rows.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = (0..=POINTS)
            .map(|step| f64::from(step) / f64::from(POINTS))
            .map(|share| {
                let micros = Outcome::quantile(&outcome.ttft_us, share) as f64;
                format!("{:.1},{:.1}", x.x(micros), y.y(share))
            })
            .collect();
        let points = points.join(" ");
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
        )?;
        let (left, top) = (LEFT + WIDTH + 12.0, TOP + 16.0 * (index as f64 + 1.0));
        writeln!(svg, "<text x=\"{left}\" y=\"{top}\" fill=\"{colour}\">{}</text>", escaped(name))?;
    }
    Ok(())
}

fn write_grid(svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    for (value, label) in &x.ticks {
        let left = x.x(*value);
        writeln!(svg, "<path stroke=\"#ddd\" d=\"M{left:.1} {TOP}V{bottom}\"/>")?;
        writeln!(svg, "<text x=\"{left:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0)?;
    }
    for (value, label) in &y.ticks {
        let top = y.y(*value);
        writeln!(svg, "<path stroke=\"#ddd\" d=\"M{LEFT} {top:.1}H{right}\"/>")?;
        let (left, middle) = (LEFT - 6.0, top + 4.0);
        writeln!(svg, "<text x=\"{left}\" y=\"{middle:.1}\" text-anchor=\"end\">{label}</text>")?;
    }
    Ok(())
}

/// A bar per policy, and a line where one cache without a bound would be.
fn write_bars(svg: &mut String, report: &Report, top: f64) -> std::fmt::Result {
    let x = Axis::share();
    let title = "Prompt tokens found in a cache; dashed: one cache without a bound";
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top + TOP - 12.0)?;
    let top = top + TOP;
    for (index, Row { name, outcome }) in report.rows.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let hit_rate = outcome.hit_rate();
        let (at, width) = (top + BAR * index as f64, x.x(hit_rate) - LEFT);
        writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{at}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
            BAR - 6.0
        )?;
        let (left, middle) = (LEFT + WIDTH + 12.0, at + 12.0);
        writeln!(
            svg,
            "<text x=\"{left}\" y=\"{middle}\" fill=\"{colour}\">{:.1} % {}</text>",
            hit_rate * 100.0,
            escaped(name)
        )?;
    }
    let (bound, bottom) = (x.x(report.reusable_share), top + BAR * report.rows.len() as f64);
    writeln!(
        svg,
        "<path stroke=\"black\" stroke-dasharray=\"4\" d=\"M{bound:.1} {}V{bottom}\"/>",
        top - 4.0
    )?;
    for (value, label) in &x.ticks {
        let left = x.x(*value);
        writeln!(svg, "<text x=\"{left:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0)?;
    }
    Ok(())
}

/// A name as text in a document.
fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
