//! The Prometheus page, read.

use std::net::SocketAddr;

use crate::client::Client;
use crate::client::Request;

/// Samples of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
    /// The page as it came.
    pub text: String,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// Asks for the page.
    #[track_caller]
    pub fn scrape(addr: SocketAddr) -> Metrics {
        let response = Client::connect(addr).ask(&Request::get("/metrics").header("connection", "close"));
        assert_eq!(response.status, 200, "{response:?}");
        let text = response.text();
        Metrics { samples: text.lines().filter_map(sample).collect(), text }
    }

    /// The sum of a metric's samples whose labels have all of `labels`, such as `worker="http://a"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = self.samples.iter().filter(|sample| sample.name == name);
        let with_labels = of_name.filter(|sample| labels.iter().all(|label| sample.labels.contains(label)));
        with_labels.map(|sample| sample.value).sum()
    }

    /// Whether there is any sample of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value: value.parse().ok()? })
}
