//! What load to make.

use std::time::Duration;

use crate::shape::{Api, Shape};

/// One run's load.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is asked.
    pub shape: Shape,
    /// By which API.
    pub api: Api,
    /// Whether answers are streamed.
    pub streams: bool,
    /// Connections, over all cores: the most requests in flight.
    pub connections: usize,
    /// Arrivals a second, Poisson. None: each connection asks as soon as it is answered.
    pub rate_per_s: Option<f64>,
    /// How long requests are started.
    pub duration: Option<Duration>,
    /// How many requests are started.
    pub requests_max: Option<u64>,
    /// CPUs to pin a generator thread to, each.
    pub cores: Vec<usize>,
    /// Most tokens in an answer.
    pub answer_tokens_max: u32,
    /// Model asked for.
    pub model: String,
    /// Seed of texts and arrivals. The same seed asks the same texts, which engines may still have cached.
    pub seed: u64,
    /// Begins every prompt, so that the same load can be made again without hitting what it left cached.
    pub salt: u64,
    /// Longest wait for a whole answer, from when it is sent.
    pub timeout: Duration,
    /// Memory registered with each thread's rings, in KiB.
    pub ring_memory_kib: usize,
    /// Bearer key, if one is needed.
    pub api_key: Option<String>,
}
