//! Log probabilities of a prompt in the answer of a pair: what the prefill worker says of them goes before what the decode
//! worker says, in `meta_info.input_token_logprobs`, as in SGLang's gateway. Every other byte stays as it came.

use wire::json::JsonError;
use wire::json::Kind;
use wire::json::Scanner;
use wire::json::Span;

use crate::limits;

/// Where answers of SGLang's native API have them.
const OBJECT: &str = "meta_info";
const LIST: &str = "input_token_logprobs";

/// What a prefill worker said.
#[derive(Debug, Default)]
pub(crate) struct PromptLogprobs {
    /// By the number of the prompt, what stands between the brackets of its list.
    lists: Vec<Vec<u8>>,
}

/// A list within an answer.
struct Found {
    /// The number of the prompt that it is about.
    prompt: usize,
    /// The list with its brackets.
    list: Span,
}

impl PromptLogprobs {
    /// Reads a prefill worker's answer: an object, a list of them, or events of them.
    pub(crate) fn read(answer: &[u8]) -> Self {
        let mut all = Self::default();
        match find(answer) {
            Ok(found) => all.take(answer, &found),
            Err(_) => {
                for data in answer.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"))
                {
                    all.take(data, &find(data).unwrap_or_default());
                }
            }
        }
        all
    }

    fn take(&mut self, answer: &[u8], found: &[Found]) {
        for Found { prompt, list } in found {
            if self.lists.len() <= *prompt {
                self.lists.resize(prompt + 1, Vec::new());
            }
            // Later events repeat the first.
            if self.lists[*prompt].is_empty() {
                self.lists[*prompt] = inside(answer, *list).to_vec();
            }
        }
    }

    /// A decode worker's answer with the lists in it.
    pub(crate) fn merge(&self, answer: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(answer.len() + self.lists.iter().map(Vec::len).sum::<usize>());
        let mut copied = 0;
        for Found { prompt, list } in find(answer).unwrap_or_default() {
            let Some(ours) = self.lists.get(prompt).filter(|ours| !ours.is_empty()) else { continue };
            let begin = list.start + 1;
            out.extend_from_slice(&answer[copied..begin]);
            out.extend_from_slice(ours);
            if !inside(answer, list).is_empty() {
                out.push(b',');
            }
            copied = begin;
        }
        out.extend_from_slice(&answer[copied..]);
        out
    }

    /// A decode worker's events with the lists in them.
    pub(crate) fn merge_events(&self, events: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(events.len());
        for line in events.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_prefix(b"data:") {
                Some(data) => {
                    out.extend_from_slice(b"data:");
                    out.extend_from_slice(&self.merge(data));
                }
                None => out.extend_from_slice(line),
            }
        }
        out
    }
}

fn inside(answer: &[u8], list: Span) -> &[u8] {
    answer[list.start + 1..list.end - 1].trim_ascii()
}

/// The lists of an answer, in the order in which they stand there.
fn find(answer: &[u8]) -> Result<Vec<Found>, JsonError> {
    let mut scanner = Scanner::new(answer);
    let mut found = Vec::new();
    match scanner.peek()? {
        Kind::Object => found.extend(item(&mut scanner, answer, 0)?),
        Kind::Array => {
            scanner.begin_array()?;
            let mut prompt = 0;
            while scanner.next_element()? {
                if scanner.peek()? == Kind::Object {
                    found.extend(item(&mut scanner, answer, prompt)?);
                } else {
                    scanner.skip()?;
                }
                prompt += 1;
            }
        }
        Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => {}
    }
    Ok(found)
}

/// The list of one prompt's answer. A stream's events say which of several prompts they are about.
fn item(scanner: &mut Scanner<'_>, answer: &[u8], prompt: usize) -> Result<Option<Found>, JsonError> {
    let mut found = Found { prompt, list: Span { start: 0, end: 0 } };
    scanner.begin_object()?;
    while let Some(key) = scanner.next_key()? {
        let kind = scanner.peek()?;
        if key.eq("index") && kind == Kind::Number {
            let index = scanner.skip()?.of(answer);
            let index = std::str::from_utf8(index).ok().and_then(|index| index.parse().ok());
            found.prompt =
                index.filter(|&index| index < limits::BOOTSTRAP_ROOMS_MAX as usize).unwrap_or(prompt);
        } else if key.eq(OBJECT) && kind == Kind::Object {
            scanner.begin_object()?;
            while let Some(key) = scanner.next_key()? {
                let is_list = key.eq(LIST) && scanner.peek()? == Kind::Array;
                let value = scanner.skip()?;
                if is_list {
                    found.list = value;
                }
            }
        } else {
            scanner.skip()?;
        }
    }
    Ok((!found.list.is_empty()).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn lists_are_joined_and_nothing_else_is_changed() {
        let prefill =
            br#"{"text":"","meta_info":{"id":"a","input_token_logprobs":[[null,1,null],[-0.5,2,"x"]]}}"#;
        let ours = PromptLogprobs::read(prefill);
        for (decode, merged) in [
            (
                r#"{"meta_info": {"input_token_logprobs": [] , "n":1e3}, "text":"\u00e9"}"#,
                r#"{"meta_info": {"input_token_logprobs": [[null,1,null],[-0.5,2,"x"]] , "n":1e3}, "text":"\u00e9"}"#,
            ),
            (
                r#"{"text":"t","meta_info":{"input_token_logprobs":[[-1,3,null]]}}"#,
                r#"{"text":"t","meta_info":{"input_token_logprobs":[[null,1,null],[-0.5,2,"x"],[-1,3,null]]}}"#,
            ),
            (
                r#"{"meta_info":{"input_token_logprobs":null}}"#,
                r#"{"meta_info":{"input_token_logprobs":null}}"#,
            ),
            (r#"{"text":"no meta"}"#, r#"{"text":"no meta"}"#),
            ("not JSON", "not JSON"),
        ] {
            assert_eq!(text(ours.merge(decode.as_bytes())), merged);
        }
    }

    #[test]
    fn each_prompt_of_a_batch_has_its_own() {
        let answer = |lists: [&str; 2]| {
            let items = lists.map(|list| format!(r#"{{"meta_info":{{"input_token_logprobs":{list}}}}}"#));
            format!("[{}]", items.join(","))
        };
        let ours = PromptLogprobs::read(answer(["[1]", "[2,3]"]).as_bytes());
        assert_eq!(text(ours.merge(answer(["[]", "[4]"]).as_bytes())), answer(["[1]", "[2,3,4]"]));
    }

    #[test]
    fn events_are_merged_by_their_index() {
        let event = |index: u32, list: &str| {
            format!("data: {{\"index\":{index},\"meta_info\":{{\"input_token_logprobs\":{list}}}}}\n\n")
        };
        let said =
            [event(1, "[2]"), event(0, "[1]"), event(1, "[2]"), "data: [DONE]\n\n".to_owned()].concat();
        let ours = PromptLogprobs::read(said.as_bytes());
        let events =
            [event(1, "[]"), ": a comment\n\n".to_owned(), event(0, "[9]"), "data: [DONE]\n\n".to_owned()];
        let merged =
            [event(1, "[2]"), ": a comment\n\n".to_owned(), event(0, "[1,9]"), "data: [DONE]\n\n".to_owned()];
        assert_eq!(text(ours.merge_events(events.concat().as_bytes())), merged.concat());
    }
}
