//! What is asked: conversations of different lengths, and how much they share.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::load::Load;

/// Bytes of the text that all prompts are cut from.
const CORPUS_BYTES: usize = 1 << 20;
/// Bytes of a question in a chat.
const QUESTION_BYTES: usize = 160;
/// Bytes a tool's output adds to an agent's prompt each turn.
const TOOL_OUTPUT_BYTES: usize = 2_048;
/// Turns of an agent's conversation.
const AGENT_TURNS: usize = 4;
/// Turns of a chat that goes on.
const CHAT_TURNS: usize = 6;

/// Kinds of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// One short question each.
    ShortChat,
    /// Groups of conversations that share their system prompt.
    SharedPrefix {
        /// System prompts there are.
        groups: usize,
        /// Bytes of each.
        prefix_bytes: usize,
        /// Turns of each conversation.
        turns: usize,
    },
    /// Conversations whose every turn repeats all before it, the real answers included.
    MultiTurn,
    /// Agents: a system prompt common to all, then a context of this many bytes in total.
    Agent {
        /// Bytes of the first turn's prompt.
        prompt_bytes: usize,
    },
    /// One short question each, answered by a stream.
    Stream,
}

/// The API the questions are put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// `POST /v1/chat/completions`.
    #[default]
    Chat,
    /// `POST /generate`.
    Generate,
}

/// Why a word is no shape or API.
#[derive(Clone, Debug)]
pub struct UnknownWord(String);

/// Makes one connection's conversations.
#[derive(Debug)]
pub(crate) struct Source {
    shape: Shape,
    api: Api,
    corpus: Rc<str>,
    random: StdRng,
    made: u64,
    /// Distinguishes this run's texts from other runs'.
    salt: u64,
    /// Distinguishes this source's texts from other connections'.
    name: u64,
}

/// One conversation: all that was said so far, as it stands in the request's JSON.
#[derive(Debug)]
pub(crate) struct Conversation {
    api: Api,
    said: String,
    turns_left: usize,
    next_turn_bytes: usize,
}

/// The text that prompts are cut from; it needs no escaping in JSON.
pub(crate) fn corpus(seed: u64) -> Rc<str> {
    const WORDS: [&str; 16] = [
        "river", "stone", "engine", "window", "garden", "paper", "signal", "orange", "system", "letter",
        "winter", "market", "copper", "forest", "number", "bridge",
    ];
    let mut random = StdRng::seed_from_u64(seed);
    let mut corpus = String::with_capacity(CORPUS_BYTES + 16);
    while corpus.len() < CORPUS_BYTES {
        corpus.push_str(WORDS[random.random_range(0..WORDS.len())]);
        corpus.push(' ');
    }
    corpus.truncate(CORPUS_BYTES);
    Rc::from(corpus)
}

// === impl Shape ===

impl Shape {
    /// Whether the shape is about streams, whatever else is asked for.
    pub(crate) fn always_streams(self) -> bool {
        matches!(self, Shape::Stream)
    }
}

impl FromStr for Shape {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Shape, UnknownWord> {
        Ok(match word {
            "short-chat" => Shape::ShortChat,
            "shared-prefix" => Shape::SharedPrefix { groups: 8, prefix_bytes: 8_192, turns: 4 },
            "multi-turn" => Shape::MultiTurn,
            "agent-64k" => Shape::Agent { prompt_bytes: 64 * 1024 },
            "agent-512k" => Shape::Agent { prompt_bytes: 512 * 1024 },
            "stream" => Shape::Stream,
            _ => return Err(UnknownWord(word.to_owned())),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::ShortChat => write!(formatter, "short-chat"),
            Shape::SharedPrefix { groups, prefix_bytes, turns } => {
                write!(formatter, "shared-prefix ({groups} groups × {prefix_bytes} bytes × {turns} turns)")
            }
            Shape::MultiTurn => write!(formatter, "multi-turn"),
            Shape::Agent { prompt_bytes } => write!(formatter, "agent-{}k", prompt_bytes / 1024),
            Shape::Stream => write!(formatter, "stream"),
        }
    }
}

impl FromStr for Api {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Api, UnknownWord> {
        match word {
            "chat" => Ok(Api::Chat),
            "generate" => Ok(Api::Generate),
            _ => Err(UnknownWord(word.to_owned())),
        }
    }
}

impl Api {
    /// The path asked.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Generate => "/generate",
        }
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is not known", self.0)
    }
}

// === impl Source ===

impl Source {
    pub(crate) fn new(load: &Load, corpus: Rc<str>, name: u64) -> Source {
        let random = StdRng::seed_from_u64(load.seed ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Source { shape: load.shape, api: load.api, corpus, random, made: 0, salt: load.salt, name }
    }

    /// The next conversation, its first question asked.
    pub(crate) fn conversation(&mut self) -> Conversation {
        self.made += 1;
        let (turns_left, next_turn_bytes) = match self.shape {
            Shape::ShortChat | Shape::Stream => (1, QUESTION_BYTES),
            Shape::SharedPrefix { turns, .. } => (turns.max(1), QUESTION_BYTES),
            Shape::MultiTurn => (CHAT_TURNS, QUESTION_BYTES),
            Shape::Agent { .. } => (AGENT_TURNS, TOOL_OUTPUT_BYTES),
        };
        let mut conversation =
            Conversation { api: self.api, said: String::new(), turns_left, next_turn_bytes };
        let first_bytes = match self.shape {
            Shape::SharedPrefix { groups, prefix_bytes, .. } => {
                let group = self.random.random_range(0..groups.max(1));
                // Each group's text starts elsewhere in the corpus, the same for all connections.
                let start = group * 65_537 % CORPUS_BYTES;
                conversation.say(
                    "system",
                    &format!("{} group {group} ", self.salt),
                    self.cut_at(start, prefix_bytes),
                );
                QUESTION_BYTES
            }
            Shape::Agent { prompt_bytes } => {
                let common = prompt_bytes / 4;
                conversation.say("system", &format!("{} tools ", self.salt), self.cut_at(0, common));
                prompt_bytes - common
            }
            Shape::ShortChat | Shape::MultiTurn | Shape::Stream => QUESTION_BYTES,
        };
        self.ask(&mut conversation, first_bytes);
        conversation
    }

    /// Adds the answer and the next question; false when the conversation is over.
    pub(crate) fn go_on(&mut self, conversation: &mut Conversation, answer: &str) -> bool {
        conversation.turns_left -= 1;
        if conversation.turns_left == 0 {
            return false;
        }
        conversation.answer(answer);
        let bytes = conversation.next_turn_bytes;
        self.ask(conversation, bytes);
        true
    }

    fn ask(&mut self, conversation: &mut Conversation, bytes: usize) {
        let start = self.random.random_range(0..CORPUS_BYTES);
        let unique = format!("{}.{}.{} ", self.salt, self.name, self.made);
        conversation.say("user", &unique, self.cut_at(start, bytes));
    }

    fn cut_at(&self, start: usize, bytes: usize) -> &str {
        let start = start.min(CORPUS_BYTES.saturating_sub(bytes));
        &self.corpus[start..(start + bytes).min(CORPUS_BYTES)]
    }
}

// === impl Conversation ===

impl Conversation {
    /// The request's body.
    pub(crate) fn body(&self, model: &str, answer_tokens_max: u32, streams: bool) -> String {
        let said = &self.said;
        // A string always serialises.
        let model = serde_json::to_string(model).unwrap_or_default();
        match (self.api, streams) {
            (Api::Chat, false) => {
                format!(r#"{{"model":{model},"messages":[{said}],"max_tokens":{answer_tokens_max}}}"#)
            }
            (Api::Chat, true) => format!(
                r#"{{"model":{model},"messages":[{said}],"max_tokens":{answer_tokens_max},"stream":true,"stream_options":{{"include_usage":true}}}}"#
            ),
            (Api::Generate, _) => format!(
                r#"{{"text":"{said}","sampling_params":{{"max_new_tokens":{answer_tokens_max}}},"stream":{streams}}}"#
            ),
        }
    }

    /// Adds what somebody said, in two parts that need no escaping.
    fn say(&mut self, role: &str, head: &str, text: &str) {
        match self.api {
            Api::Chat => {
                let comma = if self.said.is_empty() { "" } else { "," };
                let parts = [comma, r#"{"role":""#, role, r#"","content":""#, head, text, r#""}"#];
                self.said.reserve(parts.iter().map(|part| part.len()).sum());
                self.said.extend(parts);
            }
            Api::Generate => self.said.extend([head, text, "\\n"]),
        }
    }

    fn answer(&mut self, text: &str) {
        // A string always serialises.
        let quoted = serde_json::to_string(text).unwrap_or_default();
        match self.api {
            Api::Chat => self.said.extend([r#",{"role":"assistant","content":"#, &quoted, "}"]),
            Api::Generate => self.said.extend([quoted.trim_matches('"'), "\\n"]),
        }
    }
}

#[cfg(test)]
mod tests;
