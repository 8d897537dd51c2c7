//! What a replay measures: hits, waiting, and how evenly the engines were used.

use crate::engine::EngineStats;
use crate::engine::RequestIndex;
use crate::router::WorkerIndex;

/// Measures of a replay under way.
#[derive(Debug)]
pub(crate) struct Measures {
    arrived_us: Vec<u64>,
    ttft_us: Vec<u64>,
    latency_us: Vec<u64>,
    in_flight: Vec<u32>,
    total_in_flight: u64,
    in_flight_peak: u32,
    /// Integrals over time of the largest number in flight and of the sum, in request-microseconds.
    max_area: u128,
    total_area: u128,
    changed_us: u64,
}

/// The result of a replay under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests that finished.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of those, found in a cache.
    pub cached_tokens: u64,
    /// Time from arrival to the first token, ascending.
    pub ttft_us: Vec<u64>,
    /// Time from arrival to the end of the answer, ascending.
    pub latency_us: Vec<u64>,
    /// From the first arrival to the end of the last answer.
    pub makespan_us: u64,
    /// Average over time of the most in flight on one engine, over the average on all.
    pub in_flight_imbalance: f64,
    /// Most requests in flight on one engine at any time.
    pub in_flight_peak: u32,
    /// What each engine did.
    pub engines: Vec<EngineStats>,
}

// === impl Measures ===

impl Measures {
    pub(crate) fn new(workers: usize, requests: usize) -> Measures {
        Measures {
            arrived_us: vec![0; requests],
            ttft_us: Vec::with_capacity(requests),
            latency_us: Vec::with_capacity(requests),
            in_flight: vec![0; workers],
            total_in_flight: 0,
            in_flight_peak: 0,
            max_area: 0,
            total_area: 0,
            changed_us: 0,
        }
    }

    pub(crate) fn arrived(&mut self, request: RequestIndex, worker: WorkerIndex, now_us: u64) {
        self.pass_time(now_us);
        self.arrived_us[request] = now_us;
        self.in_flight[worker] += 1;
        self.total_in_flight += 1;
        self.in_flight_peak = self.in_flight_peak.max(self.in_flight[worker]);
    }

    pub(crate) fn first_token(&mut self, request: RequestIndex, now_us: u64) {
        self.ttft_us.push(now_us - self.arrived_us[request]);
    }

    pub(crate) fn finished(&mut self, request: RequestIndex, worker: WorkerIndex, now_us: u64) {
        self.pass_time(now_us);
        self.latency_us.push(now_us - self.arrived_us[request]);
        self.in_flight[worker] -= 1;
        self.total_in_flight -= 1;
    }

    pub(crate) fn outcome(mut self, engines: impl Iterator<Item = EngineStats>) -> Outcome {
        assert_eq!(self.total_in_flight, 0, "whatever arrived has finished");
        self.ttft_us.sort_unstable();
        self.latency_us.sort_unstable();
        let engines: Vec<EngineStats> = engines.collect();
        let average_area = self.total_area as f64 / engines.len().max(1) as f64;
        Outcome {
            requests: self.latency_us.len() as u64,
            prompt_tokens: engines.iter().map(|engine| engine.prompt_tokens).sum(),
            cached_tokens: engines.iter().map(|engine| engine.cached_tokens).sum(),
            ttft_us: self.ttft_us,
            latency_us: self.latency_us,
            makespan_us: self.changed_us,
            in_flight_imbalance: ratio(self.max_area as f64, average_area),
            in_flight_peak: self.in_flight_peak,
            engines,
        }
    }

    fn pass_time(&mut self, now_us: u64) {
        let passed = u128::from(now_us - self.changed_us);
        if passed > 0 {
            let most = self.in_flight.iter().max().copied().unwrap_or(0);
            self.max_area += passed * u128::from(most);
            self.total_area += passed * u128::from(self.total_in_flight);
            self.changed_us = now_us;
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Share of the prompt tokens that a cache held.
    pub fn hit_rate(&self) -> f64 {
        share(self.cached_tokens, self.prompt_tokens)
    }

    /// Requests finished a second.
    pub fn requests_per_s(&self) -> f64 {
        share(self.requests * 1_000_000, self.makespan_us)
    }

    /// The value that `quantile` of `ascending` do not exceed; 0 of nothing.
    pub fn quantile(ascending: &[u64], quantile: f64) -> u64 {
        let at = (quantile.clamp(0.0, 1.0) * ascending.len() as f64).ceil() as usize;
        ascending.get(at.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The mean of values.
    pub fn mean(values: &[u64]) -> f64 {
        let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
        if values.is_empty() { 0.0 } else { sum as f64 / values.len() as f64 }
    }

    /// Requests of the busiest engine, over the average.
    pub fn request_imbalance(&self) -> f64 {
        self.imbalance(|engine| engine.requests)
    }

    /// Computed prompt tokens of the busiest engine, over the average.
    pub fn computed_imbalance(&self) -> f64 {
        self.imbalance(|engine| engine.prompt_tokens - engine.cached_tokens)
    }

    fn imbalance(&self, of: impl Fn(&EngineStats) -> u64) -> f64 {
        let total: u64 = self.engines.iter().map(&of).sum();
        let most = self.engines.iter().map(&of).max().unwrap_or(0);
        ratio(most as f64 * self.engines.len() as f64, total as f64)
    }
}

/// A part over its whole; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The most over the average; 1 when there is nothing.
fn ratio(most: f64, average: f64) -> f64 {
    if average > 0.0 { most / average } else { 1.0 }
}
