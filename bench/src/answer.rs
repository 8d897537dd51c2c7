//! What an answer says: its text, its token counts, and when each event of it came.

use std::time::Instant;

use serde::Deserialize;

use crate::events::EventParser;

/// Longest answer that is not streamed, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    kind: Kind,
    answer: Answer,
    problem: Option<Problem>,
}

/// All that is kept of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What was said, for the next turn.
    pub(crate) text: String,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) answer_tokens: u64,
    /// When the first event with text came; streams only.
    pub(crate) first_event_at: Option<Instant>,
    /// Nanoseconds between one event with text and the next.
    pub(crate) event_gaps_ns: Vec<u64>,
    pub(crate) last_event_at: Option<Instant>,
}

/// Why an answer is no good although its framing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The stream has no end mark.
    Unfinished,
    /// It is not the JSON it should be, or reports an error.
    Malformed,
}

#[derive(Debug)]
enum Kind {
    Whole { body: Vec<u8> },
    Stream { events: EventParser, is_finished: bool },
}

/// The fields of chat chunks, whole chats and SGLang's answers that matter here.
#[derive(Debug, Deserialize)]
struct Message {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    text: Option<String>,
    meta_info: Option<MetaInfo>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    delta: Option<Said>,
    message: Option<Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<TokensDetails>,
}

#[derive(Debug, Deserialize)]
struct TokensDetails {
    cached_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct MetaInfo {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    cached_tokens: u64,
}

// === impl AnswerReader ===

impl AnswerReader {
    pub(crate) fn new(streams: bool) -> AnswerReader {
        let kind = match streams {
            true => Kind::Stream { events: EventParser::default(), is_finished: false },
            false => Kind::Whole { body: Vec::new() },
        };
        AnswerReader { kind, answer: Answer::default(), problem: None }
    }

    /// Takes a part of the body that came at `now`.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) {
        let (answer, problem) = (&mut self.answer, &mut self.problem);
        match &mut self.kind {
            Kind::Whole { body } if body.len() + bytes.len() > BODY_BYTES_MAX => {
                *problem = Some(Problem::Malformed);
            }
            Kind::Whole { body } => body.extend_from_slice(bytes),
            Kind::Stream { events, is_finished } => {
                let pushed = events.push(bytes, |data| match data {
                    b"[DONE]" => *is_finished = true,
                    data if answer.push_event(data, now).is_err() => *problem = Some(Problem::Malformed),
                    _ => {}
                });
                if pushed.is_err() {
                    *problem = Some(Problem::Malformed);
                }
            }
        }
    }

    /// The body is complete.
    pub(crate) fn finish(mut self) -> Result<Answer, Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        match self.kind {
            Kind::Stream { events, is_finished } => {
                if !is_finished || !events.is_between_events() {
                    return Err(Problem::Unfinished);
                }
            }
            Kind::Whole { body } => self.answer.push_whole(&body)?,
        }
        Ok(self.answer)
    }
}

// === impl Answer ===

impl Answer {
    fn push_event(&mut self, data: &[u8], now: Instant) -> Result<(), Problem> {
        if self.push_message(data)? {
            match self.last_event_at.replace(now) {
                None => self.first_event_at = Some(now),
                Some(last) => {
                    let gap = now.duration_since(last).as_nanos();
                    self.event_gaps_ns.push(u64::try_from(gap).unwrap_or(u64::MAX));
                }
            }
        }
        Ok(())
    }

    fn push_whole(&mut self, body: &[u8]) -> Result<(), Problem> {
        match self.push_message(body)? {
            true => Ok(()),
            false => Err(Problem::Malformed),
        }
    }

    /// Adds what one message says; whether it says any text.
    fn push_message(&mut self, json: &[u8]) -> Result<bool, Problem> {
        let message: Message = serde_json::from_slice(json).map_err(|_| Problem::Malformed)?;
        if let Some(usage) = message.usage {
            self.prompt_tokens = usage.prompt_tokens;
            self.answer_tokens = usage.completion_tokens;
            self.cached_tokens =
                usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
        }
        if let Some(meta_info) = message.meta_info {
            self.prompt_tokens = meta_info.prompt_tokens;
            self.answer_tokens = meta_info.completion_tokens;
            self.cached_tokens = meta_info.cached_tokens;
        }
        if let Some(text) = message.text {
            // Such streams repeat the text in each event.
            let says_more = text.len() > self.text.len();
            self.text = text;
            return Ok(says_more);
        }
        let choices = message.choices.ok_or(Problem::Malformed)?;
        let mut says_text = false;
        for said in choices.into_iter().filter_map(|choice| choice.delta.or(choice.message)) {
            let text = said.content.unwrap_or_default();
            says_text |= !text.is_empty();
            self.text.push_str(&text);
        }
        Ok(says_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(streams: bool, body: &str) -> Result<Answer, Problem> {
        let mut reader = AnswerReader::new(streams);
        reader.push(body.as_bytes(), crate::clock::now());
        reader.finish()
    }

    #[test]
    fn a_chat_stream_is_put_together() {
        let stream = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"a \"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\
            \"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";
        let answer = read(true, stream).expect("a whole stream");
        assert_eq!(answer.text, "a b");
        assert_eq!((answer.prompt_tokens, answer.cached_tokens, answer.answer_tokens), (9, 4, 2));
        assert_eq!(answer.event_gaps_ns.len(), 1, "events without text are not timed");
        let cut = stream.replace("data: [DONE]\n\n", "");
        assert_eq!(read(true, &cut).map(|_| ()), Err(Problem::Unfinished));
    }

    #[test]
    fn cumulative_text_is_not_doubled() {
        let stream = "data: {\"text\":\"a\",\"meta_info\":{\"completion_tokens\":1}}\n\n\
            data: {\"text\":\"a b\",\"meta_info\":{\"completion_tokens\":2,\"cached_tokens\":3}}\n\n\
            data: [DONE]\n\n";
        let answer = read(true, stream).expect("a whole stream");
        assert_eq!((answer.text.as_str(), answer.answer_tokens, answer.cached_tokens), ("a b", 2, 3));
    }

    #[test]
    fn errors_are_no_answers() {
        assert_eq!(read(false, r#"{"error":{"message":"no"}}"#).map(|_| ()), Err(Problem::Malformed));
        assert_eq!(
            read(true, "data: {\"error\":{}}\n\ndata: [DONE]\n\n").map(|_| ()),
            Err(Problem::Malformed)
        );
        let whole =
            r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        assert_eq!(read(false, whole).expect("an answer").text, "hi");
    }
}
