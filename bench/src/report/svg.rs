//! Line plots as SVG, without scripts.

use std::fmt::Write;

/// A plot's inner size, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Room for the labels at the left and at the bottom, and a margin elsewhere.
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 40.0;
const MARGIN: f64 = 16.0;
/// Colours of the lines, in order.
const COLOURS: [&str; 3] = ["#2166ac", "#d6604d", "#4d9221"];

/// One line of a plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How an axis maps its values.
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) is_log: bool,
    /// Values that get a mark, and their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

/// A plot as an `<svg>` element.
pub(super) fn plot(x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let (width, height) = (LEFT + WIDTH + MARGIN, MARGIN + HEIGHT + BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">\n");
    // Writing to a string does not fail.
    let _ = write_axes(&mut svg, x, y);
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", left_of(x, *at), top_of(y, *value)))
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
        );
        let top = MARGIN + 16.0 * (index as f64 + 1.0);
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{top}\" fill=\"{colour}\">{}</text>", LEFT + 10.0, line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn write_axes(svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
    let (right, bottom) = (LEFT + WIDTH, MARGIN + HEIGHT);
    for (value, label) in &x.ticks {
        let left = left_of(x, *value);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{MARGIN}\" x2=\"{left:.1}\" y2=\"{bottom}\"/>"
        )?;
        writeln!(svg, "<text x=\"{left:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0)?;
    }
    for (value, label) in &y.ticks {
        let top = top_of(y, *value);
        writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{top:.1}\" x2=\"{right}\" y2=\"{top:.1}\"/>")?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            top + 4.0
        )?;
    }
    let middle = LEFT + WIDTH / 2.0;
    writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 34.0, x.name)?;
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" text-anchor=\"end\">{}</text>", MARGIN - 4.0, y.name)
}

fn left_of(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.share_of(value) * WIDTH
}

fn top_of(axis: &Axis, value: f64) -> f64 {
    MARGIN + (1.0 - axis.share_of(value)) * HEIGHT
}

// === impl Axis ===

impl Axis {
    /// A linear axis from 0 with about five round marks.
    pub(super) fn linear(name: &str, most: f64) -> Axis {
        let most = most.max(1e-9);
        let rough = most / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let count = (most / step).ceil() as usize;
        let label = |value: f64| if step < 1.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        let ticks = (0..=count).map(|index| (index as f64 * step, label(index as f64 * step))).collect();
        Axis { name: name.to_owned(), from: 0.0, to: step * count as f64, is_log: false, ticks }
    }

    /// A logarithmic axis of microseconds with a mark at each power of ten.
    pub(super) fn log_micros(name: &str, least: f64, most: f64) -> Axis {
        let first = least.max(1.0).log10().floor();
        let last = most.max(10.0).log10().ceil().max(first + 1.0);
        let ticks = (first as i32..=last as i32)
            .map(|power| 10f64.powi(power))
            .map(|micros| (micros, super::duration_text(micros).replace(".00", "")))
            .collect();
        Axis { name: name.to_owned(), from: 10f64.powf(first), to: 10f64.powf(last), is_log: true, ticks }
    }

    fn share_of(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value.max(self.from) / self.from).log10() / (self.to / self.from).log10(),
            false => (value - self.from) / (self.to - self.from),
        };
        share.clamp(0.0, 1.0)
    }
}
