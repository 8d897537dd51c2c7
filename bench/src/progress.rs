//! How far a run is, for whoever watches.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;
use crate::load::Load;

/// Counters the generator threads move.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// A progress bar, if standard error is a terminal.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    started_at: Instant,
    requests_max: Option<u64>,
}

// === impl Bar ===

impl Bar {
    pub(crate) fn new(load: &Load, label: &str) -> Bar {
        let length = match (load.requests_max, load.duration) {
            (Some(requests), _) => requests,
            (None, duration) => duration.map_or(0, |duration| duration.as_millis() as u64),
        };
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {elapsed} {msg}");
            let bar = ProgressBar::new(length).with_prefix(label.to_owned());
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Bar { bar, started_at: clock::now(), requests_max: load.requests_max }
    }

    pub(crate) fn show(&self, counters: &Counters) {
        let Some(bar) = &self.bar else { return };
        let answered = counters.answered.load(Ordering::Relaxed);
        let failed = counters.failed.load(Ordering::Relaxed);
        let elapsed: Duration = clock::now() - self.started_at;
        bar.set_position(match self.requests_max {
            Some(_) => answered + failed,
            None => elapsed.as_millis() as u64,
        });
        let rate = answered as f64 / elapsed.as_secs_f64().max(1e-9);
        bar.set_message(format!("{answered} answered, {failed} failed, {rate:.0}/s"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
