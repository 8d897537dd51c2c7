//! Metric families built by hand, from numbers that live elsewhere.

use fleet::cell::Histogram;
use prometheus::proto;
use prometheus::proto::LabelPair;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

/// Labels of one sample.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A family while its samples are added.
pub(crate) struct Family {
    family: MetricFamily,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    /// A counter.
    pub(crate) fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// A gauge.
    pub(crate) fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// A histogram.
    pub(crate) fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { family, kind, metrics: Vec::new() }
    }

    /// Adds a number.
    pub(crate) fn with(mut self, labels: Labels<'_>, value: f64) -> Self {
        self.add(labels, value);
        self
    }

    /// Adds a number.
    pub(crate) fn add(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a histogram of counts per bucket, the last of which is what is above all bounds.
    pub(crate) fn add_counts(&mut self, labels: Labels<'_>, bounds_us: &[u64], counts: &[u64], sum_us: u64) {
        if counts.iter().all(|&count| count == 0) {
            return;
        }
        let mut cumulative = 0;
        let buckets = bounds_us
            .iter()
            .zip(counts)
            .map(|(&bound_us, &count)| {
                cumulative += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound_us as f64 / 1e6);
                bucket.set_cumulative_count(cumulative);
                bucket
            })
            .collect();
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum_us as f64 / 1e6);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Adds the sum of several histograms of the same bounds.
    pub(crate) fn add_histogram<'a>(
        &mut self,
        labels: Labels<'_>,
        parts: impl Iterator<Item = &'a Histogram>,
    ) {
        let mut counts: Vec<u64> = Vec::new();
        let mut bounds_us: &[u64] = &[];
        let mut sum_us = 0;
        for part in parts {
            bounds_us = part.bounds_us();
            counts.resize(bounds_us.len() + 1, 0);
            counts.iter_mut().zip(part.counts()).for_each(|(total, count)| *total += count);
            sum_us += part.sum_us();
        }
        self.add_counts(labels, bounds_us, &counts, sum_us);
    }

    /// The family with all its samples.
    pub(crate) fn build(mut self) -> MetricFamily {
        self.family.set_metric(self.metrics);
        self.family
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect();
    let mut metric = Metric::default();
    metric.set_label(pairs);
    metric
}
