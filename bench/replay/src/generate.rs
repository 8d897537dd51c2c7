//! Made traces: loads whose sharing is known, drawn from a seed.

use std::str::FromStr;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::limits::PROMPT_TOKENS_MAX;
use crate::trace::Trace;
use crate::trace::TraceRequest;
use crate::trace::chain;

/// Tokens of a block: fine enough that a short question does not hide in it.
const BLOCK_TOKENS: u32 = 64;
/// Tokens of a question, and of an answer.
const QUESTION_TOKENS: std::ops::Range<u32> = 64..512;
const ANSWER_TOKENS: std::ops::Range<u32> = 32..256;
/// Tokens that open a conversation: a document, or the files a question is about.
const OPENING_TOKENS: std::ops::Range<u32> = 1_024..4_096;
/// Mean pause of a user between an answer and the next question, in seconds.
const THINK_S: f64 = 10.0;
/// Answers are taken to come at this pace when the next question's arrival is drawn, in tokens a second.
const ANSWER_TOKENS_PER_S: f64 = 50.0;
/// Share of the requests that go to the hot group.
const HOT_SHARE: f64 = 0.26;

/// Kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Conversations whose every turn repeats all before it, with pauses between.
    MultiTurn,
    /// Groups of requests that share a long prefix, all equally popular.
    SharedPrefix,
    /// The same, but one group gets 26 % of the requests.
    HotPrefix,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// What is shared.
    pub shape: Shape,
    /// Requests in all.
    pub requests: usize,
    /// Requests that arrive a second, on average.
    pub requests_per_s: f64,
    /// Groups that share a prefix.
    pub groups: u32,
    /// Tokens of a group's prefix.
    pub prefix_tokens: u32,
    /// Turns of a conversation, on average.
    pub turns: u32,
    /// Whether requests name themselves by a key: their conversation, or their group.
    pub has_keys: bool,
    /// Everything drawn follows from it.
    pub seed: u64,
}

/// One stretch of a prompt: the first `tokens` tokens of the text called `name`.
#[derive(Clone, Copy, Debug)]
struct Segment {
    name: u64,
    tokens: u32,
}

/// Makes the trace.
pub fn generate(load: &Load) -> Trace {
    let mut random = SmallRng::seed_from_u64(load.seed);
    match load.shape {
        Shape::MultiTurn => multi_turn(load, &mut random),
        Shape::SharedPrefix => grouped(load, None, &mut random),
        Shape::HotPrefix => grouped(load, Some(HOT_SHARE), &mut random),
    }
}

fn multi_turn(load: &Load, random: &mut SmallRng) -> Trace {
    let turns_mean = load.turns.max(1);
    let mut requests = Vec::with_capacity(load.requests);
    let mut start_s = 0.0;
    let mut texts = 0;
    while requests.len() < load.requests {
        start_s += pause_s(load.requests_per_s / f64::from(turns_mean), random);
        // Uniform around the mean: 1 to twice the mean less 1.
        let turns = random.random_range(1..2 * turns_mean);
        let mut at_s = start_s;
        let mut said =
            vec![Segment { name: text(load.seed, texts), tokens: random.random_range(OPENING_TOKENS) }];
        texts += 1;
        for _ in 0..turns.min((load.requests - requests.len()) as u32) {
            let answer_tokens = random.random_range(ANSWER_TOKENS);
            let question =
                Segment { name: text(load.seed, texts), tokens: random.random_range(QUESTION_TOKENS) };
            let answer = Segment { name: text(load.seed, texts + 1), tokens: answer_tokens };
            texts += 2;
            said.push(question);
            let made = request(at_s, &said, answer_tokens);
            requests.push(TraceRequest { key: load.has_keys.then_some(said[0].name), ..made });
            said.push(answer);
            at_s += f64::from(answer_tokens) / ANSWER_TOKENS_PER_S + pause_s(1.0 / THINK_S, random);
        }
    }
    Trace::new(requests)
}

fn grouped(load: &Load, hot_share: Option<f64>, random: &mut SmallRng) -> Trace {
    let groups = load.groups.max(1);
    let mut at_s = 0.0;
    let requests = (0..load.requests)
        .map(|index| {
            at_s += pause_s(load.requests_per_s, random);
            let group = match hot_share {
                Some(share) if groups == 1 || random.random_bool(share) => 0,
                Some(_) => random.random_range(1..groups),
                None => random.random_range(0..groups),
            };
            let prefix = Segment { name: text(load.seed ^ 1, group.into()), tokens: load.prefix_tokens };
            let question =
                Segment { name: text(load.seed, index as u64), tokens: random.random_range(QUESTION_TOKENS) };
            let made = request(at_s, &[prefix, question], random.random_range(ANSWER_TOKENS));
            TraceRequest { key: load.has_keys.then_some(prefix.name), ..made }
        })
        .collect();
    Trace::new(requests)
}

/// Time to the next of `per_s` events a second: exponential, so that they arrive as a Poisson process.
fn pause_s(per_s: f64, random: &mut SmallRng) -> f64 {
    let share: f64 = random.random();
    -(1.0 - share).ln() / per_s.max(1e-6)
}

/// A name for a text that no other text has.
fn text(seed: u64, index: u64) -> u64 {
    chain(chain(0, seed), index)
}

fn request(at_s: f64, prompt: &[Segment], output_tokens: u32) -> TraceRequest {
    let prompt_tokens: u64 = prompt.iter().map(|segment| u64::from(segment.tokens)).sum();
    let prompt_tokens = prompt_tokens.min(PROMPT_TOKENS_MAX.into()) as u32;
    let ids = block_ids(prompt);
    TraceRequest::from_block_ids((at_s * 1e6) as u64, prompt_tokens, output_tokens, BLOCK_TOKENS, ids)
}

/// Names each block by the stretches it covers: a block that ends within a text differs from one that goes on.
fn block_ids(prompt: &[Segment]) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut id = 0;
    let mut filled = 0;
    for segment in prompt {
        let mut at = 0;
        while at < segment.tokens {
            let taken = (segment.tokens - at).min(BLOCK_TOKENS - filled);
            id = chain(chain(id, segment.name), u64::from(at) << 32 | u64::from(taken));
            at += taken;
            filled += taken;
            if filled == BLOCK_TOKENS {
                ids.push(std::mem::take(&mut id));
                filled = 0;
            }
        }
    }
    if filled > 0 {
        ids.push(id);
    }
    ids
}

// === impl Shape ===

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(word: &str) -> Result<Shape, UnknownShape> {
        match word {
            "multi_turn" => Ok(Shape::MultiTurn),
            "shared_prefix" => Ok(Shape::SharedPrefix),
            "hot_prefix" => Ok(Shape::HotPrefix),
            _ => Err(UnknownShape),
        }
    }
}

/// A word that names no shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownShape;

impl std::fmt::Display for UnknownShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unknown kind of load: use multi_turn, shared_prefix or hot_prefix")
    }
}

impl std::error::Error for UnknownShape {}

// === impl Load ===

impl Load {
    /// Prompt blocks that the trace will have, about.
    pub fn blocks(&self) -> u64 {
        let middle = |range: std::ops::Range<u32>| u64::from(range.start.midpoint(range.end));
        let (question, answer) = (middle(QUESTION_TOKENS), middle(ANSWER_TOKENS));
        let tokens = match self.shape {
            // Turns are uniform around their mean, and long conversations have most of them: two thirds of the mean lie
            // before a turn on average.
            Shape::MultiTurn => {
                middle(OPENING_TOKENS) + question + u64::from(self.turns) * 2 / 3 * (question + answer)
            }
            Shape::SharedPrefix | Shape::HotPrefix => u64::from(self.prefix_tokens) + question,
        };
        self.requests as u64 * tokens.div_ceil(BLOCK_TOKENS.into())
    }
}

impl Default for Load {
    fn default() -> Self {
        Load {
            shape: Shape::MultiTurn,
            requests: 4_000,
            requests_per_s: 16.0,
            // 512 Ki tokens of prefixes: more than one engine of the default size holds, less than two.
            groups: 128,
            prefix_tokens: 4_096,
            turns: 5,
            has_keys: false,
            seed: 1,
        }
    }
}

#[cfg(test)]
mod tests;
