//! Axes of a plot, and where values lie on them.

/// A plot's inner size, in pixels.
pub(super) const WIDTH: f64 = 640.0;
pub(super) const HEIGHT: f64 = 280.0;
/// Room for the labels at the left and at the bottom, and for a title at the top.
pub(super) const LEFT: f64 = 72.0;
pub(super) const BOTTOM: f64 = 44.0;
pub(super) const TOP: f64 = 32.0;

/// How an axis maps its values.
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    /// Values that get a mark, and their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

// === impl Axis ===

impl Axis {
    /// From 0 to 1, marked in per cent.
    pub(super) fn share() -> Axis {
        let ticks = (0..=5).map(|fifth| (f64::from(fifth) / 5.0, format!("{} %", fifth * 20))).collect();
        Axis { from: 0.0, to: 1.0, is_log: false, ticks }
    }

    /// Logarithmic, in microseconds, marked at powers of ten.
    pub(super) fn log_micros(least: f64, most: f64) -> Axis {
        let first = least.max(1.0).log10().floor();
        let last = most.max(10.0).log10().ceil().max(first + 1.0);
        let ticks = (first as i32..=last as i32)
            .map(|power| 10f64.powi(power))
            .map(|micros| (micros, super::duration_text(micros).replace(".00", "")))
            .collect();
        Axis { from: 10f64.powf(first), to: 10f64.powf(last), is_log: true, ticks }
    }

    /// Pixels from the plot's left edge, on a horizontal axis.
    pub(super) fn x(&self, value: f64) -> f64 {
        LEFT + self.share_of(value) * WIDTH
    }

    /// Pixels from the plot's top edge, on a vertical axis.
    pub(super) fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.share_of(value)) * HEIGHT
    }

    fn share_of(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        share.clamp(0.0, 1.0)
    }
}
