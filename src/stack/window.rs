//! What was counted of engines within a window of time: differences between what was counted now and then.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use fleet::tally::Counts;

/// What an engine's requests were like in the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RequestStats {
    /// Requests a second.
    pub(super) qps: f64,
    /// Mean time to the first byte, in seconds; none without one.
    pub(super) ttft_s: Option<f64>,
    /// Mean time to the last byte, in seconds; none without one.
    pub(super) latency_s: Option<f64>,
    /// Requests that wait for their answer to begin.
    pub(super) in_prefill: u64,
    /// Requests whose answer comes.
    pub(super) in_decoding: u64,
    /// Requests that were answered to the end, ever.
    pub(super) finished: u64,
    /// Time since the first request.
    pub(super) uptime: Duration,
}

/// What was counted of each engine, over a window.
#[derive(Debug)]
pub(super) struct Windows {
    window: Duration,
    engines: HashMap<Box<str>, Engine>,
}

#[derive(Debug, Default)]
struct Engine {
    /// Oldest first; the oldest is the last that is not within the window.
    samples: VecDeque<(Duration, Counts)>,
    /// When its first request was seen.
    first: Option<Duration>,
}

impl Windows {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, engines: HashMap::new() }
    }

    /// Takes in what was counted up to now. Engines that are not named are forgotten.
    pub(super) fn sample<'a>(&mut self, now: Duration, counts: impl Iterator<Item = (&'a str, Counts)>) {
        let begin = now.saturating_sub(self.window);
        let mut before = std::mem::take(&mut self.engines);
        for (id, counts) in counts {
            let mut engine = before.remove(id).unwrap_or_default();
            engine.samples.push_back((now, counts));
            while engine.samples.get(1).is_some_and(|(at, _)| *at <= begin) {
                engine.samples.pop_front();
            }
            if counts.begun > 0 {
                engine.first.get_or_insert(now);
            }
            self.engines.insert(id.into(), engine);
        }
    }

    /// What the window shows of an engine of which so much was counted by now; none before its first request.
    pub(super) fn stats(&self, id: &str, now: Duration, counts: &Counts) -> Option<RequestStats> {
        if counts.begun == 0 {
            return None;
        }
        let engine = self.engines.get(id);
        let begin = now.saturating_sub(self.window);
        let is_old = |(at, _): &&(Duration, Counts)| *at <= begin;
        let samples = || engine.into_iter().flat_map(|engine| &engine.samples);
        // An engine whose first request is within the window had none before.
        let then = samples().take_while(is_old).last().map(|(_, counts)| *counts).unwrap_or_default();
        let mean = |sum: u64, count: u64| (count > 0).then(|| sum as f64 / count as f64 / 1e6);
        let first = engine.and_then(|engine| engine.first).unwrap_or(now);
        Some(RequestStats {
            qps: counts.begun.saturating_sub(then.begun) as f64 / self.window.as_secs_f64(),
            ttft_s: mean(
                counts.first_us.saturating_sub(then.first_us),
                counts.first.saturating_sub(then.first),
            ),
            latency_s: mean(
                counts.finished_us.saturating_sub(then.finished_us),
                counts.finished.saturating_sub(then.finished),
            ),
            in_prefill: counts.in_prefill(),
            in_decoding: counts.in_decoding(),
            finished: counts.finished,
            uptime: now.saturating_sub(first),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(begun: u64) -> Counts {
        Counts { begun, first: begun, first_us: begun * 2_000_000, ended: begun, ..Counts::default() }
    }

    #[test]
    fn the_window_forgets_what_is_older() {
        let second = Duration::from_secs;
        let mut windows = Windows::new(second(10));
        assert_eq!(windows.stats("e", second(0), &counts(0)), None);
        for at in 0..=30 {
            windows.sample(second(at), [("e", counts(at.min(20)))].into_iter());
            if at == 20 {
                let stats = windows.stats("e", second(20), &counts(20)).expect("it had requests");
                assert_eq!((stats.qps, stats.ttft_s, stats.uptime), (1.0, Some(2.0), second(19)));
            }
        }
        let stats = windows.stats("e", second(30), &counts(20)).expect("it had requests");
        assert_eq!((stats.qps, stats.ttft_s, stats.latency_s), (0.0, None, None));
        assert!(windows.engines["e"].samples.len() <= 12, "samples are bounded by the window");
        windows.sample(second(31), std::iter::empty());
        assert!(windows.engines.is_empty());
    }
}
