//! One event of a streamed chat or completion: what it tells, and how it is told by a worker that took over.

use wire::json::JsonError;
use wire::json::Kind as Json;
use wire::json::Scanner;
use wire::json::Span;

use crate::resume::Kind;

/// What one event tells.
#[derive(Debug, Default)]
pub(crate) struct Told<'a> {
    /// Text of the answer, as it stands in the JSON string.
    pub(crate) text: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) created: &'a [u8],
    pub(crate) model: &'a [u8],
    /// The answer ends with it.
    pub(crate) is_finish: bool,
    /// It tells something that no other worker can go on from.
    pub(crate) is_fixed: bool,
    id_at: Option<Span>,
    created_at: Option<Span>,
    /// The member `role`, with the comma that goes with it.
    role_at: Option<Span>,
    prompt_tokens: Option<(Span, u64)>,
    completion_tokens: Option<(Span, u64)>,
    has_usage: bool,
}

/// Reads an event; none if it is no chunk of an answer.
pub(crate) fn read(kind: Kind, data: &[u8]) -> Option<Told<'_>> {
    let mut told = Told::default();
    chunk(kind, data, &mut told).ok()?;
    Some(told)
}

fn chunk<'a>(kind: Kind, data: &'a [u8], told: &mut Told<'a>) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(data);
    let mut has_choices = false;
    scanner.begin_object()?;
    while let Some(key) = scanner.next_key()? {
        match key.raw {
            b"id" | b"created" | b"model" => {
                let at = scanner.skip()?;
                let value = at.of(data);
                match key.raw {
                    b"id" => (told.id, told.id_at) = (value, Some(at)),
                    b"created" => (told.created, told.created_at) = (value, Some(at)),
                    _ => told.model = value,
                }
            }
            b"choices" if scanner.peek()? == Json::Array => {
                has_choices = true;
                scanner.begin_array()?;
                let mut choices = 0;
                while scanner.next_element()? {
                    choice(kind, data, &mut scanner, told)?;
                    choices += 1;
                }
                told.is_fixed |= choices > 1;
            }
            b"usage" if scanner.peek()? == Json::Object => {
                told.has_usage = true;
                usage(data, &mut scanner, told)?;
            }
            b"error" => {
                told.is_fixed |= scanner.peek()? != Json::Null;
                scanner.skip()?;
            }
            _ => drop(scanner.skip()?),
        }
    }
    // Whatever it tells, it is no chunk of an answer.
    told.is_fixed |= !has_choices && !told.has_usage;
    scanner.finish()
}

fn choice<'a>(
    kind: Kind,
    data: &'a [u8],
    scanner: &mut Scanner<'a>,
    told: &mut Told<'a>,
) -> Result<(), JsonError> {
    scanner.begin_object()?;
    while let Some(key) = scanner.next_key()? {
        let value = scanner.peek()?;
        match key.raw {
            b"index" => told.is_fixed |= scanner.skip()?.of(data) != b"0",
            b"finish_reason" if value == Json::String => {
                told.is_finish = true;
                scanner.skip()?;
            }
            b"logprobs" => {
                told.is_fixed |= value != Json::Null;
                scanner.skip()?;
            }
            b"text" if kind == Kind::Completion && value == Json::String => told.text = scanner.string()?.raw,
            b"delta" if kind == Kind::Chat && value == Json::Object => delta(data, scanner, told)?,
            _ => drop(scanner.skip()?),
        }
    }
    Ok(())
}

fn delta<'a>(data: &'a [u8], scanner: &mut Scanner<'a>, told: &mut Told<'a>) -> Result<(), JsonError> {
    scanner.begin_object()?;
    while let Some(key) = scanner.next_key()? {
        let value = scanner.peek()?;
        match key.raw {
            b"content" if value == Json::String => told.text = scanner.string()?.raw,
            b"role" => {
                // From the quote before the key on.
                let start = key.offset - 1;
                let end = scanner.skip()?.end;
                told.role_at = Some(with_comma(data, Span { start, end }));
            }
            // Nothing told, whatever it is.
            _ if matches!(value, Json::Null) => drop(scanner.skip()?),
            // Tool calls, reasoning, refusals, sound: they are no part of the text that another worker is given.
            _ => {
                let value = scanner.skip()?.of(data);
                told.is_fixed |= !matches!(value, b"\"\"" | b"[]" | b"{}");
            }
        }
    }
    Ok(())
}

fn usage<'a>(data: &'a [u8], scanner: &mut Scanner<'a>, told: &mut Told<'a>) -> Result<(), JsonError> {
    scanner.begin_object()?;
    while let Some(key) = scanner.next_key()? {
        let at = scanner.skip()?;
        let number = || std::str::from_utf8(at.of(data)).ok()?.parse().ok().map(|number| (at, number));
        match key.raw {
            b"prompt_tokens" => told.prompt_tokens = number(),
            b"completion_tokens" => told.completion_tokens = number(),
            _ => {}
        }
    }
    Ok(())
}

/// A member's span with the comma behind it, or the one before it if it is the last.
fn with_comma(data: &[u8], member: Span) -> Span {
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let behind = data[member.end..].iter().position(|byte| !blank(byte)).map(|at| member.end + at);
    if let Some(at) = behind.filter(|&at| data[at] == b',') {
        return Span { start: member.start, end: at + 1 };
    }
    match data[..member.start].iter().rposition(|byte| !blank(byte)).filter(|&at| data[at] == b',') {
        Some(at) => Span { start: at, end: member.end },
        None => member,
    }
}

// === impl Told ===

impl Told<'_> {
    /// The event as the client gets it from a worker that took over when `tokens_before` tokens had been told; none if
    /// it only begins what has begun.
    pub(crate) fn retold(
        &self,
        data: &[u8],
        id: &[u8],
        created: &[u8],
        tokens_before: u64,
    ) -> Option<Vec<u8>> {
        if self.role_at.is_some() && self.text.is_empty() && !self.is_finish && !self.has_usage {
            return None;
        }
        let mut edits: Vec<(Span, Vec<u8>)> = Vec::new();
        let known =
            |at: Option<Span>, first: &[u8]| at.filter(|_| !first.is_empty()).map(|at| (at, first.to_vec()));
        edits.extend(known(self.id_at, id));
        edits.extend(known(self.created_at, created));
        edits.extend(self.role_at.map(|at| (at, Vec::new())));
        // What was told before was prompt to this worker, and is answer to the client.
        edits.extend(self.prompt_tokens.map(|(at, count)| (at, number(count.saturating_sub(tokens_before)))));
        edits.extend(self.completion_tokens.map(|(at, count)| (at, number(count + tokens_before))));
        Some(edited(data, edits))
    }
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// `data` with each span replaced.
pub(super) fn edited(data: &[u8], mut edits: Vec<(Span, Vec<u8>)>) -> Vec<u8> {
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = Vec::with_capacity(data.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut from = 0;
    for (at, new) in edits {
        out.extend_from_slice(&data[from..at.start]);
        out.extend_from_slice(&new);
        from = at.end;
    }
    out.extend_from_slice(&data[from..]);
    out
}

/// Appends an event that ends an answer for its length.
pub(super) fn write_finish(kind: Kind, [id, created, model]: [&[u8]; 3], out: &mut Vec<u8>) {
    let (object, told): (&[u8], &[u8]) = match kind {
        Kind::Chat => (b"chat.completion.chunk", b"\"delta\":{}"),
        Kind::Completion => (b"text_completion", b"\"text\":\"\""),
    };
    let or_null = |value: &[u8]| if value.is_empty() { b"null".to_vec() } else { value.to_vec() };
    out.extend_from_slice(b"data: {\"id\":");
    out.extend_from_slice(&or_null(id));
    out.extend_from_slice(b",\"object\":\"");
    out.extend_from_slice(object);
    out.extend_from_slice(b"\",\"created\":");
    out.extend_from_slice(&or_null(created));
    out.extend_from_slice(b",\"model\":");
    out.extend_from_slice(&or_null(model));
    out.extend_from_slice(b",\"choices\":[{\"index\":0,");
    out.extend_from_slice(told);
    out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n");
}
