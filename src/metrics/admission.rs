//! Families of admission: who was admitted, who waits, and for how long.

use fleet::admission::AdmissionStats;
use fleet::admission::Outcome;
use fleet::cell::Counter;
use prometheus::proto::MetricFamily;

use crate::metrics::Sources;
use crate::metrics::family::Family;

/// What is told of the gate; nothing when there is none.
pub(crate) fn families(sources: &Sources) -> Vec<MetricFamily> {
    let Some(gate) = &sources.gate else { return Vec::new() };
    let rules = gate.rules();
    let mut limited = Family::counter("smg_http_rate_limit_total", "Requests by whether they were admitted.");
    let mut admit =
        Family::counter("smg_scheduler_admit_total", "Requests by class and what became of them.");
    let mut depth = Family::gauge("smg_scheduler_queue_depth", "Requests that wait, by class.");
    let mut size = Family::gauge("smg_scheduler_queue_size_limit", "Requests that may wait, by class.");
    let mut in_flight = Family::gauge("smg_scheduler_inflight", "Admitted requests in flight, by class.");
    let mut waits =
        Family::histogram("smg_scheduler_queue_wait_seconds", "Waits of admitted requests, by class.");
    let mut promotions = Family::counter(
        "smg_scheduler_starvation_promotion_total",
        "Requests that went before a higher class, by class.",
    );
    let mut preempted = Family::counter(
        "smg_scheduler_preempt_total",
        "Requests broken off for one of a higher class, by their own class.",
    );
    let (mut allowed, mut rejected, mut taken) = (0, 0, 0);
    for class in rules.class_ids() {
        let at = usize::from(class.0);
        let labels = [("class", rules.class(class).name)];
        for outcome in Outcome::ALL {
            let count = sum(sources, |stats| &stats.outcomes_total[at][outcome as usize]);
            match outcome {
                Outcome::Admitted => allowed += count,
                Outcome::ClientLeft => {}
                Outcome::QueueFull | Outcome::QueueTimeout | Outcome::ShuttingDown => rejected += count,
            }
            admit.add(&[labels[0], ("outcome", outcome.name())], count as f64);
        }
        taken += gate.in_flight(class);
        depth.add(&labels, f64::from(gate.depth(class)));
        size.add(&labels, f64::from(rules.class(class).queue_max));
        in_flight.add(&labels, gate.in_flight(class) as f64);
        waits.add_histogram(&labels, sources.shards.iter().map(|shard| &shard.admission.queue_wait[at]));
        preempted.add(&labels, sum(sources, |stats| &stats.preempted_total[at]) as f64);
        promotions.add(&labels, sum(sources, |stats| &stats.promotions_total[at]) as f64);
    }
    limited.add(&[("result", "allowed")], allowed as f64);
    limited.add(&[("result", "rejected")], rejected as f64);
    let utilization = Family::gauge("smg_scheduler_utilization", "Share of all places that is taken.")
        .with(&[], taken as f64 / f64::from(rules.in_flight_max));
    let mut families = vec![limited, admit, depth, size, in_flight, utilization, waits];
    if rules.classes.len() > 1 {
        families.extend([
            promotions,
            preempted,
            Family::counter(
                "smg_scheduler_clamp_total",
                "Requests that asked for a class they may not have.",
            )
            .with(&[], sum(sources, |stats| &stats.clamped_total) as f64),
            Family::counter(
                "smg_scheduler_unknown_priority_value_total",
                "Requests that asked for a class there is not.",
            )
            .with(&[], sum(sources, |stats| &stats.unknown_priority_total) as f64),
        ]);
    }
    families.into_iter().map(Family::build).collect()
}

fn sum(sources: &Sources, of: impl Fn(&AdmissionStats) -> &Counter) -> u64 {
    sources.shards.iter().map(|shard| of(&shard.admission).get()).sum()
}
