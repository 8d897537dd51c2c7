//! Event streams: finding where events end while relaying them, reading complete ones, writing them
//! (WHATWG HTML §9.2).
//!
//! Invariants
//! - A line ends in LF, CR or CRLF, and a CRLF cut between two reads is one line end.
//! - The scanner holds no bytes of the stream but the first few of an open line: its caller owns the rest and
//!   bounds it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// What UTF-8 text may begin with; it is no part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The data line by which OpenAI's dialect ends a stream.
const DONE: &[u8] = b"[DONE]";

/// Bytes of an open line kept between reads: a byte order mark, `data: [DONE]`, and one more to tell a longer
/// line.
const LINE_START_BYTES: usize = BYTE_ORDER_MARK.len() + b"data: ".len() + DONE.len() + 1;

/// What one [`SseScanner::feed`] completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SseFeed {
    /// How many leading bytes of the fed slice belong to events that are complete; 0 if none ends in it.
    pub complete_len: usize,
    /// Events completed that had at least one data line; comments (keep-alives) have none.
    pub events: u32,
    /// Whether an event whose data is exactly `[DONE]` was completed.
    pub done: bool,
}

/// Finds event boundaries in a stream that is relayed as it comes.
#[derive(Clone, Debug)]
pub struct SseScanner {
    /// The first bytes of the open line, when it was cut; `line_len` of them.
    line_start: [u8; LINE_START_BYTES],
    line_len: usize,
    event: OpenEvent,
    /// The last byte fed was a CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    /// No line of the stream has ended yet.
    is_first_line: bool,
}

/// The lines of an event whose blank line has not come yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OpenEvent {
    /// No line.
    #[default]
    Empty,
    /// Lines, none of them data.
    NoData,
    /// One data line, `[DONE]`.
    Done,
    /// Data lines.
    Data,
}

#[derive(Clone, Copy)]
enum Line {
    Blank,
    Other,
    Done,
    Data,
}

// === impl SseScanner ===

impl SseScanner {
    /// A scanner at the first byte of a stream.
    pub fn new() -> Self {
        SseScanner {
            line_start: [0; LINE_START_BYTES],
            line_len: 0,
            event: OpenEvent::Empty,
            after_cr: false,
            is_first_line: true,
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// When the CR of a blank line ends one slice and its LF begins the next, the event is complete with the
    /// CR, and the LF alone counts in the `complete_len` of the second slice.
    pub fn feed(&mut self, data: &[u8]) -> SseFeed {
        let mut feed = SseFeed::default();
        let mut at = 0;
        if self.after_cr && !data.is_empty() {
            self.after_cr = false;
            at = usize::from(data[0] == b'\n');
            if self.is_at_boundary() {
                feed.complete_len = at;
            }
        }
        while let Some(len) = memchr2(b'\n', b'\r', &data[at..]) {
            let end = at + len;
            let line = &data[at..end];
            at = match (data[end], data.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                (b'\r', None) => {
                    self.after_cr = true;
                    end + 1
                }
                _ => end + 1,
            };
            if let Line::Blank = self.end_line(line) {
                let event = std::mem::take(&mut self.event);
                feed.complete_len = at;
                feed.events += u32::from(matches!(event, OpenEvent::Data | OpenEvent::Done));
                feed.done |= event == OpenEvent::Done;
            }
        }
        self.keep(&data[at..]);
        feed
    }

    /// Whether no event is open: the stream may end here without one being lost.
    pub fn is_at_boundary(&self) -> bool {
        self.line_len == 0 && self.event == OpenEvent::Empty
    }

    /// Classifies the line whose last bytes are `tail` and joins it to the open event.
    #[inline]
    fn end_line(&mut self, tail: &[u8]) -> Line {
        let is_first = std::mem::replace(&mut self.is_first_line, false);
        let line = if self.line_len == 0 {
            Line::of(tail, is_first)
        } else {
            self.keep(tail);
            let len = std::mem::take(&mut self.line_len);
            Line::of(&self.line_start[..len], is_first)
        };
        self.event = match (self.event, line) {
            (event, Line::Blank) => event,
            (OpenEvent::Empty | OpenEvent::NoData, Line::Other) => OpenEvent::NoData,
            (event @ (OpenEvent::Done | OpenEvent::Data), Line::Other) => event,
            (OpenEvent::Empty | OpenEvent::NoData, Line::Done) => OpenEvent::Done,
            (OpenEvent::Done | OpenEvent::Data, Line::Done) | (_, Line::Data) => OpenEvent::Data,
        };
        line
    }

    /// Keeps the first bytes of an open line; the length saturates at what tells every line kind apart.
    fn keep(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(LINE_START_BYTES - self.line_len);
        self.line_start[self.line_len..self.line_len + len].copy_from_slice(&bytes[..len]);
        self.line_len += len;
    }
}

impl Default for SseScanner {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Line ===

impl Line {
    /// The kind of a line; its first [`LINE_START_BYTES`] are enough.
    #[inline]
    fn of(line: &[u8], is_first: bool) -> Self {
        let line = if is_first { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        if line.is_empty() {
            return Line::Blank;
        }
        match field(line) {
            (b"data", DONE) => Line::Done,
            (b"data", _) => Line::Data,
            _ => Line::Other,
        }
    }
}

/// One complete event, as a client's parser would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The last `event` field, unless it is empty or missing.
    pub event: Option<&'a [u8]>,
    /// The `data` fields joined by LF; borrowed when there is only one.
    pub data: Cow<'a, [u8]>,
}

/// The complete events of a slice that begins at a boundary; events without data are skipped, an open one is
/// left out.
#[derive(Clone, Debug)]
pub struct SseEvents<'a> {
    rest: &'a [u8],
}

// === impl SseEvents ===

impl<'a> SseEvents<'a> {
    /// The events of `bytes`, of which an initial byte order mark is skipped.
    pub fn new(bytes: &'a [u8]) -> Self {
        SseEvents { rest: bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes) }
    }

    /// Cuts the next line off, without its end.
    fn next_line(&mut self) -> Option<&'a [u8]> {
        let len = memchr2(b'\n', b'\r', self.rest)?;
        let line = &self.rest[..len];
        let is_crlf = self.rest[len..].starts_with(b"\r\n");
        self.rest = &self.rest[len + 1 + usize::from(is_crlf)..];
        Some(line)
    }
}

impl<'a> Iterator for SseEvents<'a> {
    type Item = SseEvent<'a>;

    fn next(&mut self) -> Option<SseEvent<'a>> {
        let mut event = None;
        let mut data: Option<Cow<'a, [u8]>> = None;
        loop {
            let line = self.next_line()?;
            match field(line) {
                _ if line.is_empty() => match data.take() {
                    Some(data) => return Some(SseEvent { event, data }),
                    None => event = None,
                },
                (b"data", value) => match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(joined) => {
                        let joined = joined.to_mut();
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                    }
                },
                (b"event", value) => event = Some(value).filter(|value| !value.is_empty()),
                _ => {}
            }
        }
    }
}

/// Appends an event that carries `json`.
///
/// Line ends in `json` (white space there, as strings cannot hold any) make it several data lines, which the
/// reader joins.
pub fn write_data_event(json: &[u8], out: &mut Vec<u8>) {
    out.reserve(json.len() + b"data: \n\n".len());
    for line in json.split(|&b| b == b'\n' || b == b'\r') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// The name and the value of a line, whose one leading space is dropped; a line without a colon is all name.
#[inline]
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    // The usual case, without a search.
    if let Some(value) = line.strip_prefix(b"data:") {
        return (b"data", value.strip_prefix(b" ").unwrap_or(value));
    }
    match memchr(b':', line) {
        None => (line, b""),
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

#[cfg(test)]
mod tests;
