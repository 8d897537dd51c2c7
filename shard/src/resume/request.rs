//! Requests that may be continued by another worker, and the request that asks for the rest.

use wire::json::JsonError;
use wire::json::Kind as Json;
use wire::json::Scanner;
use wire::json::Span;

use crate::resume::event::edited;

/// What kind of answer is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// What bounds the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) tokens_max: Option<u64>,
}

/// Fields by which an answer is more than free text: their grammar, log probabilities or ids cannot be taken up in the
/// middle. With a value other than null, false, zero or nothing they forbid it.
const FORBIDDEN: [&str; 22] = [
    "tools",
    "functions",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "regex",
    "ebnf",
    "json_schema",
    "echo",
    "suffix",
    "audio",
    "use_beam_search",
    "return_token_ids",
    "return_hidden_states",
    "input_ids",
    "continue_final_message",
    "kv_transfer_params",
];
/// Names of the longest answer in tokens.
const TOKENS_MAX: [&str; 2] = ["max_completion_tokens", "max_tokens"];

/// The bounds of a request whose answer may be continued; none for any other.
pub(super) fn limits(kind: Kind, body: &[u8]) -> Option<Limits> {
    read(kind, body)
        .ok()?
        .filter(|read| kind == Kind::Chat || read.tokens_max.is_some())
        .map(|read| Limits { tokens_max: read.tokens_max })
}

/// The request for what follows `text`, of so many tokens. None if `body` is not what [`limits`] has accepted.
pub(super) fn continued(kind: Kind, body: &[u8], text: &[u8], tokens: u64) -> Option<Vec<u8>> {
    let read = read(kind, body).ok()??;
    let mut edits = Vec::new();
    let mut fewer =
        |(at, count): (Span, u64)| edits.push((at, count.saturating_sub(tokens).to_string().into_bytes()));
    read.numbers.into_iter().flatten().for_each(&mut fewer);
    let insert = match kind {
        Kind::Chat => {
            edits.push((
                Span { start: read.begin, end: read.begin },
                b"\"continue_final_message\":true,\"add_generation_prompt\":false,".to_vec(),
            ));
            edits.extend(read.overridden.into_iter().flatten().map(|(at, value)| (at, value.to_vec())));
            [b",{\"role\":\"assistant\",\"content\":\"", text, b"\"}"].concat()
        }
        Kind::Completion => text.to_vec(),
    };
    edits.push((Span { start: read.text_end, end: read.text_end }, insert));
    Some(edited(body, edits))
}

/// Where in a body is what has to be changed.
struct Read {
    /// Behind the brace that opens the body.
    begin: usize,
    /// Where more messages, or more of the prompt, would stand.
    text_end: usize,
    tokens_max: Option<u64>,
    /// Bounds in tokens.
    numbers: [Option<(Span, u64)>; 3],
    /// Values of members that are set at the beginning, and would be set again later.
    overridden: [Option<(Span, &'static [u8])>; 2],
}

fn read(kind: Kind, body: &[u8]) -> Result<Option<Read>, JsonError> {
    let mut scanner = Scanner::new(body);
    scanner.begin_object()?;
    let mut read = Read {
        begin: scanner.offset(),
        text_end: 0,
        tokens_max: None,
        numbers: [None; 3],
        overridden: [None; 2],
    };
    while let Some(key) = scanner.next_key()? {
        let value = scanner.peek()?;
        let start = scanner.offset();
        if key.has_escapes {
            // Nobody writes names so; they might be any of those below.
            return Ok(None);
        }
        let name = std::str::from_utf8(key.raw).unwrap_or_default();
        if kind == Kind::Chat && name == "messages" {
            match messages(&mut scanner)? {
                Some(end) => read.text_end = end,
                None => return Ok(None),
            }
            continue;
        }
        let at = scanner.skip()?;
        let text = at.of(body);
        let is_off = matches!(text, b"null" | b"false" | b"0" | b"[]" | b"{}" | b"\"\"");
        match name {
            "prompt" if kind == Kind::Completion => {
                if value != Json::String {
                    return Ok(None);
                }
                read.text_end = at.end - 1;
            }
            "n" | "best_of" if !matches!(text, b"1" | b"null") => return Ok(None),
            "response_format" if value == Json::Object && !is_plain_text(body, start)? => return Ok(None),
            "add_generation_prompt" if text == b"false" => return Ok(None),
            "add_generation_prompt" => read.overridden[0] = Some((at, b"false")),
            "continue_final_message" if is_off => read.overridden[1] = Some((at, b"true")),
            name if FORBIDDEN.contains(&name) && !is_off => return Ok(None),
            "min_tokens" | "max_tokens" | "max_completion_tokens"
                if text != b"null" && number(body, at).is_none() =>
            {
                return Ok(None);
            }
            "min_tokens" => read.numbers[2] = number(body, at),
            name => {
                if let Some(which) = TOKENS_MAX.iter().position(|known| *known == name) {
                    read.numbers[which] = number(body, at);
                    let count = read.numbers[which].map(|(_, count)| count);
                    // An engine goes by the smaller one, or by one of them: the smaller is safe.
                    read.tokens_max = [read.tokens_max, count].into_iter().flatten().min();
                }
            }
        }
    }
    scanner.finish()?;
    Ok((read.text_end > 0).then_some(read))
}

fn number(body: &[u8], at: Span) -> Option<(Span, u64)> {
    std::str::from_utf8(at.of(body)).ok()?.parse().ok().map(|count| (at, count))
}

/// Where the list of messages ends; none if there is nothing to answer in it.
fn messages(scanner: &mut Scanner<'_>) -> Result<Option<usize>, JsonError> {
    if scanner.peek()? != Json::Array {
        scanner.skip()?;
        return Ok(None);
    }
    scanner.begin_array()?;
    let mut count = 0;
    while scanner.next_element()? {
        scanner.skip()?;
        count += 1;
    }
    Ok((count > 0).then(|| scanner.offset() - 1))
}

/// Whether the `response_format` that begins at `start` asks for nothing special.
fn is_plain_text(body: &[u8], start: usize) -> Result<bool, JsonError> {
    let mut scanner = Scanner::new(&body[start..]);
    scanner.begin_object()?;
    let mut is_plain = false;
    while let Some(key) = scanner.next_key()? {
        let value = scanner.skip()?;
        if key.eq("type") {
            is_plain = value.of(&body[start..]) == b"\"text\"";
        }
    }
    Ok(is_plain)
}
