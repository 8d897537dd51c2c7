//! Load and start marks from an engine's metrics page, in Prometheus' text format, as its bytes come.
//!
//! The page is a peer's: whatever it holds, what is kept is one line of it. Lines that are not known are skipped.
//! However the bytes are cut, the result is the same.

use crate::incarnation::COUNTERS;
use crate::incarnation::Marks;
use crate::load::EngineLoad;
use crate::load::share;

/// Longest line that is looked at; a longer one is skipped. vLLM's `cache_config_info` is the longest known, at 1 KiB.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Labels of one line that are looked at.
const LABELS_MAX: usize = 64;

/// What a known gauge tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gauge {
    Running,
    Waiting,
    Tokens,
    KvUsed,
    /// How much fits into the KV cache, in labels.
    KvSize,
    PrefixHits,
    PrefixQueries,
    PrefixRate,
}

const GAUGES: [(&str, Gauge); 17] = [
    ("vllm:num_requests_running", Gauge::Running),
    ("vllm:num_requests_waiting", Gauge::Waiting),
    ("vllm:kv_cache_usage_perc", Gauge::KvUsed),
    // Its name before 0.11; versions that show both show the same number twice, which leaves the mean as it is.
    ("vllm:gpu_cache_usage_perc", Gauge::KvUsed),
    ("vllm:cache_config_info", Gauge::KvSize),
    ("vllm:prefix_cache_hits_total", Gauge::PrefixHits),
    ("vllm:gpu_prefix_cache_hits_total", Gauge::PrefixHits),
    ("vllm:gpu_prefix_cache_queries_total", Gauge::PrefixQueries),
    ("vllm:gpu_prefix_cache_hit_rate", Gauge::PrefixRate),
    ("sglang:num_running_reqs", Gauge::Running),
    ("sglang:num_queue_reqs", Gauge::Waiting),
    ("sglang:num_used_tokens", Gauge::Tokens),
    ("sglang:token_usage", Gauge::KvUsed),
    ("llamacpp:requests_processing", Gauge::Running),
    ("llamacpp:requests_deferred", Gauge::Waiting),
    ("llamacpp:kv_cache_tokens", Gauge::Tokens),
    ("llamacpp:kv_cache_usage_ratio", Gauge::KvUsed),
];

const PREFIX_QUERIES: &str = "vllm:prefix_cache_queries_total";
const START_TIME: &str = "process_start_time_seconds";

/// What a page told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Page {
    /// What the engine is busy with.
    pub load: EngineLoad,
    /// By what its process is recognised.
    pub marks: Marks,
    /// How well its prefix cache does, if it says so.
    pub prefix: Option<PrefixCache>,
}

/// What vLLM says of its prefix cache since its start. Where it says a share only, hits are that share of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PrefixCache {
    /// Tokens that were there.
    pub hits: f64,
    /// Tokens that were looked for.
    pub queries: f64,
}

/// Reads a page piece by piece.
#[derive(Debug, Default)]
pub struct PageReader {
    /// The line that has begun, up to [`LINE_BYTES_MAX`].
    line: Vec<u8>,
    /// Whether the rest of the line that has begun is skipped, because it is too long.
    is_skipping: bool,
    running: Option<f64>,
    waiting: Option<f64>,
    tokens: Option<f64>,
    kv_used_sum: f64,
    kv_used_count: usize,
    kv_size_tokens: f64,
    prefix_hits: Option<f64>,
    prefix_queries: Option<f64>,
    prefix_rate: Option<f64>,
    marks: Marks,
}

/// Reads a whole page.
pub fn read(page: &[u8]) -> Page {
    let mut reader = PageReader::default();
    reader.push(page);
    reader.finish()
}

// === impl PageReader ===

impl PageReader {
    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.line.is_empty() && !self.is_skipping && line.len() <= LINE_BYTES_MAX {
                // Most lines come whole and need not be kept.
                self.take(line);
            } else {
                self.extend(line);
                self.end_line();
            }
            bytes = rest;
        }
        self.extend(bytes);
    }

    /// What the page told, now that it has ended.
    pub fn finish(mut self) -> Page {
        self.end_line();
        let count = |number: Option<f64>| number.map(|number| number as u32);
        let kv_used = share(self.kv_used_sum, self.kv_used_count);
        // vLLM counts blocks, not tokens: the share of a known size says as much.
        let kv_tokens = kv_used
            .filter(|_| self.kv_size_tokens > 0.0)
            .map(|kv_used| f64::from(kv_used) * self.kv_size_tokens);
        let load = EngineLoad {
            running: count(self.running),
            waiting: count(self.waiting),
            tokens: self.tokens.or(kv_tokens).map(|tokens| tokens as u64),
            kv_used,
        };
        // Newer versions have the queries among the counters by which a process is known.
        let counted =
            COUNTERS.iter().position(|name| *name == PREFIX_QUERIES).and_then(|at| self.marks.counters[at]);
        let queries = self.prefix_queries.or(counted);
        let prefix = match (self.prefix_hits, queries, self.prefix_rate) {
            (Some(hits), Some(queries), _) => Some(PrefixCache { hits, queries }),
            (_, _, Some(rate)) => Some(PrefixCache { hits: rate, queries: 1.0 }),
            _ => None,
        };
        Page { load, prefix, marks: Marks { has_page: true, ..self.marks } }
    }

    fn extend(&mut self, piece: &[u8]) {
        if self.is_skipping || self.line.len() + piece.len() > LINE_BYTES_MAX {
            self.is_skipping = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(piece);
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.is_skipping) {
            self.take(&line);
        }
        line.clear();
        self.line = line;
    }

    fn take(&mut self, line: &[u8]) {
        let Some(sample) = Sample::parse(line) else { return };
        match sample.family {
            Family::Gauge(gauge) if !sample.is_partial() => self.take_gauge(gauge, &sample),
            Family::Gauge(_) => {}
            Family::Counter(at) => add(&mut self.marks.counters[at], sample.value),
            Family::Start => self.marks.started_s = Some(sample.value),
        }
    }

    fn take_gauge(&mut self, gauge: Gauge, sample: &Sample<'_>) {
        match gauge {
            Gauge::Running => add(&mut self.running, sample.value),
            Gauge::Waiting => add(&mut self.waiting, sample.value),
            Gauge::Tokens => add(&mut self.tokens, sample.value),
            Gauge::PrefixHits => add(&mut self.prefix_hits, sample.value),
            Gauge::PrefixQueries => add(&mut self.prefix_queries, sample.value),
            Gauge::PrefixRate => self.prefix_rate = Some(sample.value),
            Gauge::KvUsed => {
                self.kv_used_sum += sample.value;
                self.kv_used_count += 1;
            }
            Gauge::KvSize => {
                let number = |name| sample.label(name)?.parse::<u32>().ok();
                if let (Some(blocks), Some(tokens)) = (number("num_gpu_blocks"), number("block_size")) {
                    self.kv_size_tokens += f64::from(blocks) * f64::from(tokens);
                }
            }
        }
    }
}

fn add(sum: &mut Option<f64>, value: f64) {
    *sum = Some(sum.unwrap_or(0.0) + value);
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Gauge(Gauge),
    /// The counter at this place of [`COUNTERS`].
    Counter(usize),
    Start,
}

/// One line: a name, labels in braces, a value.
struct Sample<'a> {
    family: Family,
    /// Between the braces.
    labels: &'a str,
    /// Finite and not negative.
    value: f64,
}

// === impl Family ===

impl Family {
    fn of(name: &[u8]) -> Option<Self> {
        // Most names are of other exporters and of histograms nobody asked for.
        if !matches!(name, [b'v' | b's' | b'l' | b'p', ..]) || name.ends_with(b"_bucket") {
            return None;
        }
        let gauge = GAUGES.iter().find(|(known, _)| known.as_bytes() == name);
        gauge.map(|(_, gauge)| Self::Gauge(*gauge)).or_else(|| {
            let counter = COUNTERS.iter().position(|known| known.as_bytes() == name);
            counter.map(Self::Counter).or((name == START_TIME.as_bytes()).then_some(Self::Start))
        })
    }
}

// === impl Sample ===

impl<'a> Sample<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let (name, rest) = line.split_at(memchr::memchr3(b'{', b' ', b'\t', line)?);
        let family = Family::of(name)?;
        let rest = std::str::from_utf8(rest).ok()?;
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => split_labels(rest)?,
            None => ("", rest),
        };
        // A timestamp may follow.
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        (f64::is_finite(value) && value >= 0.0).then_some(Self { family, labels, value })
    }

    /// Whether the sample is a part of what another sample says whole: by priority beside the sum of all, or by a
    /// rank that computes the same requests as rank 0.
    fn is_partial(&self) -> bool {
        let is_other = |name| self.label(name).is_some_and(|value| !matches!(value, "" | "0"));
        is_other("tp_rank")
            || is_other("pp_rank")
            || self.label("priority").is_some_and(|value| !value.is_empty())
    }

    /// The value of a label, escapes as they stand.
    fn label(&self, wanted: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        for _ in 0..LABELS_MAX {
            let (name, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            if name.trim_matches([',', ' ']) == wanted {
                return Some(&after[..end]);
            }
            rest = &after[end + 1..];
        }
        None
    }
}

/// Splits what follows an opening brace behind the closing one, which may also stand inside a value.
fn split_labels(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(['"', '}'])?;
        if text.as_bytes()[at] == b'}' {
            return Some((&text[..at], &text[at + 1..]));
        }
        from = at + 1 + closing_quote(&text[at + 1..])? + 1;
    }
}

/// Where the quote ends that was opened in front of `text`.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests;
