//! Faults on demand: an engine's standing plan, a request's own header, and what one request suffers.

use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// Header by which one request asks for its own fault: a comma-separated list of
/// `close-before`, `close-mid:N`, `status:N`, `stall`, `slow:N`, `drip`.
pub(crate) const FAULT_HEADER: &str = "x-sim-fault";

/// Faults of a whole engine. Rates are probabilities from 0 to 1, drawn for every POST.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Status of the error answers.
    pub error_status: u16,
    /// Share of POSTs answered with `error_status`.
    pub error_rate: f64,
    /// Share of POSTs whose connection closes before the head.
    pub close_before_rate: f64,
    /// Share of POSTs whose connection closes in the body.
    pub close_mid_rate: f64,
    /// Events a stream sends before it closes in the body.
    pub close_mid_events: u64,
    /// Share of POSTs that never get an answer.
    pub stall_rate: f64,
    /// Multiplier of every duration; 1 changes nothing.
    pub slow_factor: f64,
    /// Every response leaves in pieces of 1 to 7 bytes.
    pub drip: bool,
    /// Every connection is reset, new ones when accepted and old ones at their next request.
    pub refuse: bool,
    /// Status of `/health` and `/health_generate`; 200 when none.
    pub health_status: Option<u16>,
}

impl Default for FaultPlan {
    fn default() -> Self {
        FaultPlan {
            error_status: 503,
            error_rate: 0.0,
            close_before_rate: 0.0,
            close_mid_rate: 0.0,
            close_mid_events: 1,
            stall_rate: 0.0,
            slow_factor: 1.0,
            drip: false,
            refuse: false,
            health_status: None,
        }
    }
}

/// What one request suffers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestFault {
    pub(crate) status: Option<u16>,
    pub(crate) closes_before_head: bool,
    /// Events after which the connection closes.
    pub(crate) closes_after_events: Option<u64>,
    pub(crate) stalls: bool,
    pub(crate) slow_factor: f64,
    pub(crate) drips: bool,
}

impl RequestFault {
    /// The lot of one request: what its header asks, and, for `draws_rates`, what the plan's rates hit.
    ///
    /// `draw` gives numbers from 0 to 1.
    pub(crate) fn of(
        plan: &FaultPlan,
        headers: &HeaderMap,
        draws_rates: bool,
        mut draw: impl FnMut() -> f64,
    ) -> RequestFault {
        let mut hits = |rate: f64| draws_rates && rate > 0.0 && draw() < rate;
        let mut fault = RequestFault {
            status: hits(plan.error_rate).then_some(plan.error_status),
            closes_before_head: hits(plan.close_before_rate),
            closes_after_events: hits(plan.close_mid_rate).then_some(plan.close_mid_events),
            stalls: hits(plan.stall_rate),
            slow_factor: if plan.slow_factor.is_finite() { plan.slow_factor.max(0.0) } else { 1.0 },
            drips: plan.drip,
        };
        let asked = headers.get(FAULT_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("");
        for word in asked.split(',').map(str::trim) {
            fault.ask(word);
        }
        fault
    }

    fn ask(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        match name {
            "close-before" => self.closes_before_head = true,
            "close-mid" => self.closes_after_events = Some(value.parse().unwrap_or(1)),
            "status" => self.status = value.parse().ok(),
            "stall" => self.stalls = true,
            "slow" => self.slow_factor *= value.parse::<f64>().unwrap_or(2.0).clamp(0.0, 1e6),
            "drip" => self.drips = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(header: &'static str, plan: &FaultPlan, draw: f64) -> RequestFault {
        let mut headers = HeaderMap::new();
        headers.insert(FAULT_HEADER, http::HeaderValue::from_static(header));
        RequestFault::of(plan, &headers, true, || draw)
    }

    #[test]
    fn the_header_asks_for_several_faults() {
        let fault = asked("close-mid:3, slow:5,drip", &FaultPlan::default(), 0.5);
        assert_eq!(fault.closes_after_events, Some(3));
        assert_eq!(fault.slow_factor, 5.0);
        assert!(fault.drips && !fault.stalls && fault.status.is_none());
    }

    #[test]
    fn rates_are_drawn() {
        let plan = FaultPlan { error_rate: 0.1, ..FaultPlan::default() };
        assert_eq!(asked("", &plan, 0.05).status, Some(503));
        assert_eq!(asked("", &plan, 0.15).status, None);
        assert_eq!(asked("status:429", &plan, 0.15).status, Some(429));
    }
}
