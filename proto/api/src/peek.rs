//! One pass over a request body: is it a JSON object, which model, is it a stream, and where its prompt is.
//!
//! Nothing is copied or decoded: the prompt is a list of spans into the body, each a string's raw bytes (or an array
//! of token ids as it was written). Everything else is validated and skipped. A body that passes is sent on
//! unchanged.

use std::borrow::Cow;

use wire::json::JsonError;
use wire::json::Kind;
use wire::json::RawStr;
use wire::json::Scanner;
use wire::json::Span;

use crate::endpoint::PromptShape;
use crate::error::ApiError;
use crate::error::ErrorCode;

/// Bytes of prompt remembered: as much as a prefix tree indexes (4,096 blocks of 128 bytes).
const PROMPT_BYTES_MAX: usize = 512 * 1024;
/// Pieces of prompt remembered: four messages of a few words to each block of the tree.
const SPANS_MAX: usize = 16 * 1024;
/// Longest value of a field that was asked for.
const FIELD_BYTES_MAX: usize = 4096;
/// Longest model name looked for in a form.
const MODEL_NAME_BYTES_MAX: usize = 256;
/// Longest headers of the part that names the model.
const MODEL_HEADERS_BYTES_MAX: usize = 1024;

/// Bytes at the end of an answer in which its usage is looked for.
const USAGE_BYTES_MAX: usize = 4096;

/// What routing needs to know of a body.
#[derive(Debug, Default)]
pub struct Peeked<'a> {
    /// The `model` field, unescaped.
    pub model: Option<Cow<'a, str>>,
    /// The `stream` field.
    pub stream: bool,
    /// How many prompts a list of them holds, or how many answers are asked for; none for one of each.
    pub batch: Option<u32>,
    /// Whether log probabilities are asked for in SGLang's native API.
    pub wants_logprobs: bool,
}

/// Where the prompt stands in a body: spans in the order in which engines read them. Kept and reused by the caller.
///
/// Bounded: what comes after [`PROMPT_BYTES_MAX`] or [`SPANS_MAX`] is not remembered, since no prefix tree looks that
/// far, and a body of tiny strings must not cost many times its size.
#[derive(Debug, Default)]
pub struct PromptSpans {
    /// Tools and system prompts: engines render them first, wherever the body has them.
    preface: Spans,
    main: Spans,
    /// Values of the fields that were asked for, in the order of their names.
    fields: Vec<Option<Span>>,
    /// Those of them that are strings with escapes, without these.
    unescaped: Vec<(usize, String)>,
}

#[derive(Debug, Default)]
struct Spans {
    list: Vec<Span>,
    bytes: usize,
}

impl Spans {
    fn push(&mut self, span: Span) {
        if !span.is_empty() && self.bytes < PROMPT_BYTES_MAX && self.list.len() < SPANS_MAX {
            self.bytes += span.len();
            self.list.push(span);
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }
}

impl PromptSpans {
    /// Forgets every span, keeping the memory.
    pub fn clear(&mut self) {
        self.preface.clear();
        self.main.clear();
        self.fields.clear();
        self.unescaped.clear();
    }

    /// The value of the field that was asked for as the `at`-th: the text of a string, anything else as it is written;
    /// none when it is absent or null.
    pub fn field<'a>(&'a self, at: usize, body: &'a [u8]) -> Option<&'a [u8]> {
        if let Some((_, text)) = self.unescaped.iter().find(|(of, _)| *of == at) {
            return Some(text.as_bytes());
        }
        self.fields.get(at).copied().flatten().map(|span| &body[span.start..span.end])
    }

    /// Takes in the value of a field, the last of its name so far.
    fn note(&mut self, at: usize, body: &[u8], Span { start, end }: Span) {
        self.unescaped.retain(|(of, _)| *of != at);
        let value = &body[start..end];
        let (leading, trailing) = match value {
            [b'"', .., b'"'] => (1, 1),
            _ => (0, 0),
        };
        let is_taken = value.len() <= FIELD_BYTES_MAX && value != b"null";
        self.fields[at] = is_taken.then_some(Span { start: start + leading, end: end - trailing });
        if is_taken && leading > 0 && value.contains(&b'\\') {
            // Half a surrogate pair is no text: such a string stays as it is written.
            let text = Scanner::new(value).string().and_then(|text| text.unescape());
            self.unescaped.extend(text.ok().map(|text| (at, text.into_owned())));
        }
    }

    /// Length of the prompt, as far as it is remembered.
    pub fn bytes(&self) -> usize {
        self.preface.bytes + self.main.bytes
    }

    /// The prompt's pieces within the body they were found in.
    pub fn parts<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.preface.list.iter().chain(&self.main.list).map(|span| &body[span.start..span.end])
    }
}

/// Reads `body` as the endpoint's shape says, and notes the values of the top-level fields in `names`. `spans` is
/// cleared first.
///
/// # Errors
/// 400 `json_parse_error` unless the body is one JSON object in UTF-8; 400 `invalid_request` when `model` is not a
/// string or `stream` not a boolean.
pub fn peek<'a>(
    shape: PromptShape,
    body: &'a [u8],
    names: &[String],
    spans: &mut PromptSpans,
) -> Result<Peeked<'a>, ApiError> {
    spans.clear();
    spans.fields.resize(names.len(), None);
    if simdutf8::basic::from_utf8(body).is_err() {
        return Err(ApiError::new(ErrorCode::JsonParse, "request body is not valid UTF-8"));
    }
    let mut scanner = Scanner::new(body);
    match scanner.peek().map_err(json_error)? {
        Kind::Object => {}
        Kind::Array | Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => {
            scanner.skip().and_then(|_| scanner.finish()).map_err(json_error)?;
            return Err(ApiError::new(ErrorCode::JsonParse, "request body must be a JSON object"));
        }
    }
    let mut peeked = Peeked::default();
    scanner.begin_object().map_err(json_error)?;
    while let Some(key) = scanner.next_key().map_err(json_error)? {
        let field = names.iter().position(|name| key.eq(name));
        let value_begin = scanner.peek().map(|_| scanner.offset()).map_err(json_error)?;
        member(shape, key, &mut scanner, &mut peeked, spans)?;
        if let Some(at) = field {
            spans.note(at, body, Span { start: value_begin, end: scanner.offset() });
        }
    }
    scanner.finish().map_err(json_error)?;
    Ok(peeked)
}

/// Where the value of `model` stands in a body, quotes included, and the name itself; none unless the body is a JSON
/// object that names one. Of several the last counts, as it does for engines.
pub fn model_of(body: &[u8]) -> Option<(Span, Cow<'_, str>)> {
    let mut scanner = Scanner::new(body);
    let mut found = None;
    scanner.begin_object().ok()?;
    while let Some(key) = scanner.next_key().ok()? {
        let kind = scanner.peek().ok()?;
        if key.eq("model") && kind == Kind::String {
            let start = scanner.offset();
            let name = scanner.string().and_then(|value| value.unescape()).ok()?;
            found = Some((Span { start, end: scanner.offset() }, name));
        } else {
            scanner.skip().ok()?;
        }
    }
    found
}

/// How many tokens the answer may have at most, if the body says so: the number behind `max_tokens` or one of its
/// other names, wherever it stands. A look for bytes and no parse, for who needs an estimate before the body is read:
/// text of a prompt cannot be taken for it, since quotes within a string are escaped.
pub fn answer_tokens_max(body: &[u8]) -> Option<u32> {
    const BEGIN: &[u8] = b"\"max_";
    const NAMES: [&[u8]; 4] = [b"tokens\"", b"completion_tokens\"", b"new_tokens\"", b"output_tokens\""];
    memchr::memmem::find_iter(body, BEGIN).find_map(|at| {
        let name = &body[at + BEGIN.len()..];
        number_behind(NAMES.iter().find_map(|known| name.strip_prefix(*known))?)
    })
}

/// What an answer says that its request used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// So many tokens in all.
    Total(u32),
    /// So many in the answer.
    Answer(u32),
}

/// What a complete JSON answer says of tokens at its end, where engines put it.
pub fn used(answer: &[u8]) -> Option<Used> {
    const KEY_END: &[u8] = b"_tokens\"";
    let end = &answer[answer.len().saturating_sub(USAGE_BYTES_MAX)..];
    // Forwards, since only that way is vectorised.
    let (mut total, mut own) = (None, None);
    for at in memchr::memmem::find_iter(end, KEY_END) {
        let (before, behind) = (&end[..at], &end[at + KEY_END.len()..]);
        if before.ends_with(b"\"total") {
            total = number_behind(behind).or(total);
        } else if before.ends_with(b"\"completion") || before.ends_with(b"\"output") {
            own = number_behind(behind).or(own);
        }
    }
    total.map(Used::Total).or(own.map(Used::Answer))
}

/// Tokens of prompt and answer, as a complete JSON answer says at its end.
pub fn usage(answer: &[u8]) -> (Option<u32>, Option<u32>) {
    let end = &answer[answer.len().saturating_sub(USAGE_BYTES_MAX)..];
    let number = |key: &[u8]| number_behind(&end[memchr::memmem::rfind(end, key)? + key.len()..]);
    (number(b"\"prompt_tokens\""), number(b"\"completion_tokens\""))
}

/// The number that is the value of a key which ends here.
fn number_behind(rest: &[u8]) -> Option<u32> {
    number(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// The whole number that `text` begins with.
fn number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// Reads a body that is not JSON: a multipart form may name its model in a part of that name; nothing else is known.
pub fn peek_opaque<'a>(body: &'a [u8], spans: &mut PromptSpans) -> Peeked<'a> {
    spans.clear();
    Peeked { model: multipart_model(body).map(Cow::Borrowed), ..Peeked::default() }
}

/// The value of the form field `model` (RFC 7578).
fn multipart_model(body: &[u8]) -> Option<&str> {
    const FIELD: &[u8] = b"name=\"model\"";
    const HEADERS_END: &[u8] = b"\r\n\r\n";
    let part = &body[memchr::memmem::find(body, FIELD)? + FIELD.len()..];
    let headers = &part[..part.len().min(MODEL_HEADERS_BYTES_MAX)];
    let value = &part[memchr::memmem::find(headers, HEADERS_END)? + HEADERS_END.len()..];
    let end = value.iter().take(MODEL_NAME_BYTES_MAX).position(|&byte| byte == b'\r')?;
    std::str::from_utf8(&value[..end]).ok()
}

fn member<'a>(
    shape: PromptShape,
    key: RawStr<'a>,
    scanner: &mut Scanner<'a>,
    peeked: &mut Peeked<'a>,
    spans: &mut PromptSpans,
) -> Result<(), ApiError> {
    let kind = scanner.peek().map_err(json_error)?;
    if key.eq("model") {
        peeked.model = match kind {
            Kind::String => Some(scanner.string().and_then(|value| value.unescape()).map_err(json_error)?),
            Kind::Null => {
                scanner.skip().map_err(json_error)?;
                None
            }
            Kind::Object | Kind::Array | Kind::Number | Kind::True | Kind::False => {
                return Err(ApiError::about(ErrorCode::InvalidField, "model", "`model` must be a string"));
            }
        };
        return Ok(());
    }
    if key.eq("stream") {
        peeked.stream = match kind {
            Kind::True => true,
            Kind::False | Kind::Null => false,
            Kind::Object | Kind::Array | Kind::String | Kind::Number => {
                return Err(ApiError::about(
                    ErrorCode::InvalidField,
                    "stream",
                    "`stream` must be true or false",
                ));
            }
        };
        return scanner.skip().map(drop).map_err(json_error);
    }
    if shape == PromptShape::Messages && kind == Kind::Number && key.eq("n") {
        let answers = scanner.number().map_err(json_error)?;
        peeked.batch = number(answers).filter(|&answers| answers > 1);
        return Ok(());
    }
    if shape == PromptShape::Generate && key.eq("return_logprob") {
        peeked.wants_logprobs = match kind {
            // One for each prompt: some are.
            Kind::Array | Kind::True => true,
            Kind::Object | Kind::String | Kind::Number | Kind::False | Kind::Null => false,
        };
    }
    let prompts = prompt_member(shape, key, scanner, spans).map_err(json_error)?;
    if prompts > 0 && matches!(shape, PromptShape::Prompt | PromptShape::Generate) {
        peeked.batch = Some(prompts);
    }
    Ok(())
}

/// Takes a member that holds prompt text, skips any other. Returns how many prompts it holds as a list of them.
fn prompt_member(
    shape: PromptShape,
    key: RawStr<'_>,
    scanner: &mut Scanner<'_>,
    spans: &mut PromptSpans,
) -> Result<u32, JsonError> {
    match shape {
        PromptShape::Messages if key.eq("messages") => messages(scanner, &mut spans.main).map(|()| 0),
        PromptShape::Messages if key.eq("system") => texts(scanner, &mut spans.preface),
        PromptShape::Messages | PromptShape::Input if key.eq("tools") => {
            spans.preface.push(scanner.skip()?);
            Ok(0)
        }
        PromptShape::Input if key.eq("instructions") => texts(scanner, &mut spans.preface),
        PromptShape::Input if key.eq("input") => texts(scanner, &mut spans.main),
        PromptShape::Prompt if key.eq("prompt") => texts(scanner, &mut spans.main),
        PromptShape::Generate if key.eq("text") || key.eq("input_ids") => texts(scanner, &mut spans.main),
        PromptShape::Pairs if ["query", "documents", "text_1", "text_2"].iter().any(|name| key.eq(name)) => {
            texts(scanner, &mut spans.main)
        }
        PromptShape::Messages
        | PromptShape::Input
        | PromptShape::Prompt
        | PromptShape::Generate
        | PromptShape::Pairs
        | PromptShape::Opaque
        | PromptShape::None => scanner.skip().map(|_| 0),
    }
}

/// Chat messages: content, reasoning and tool calls of each.
fn messages(scanner: &mut Scanner<'_>, out: &mut Spans) -> Result<(), JsonError> {
    if scanner.peek()? != Kind::Array {
        return scanner.skip().map(drop);
    }
    scanner.begin_array()?;
    while scanner.next_element()? {
        if scanner.peek()? != Kind::Object {
            scanner.skip()?;
            continue;
        }
        scanner.begin_object()?;
        while let Some(key) = scanner.next_key()? {
            let prompt = ["content", "reasoning_content", "reasoning", "tool_calls", "function_call"];
            if prompt.iter().any(|name| key.eq(name)) {
                texts(scanner, out)?;
            } else {
                scanner.skip()?;
            }
        }
    }
    Ok(())
}

/// Every string below the current value, in order, but for tags that say nothing about the prompt; arrays of
/// numbers as they stand. Returns how many elements other than numbers it has, if it is an array.
fn texts(scanner: &mut Scanner<'_>, out: &mut Spans) -> Result<u32, JsonError> {
    match scanner.peek()? {
        Kind::String => {
            let text = scanner.string()?;
            out.push(Span { start: text.offset, end: text.offset + text.raw.len() });
            Ok(0)
        }
        Kind::Array => {
            // A list of token ids is one piece without its brackets, so that a longer list has a shorter one as
            // its prefix.
            let begin = scanner.offset();
            scanner.begin_array()?;
            let mut numbers_end = None;
            let mut others: u32 = 0;
            while scanner.next_element()? {
                if scanner.peek()? == Kind::Number {
                    numbers_end = Some(scanner.skip()?.end);
                } else {
                    texts(scanner, out)?;
                    others = others.saturating_add(1);
                }
            }
            if let Some(end) = numbers_end {
                out.push(Span { start: begin + 1, end });
            }
            Ok(others)
        }
        Kind::Object => {
            scanner.begin_object()?;
            while let Some(key) = scanner.next_key()? {
                if ["type", "id", "detail", "role"].iter().any(|name| key.eq(name)) {
                    scanner.skip()?;
                } else {
                    texts(scanner, out)?;
                }
            }
            Ok(0)
        }
        Kind::Number | Kind::True | Kind::False | Kind::Null => scanner.skip().map(|_| 0),
    }
}

fn json_error(error: JsonError) -> ApiError {
    ApiError::new(ErrorCode::JsonParse, format!("request body is not valid JSON: {error}"))
}

#[cfg(test)]
mod tests;
