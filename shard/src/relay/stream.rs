//! The bytes of a relayed body, without any socket: a worker's framing in, ours out.
//!
//! Events are passed on whole: the part of an event that has arrived so far is held back until its end is there, so
//! when a worker dies inside one, the client sees complete events, then an error event, and never half a token.

use api::endpoint::Endpoint;
use api::error::ApiError;
use wire::Chunk;
use wire::ChunkedDecoder;
use wire::LAST_CHUNK;
use wire::ResponseFraming;
use wire::SseScanner;
use wire::encode_chunk_head;

use crate::encode::Delimiter;
use crate::limits;
use crate::logprobs::PromptLogprobs;
use crate::respond;
use crate::resume::Sequel;
use crate::resume::Story;

/// What kind of body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    Plain,
    /// Server-sent events.
    Events,
}

/// The worker's bytes do not follow its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes a body out of its framing.
#[derive(Clone, Debug)]
pub(crate) enum BodyDecoder {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunked, until it says it is done.
    Chunked(ChunkedDecoder),
    /// Everything until the connection ends.
    UntilClose,
    /// The body is complete.
    Done,
}

impl BodyDecoder {
    pub(crate) fn new(framing: ResponseFraming) -> Self {
        match framing {
            ResponseFraming::None | ResponseFraming::Length(0) => Self::Done,
            ResponseFraming::Length(length) => Self::Length(length),
            ResponseFraming::Chunked => Self::Chunked(ChunkedDecoder::new()),
            ResponseFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Takes the next piece of the body from the front of `input`; none when more input is needed or it is done.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        if input.is_empty() {
            return Ok(None);
        }
        match self {
            Self::Done => Ok(None),
            Self::UntilClose => Ok(Some(std::mem::take(input))),
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = input.split_at(take);
                *input = rest;
                *left -= take as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(piece))
            }
            Self::Chunked(decoder) => match decoder.next(input) {
                Ok(Chunk::Data(piece)) => Ok(Some(piece)),
                Ok(Chunk::NeedMore) => Ok(None),
                Ok(Chunk::End) => {
                    *self = Self::Done;
                    Ok(None)
                }
                Err(_) => Err(Malformed),
            },
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the body may end with the connection here.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Self::Done | Self::UntilClose)
    }
}

/// Where a relayed body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// More is to come.
    More,
    /// Complete, and its end is written. `is_exact`: the worker sent nothing beyond it.
    End { is_exact: bool },
    /// The worker's bytes ended early, make no sense, or cannot be told on; [`Relay::fail`] tells the client.
    Broken,
}

/// One body on its way.
#[derive(Debug)]
pub(crate) struct Relay {
    decoder: BodyDecoder,
    kind: Kind,
    delimiter: Delimiter,
    scanner: SseScanner,
    /// The open event so far.
    held: Vec<u8>,
    /// Part of the open event has gone out already, because it is longer than what is held.
    is_open_event_sent: bool,
    /// The stream's own end mark has come: what is lost after it is no loss.
    is_done_seen: bool,
    /// The client has been sent the head.
    is_begun: bool,
    /// What the client has been told, if another worker may have to go on with it.
    story: Option<Box<Story>>,
    /// What another worker says of the prompt, to be told with what this one says.
    logprobs: Option<Box<PromptLogprobs>>,
    /// Events completed so far.
    events: u64,
    /// Body bytes written so far.
    bytes: u64,
}

impl Relay {
    pub(crate) fn new(decoder: BodyDecoder, kind: Kind, delimiter: Delimiter) -> Self {
        Self {
            decoder,
            kind,
            delimiter,
            scanner: SseScanner::new(),
            held: Vec::new(),
            is_open_event_sent: false,
            is_done_seen: false,
            is_begun: false,
            story: None,
            logprobs: None,
            events: 0,
            bytes: 0,
        }
    }

    /// Follows what the client is told, so that another worker can go on with it.
    pub(crate) fn follow(&mut self, story: Option<Story>) {
        self.story = story.map(Box::new);
    }

    /// Has every event say of the prompt what another worker knows.
    pub(crate) fn tell_logprobs(&mut self, logprobs: Option<PromptLogprobs>) {
        self.logprobs = logprobs.map(Box::new);
    }

    /// Gives the story back.
    pub(crate) fn unfollow(self) -> Option<Story> {
        self.story.map(|story| *story)
    }

    /// Whether another worker can go on, or nothing is left to be said.
    pub(crate) fn has_sequel(&self) -> bool {
        self.story.as_ref().is_some_and(|story| story.has_sequel())
    }

    /// How the stream goes on. `body` is the client's own request.
    pub(crate) fn sequel(&mut self, body: &[u8]) -> Sequel {
        self.story.as_mut().map_or(Sequel::None, |story| story.sequel(body))
    }

    /// Ends the stream with `events`: the worker failed when all had been said.
    pub(crate) fn end(&mut self, events: &[u8], out: &mut Vec<u8>) {
        self.held.clear();
        self.write(events, out);
        self.write_end(out);
    }

    /// Whether it is bytes, and no events.
    pub(crate) fn is_plain(&self) -> bool {
        self.kind == Kind::Plain
    }

    /// Notes that the client is sent the head.
    pub(crate) fn begin(&mut self) {
        self.is_begun = true;
    }

    /// Whether the client has been sent the head.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Goes on with the answer of another worker: what the last one left open is dropped.
    pub(crate) fn go_on(&mut self, decoder: BodyDecoder) {
        self.decoder = decoder;
        self.scanner = SseScanner::new();
        self.held.clear();
    }

    /// Whether another worker may go on with it now: nothing that counts has been told, or what was told can be
    /// continued; and no event is half told.
    pub(crate) fn may_move(&self) -> bool {
        let is_whole = !self.is_open_event_sent;
        self.kind == Kind::Events && is_whole && (self.events == 0 || self.has_sequel())
    }

    /// Whether the stream's own end mark has come.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done_seen
    }

    /// Events completed so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Body bytes written so far, framing not counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes bytes from the worker and appends what goes to the client.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Flow {
        loop {
            match self.decoder.next(&mut input) {
                Ok(Some(piece)) => {
                    let flow = self.push_decoded(piece, out);
                    if flow != Flow::More {
                        return flow;
                    }
                }
                Ok(None) if self.decoder.is_done() => {
                    self.finish(out);
                    return Flow::End { is_exact: input.is_empty() };
                }
                Ok(None) => return Flow::More,
                Err(Malformed) => return Flow::Broken,
            }
        }
    }

    /// The worker's connection has ended.
    pub(crate) fn end_of_input(&mut self, out: &mut Vec<u8>) -> Flow {
        let is_whole = self.kind == Kind::Plain || (self.held.is_empty() && !self.is_open_event_sent);
        if self.is_done_seen || (self.decoder.may_end() && is_whole) {
            self.finish(out);
            Flow::End { is_exact: false }
        } else {
            Flow::Broken
        }
    }

    /// Tells the client that the stream broke off. False when the body's kind has no way to say so but to end
    /// without its end mark.
    pub(crate) fn fail(&mut self, endpoint: Endpoint, error: &ApiError, out: &mut Vec<u8>) -> bool {
        if self.kind == Kind::Plain {
            return false;
        }
        self.held.clear();
        let mut event = Vec::new();
        if self.is_open_event_sent {
            event.extend_from_slice(b"\n\n");
        }
        respond::write_error_event(endpoint, error, &mut event);
        self.write(&event, out);
        self.write_end(out);
        true
    }

    /// Takes a piece of the body, already out of its framing. The flow is broken by an event that is too long for what
    /// has to be done with it.
    pub(crate) fn push_decoded(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Flow {
        if self.kind == Kind::Plain {
            self.write(piece, out);
            return Flow::More;
        }
        let fed = self.scanner.feed(piece);
        self.events += u64::from(fed.events);
        self.is_done_seen |= fed.done;
        let (complete, open) = piece.split_at(fed.complete_len);
        if !complete.is_empty() {
            self.is_open_event_sent = false;
            if self.held.is_empty() {
                self.tell(complete, out);
            } else {
                let mut events = std::mem::take(&mut self.held);
                events.extend_from_slice(complete);
                self.tell(&events, out);
            }
        }
        if self.is_open_event_sent {
            self.write(open, out);
            return Flow::More;
        }
        self.held.extend_from_slice(open);
        if self.held.len() <= limits::EVENT_HELD_BYTES_MAX {
            return Flow::More;
        }
        let open = std::mem::take(&mut self.held);
        if let Some(story) = &mut self.story {
            story.lose_track();
            // An event is retold as a whole or not at all: the client gets nothing of one that does not fit.
            if story.resumed() > 0 {
                return Flow::Broken;
            }
        }
        self.write(&open, out);
        self.is_open_event_sent = true;
        Flow::More
    }

    /// Passes whole events on, fitted to what the client has been told by another worker.
    fn tell(&mut self, events: &[u8], out: &mut Vec<u8>) {
        match &mut self.story {
            None => match &self.logprobs {
                None => self.write(events, out),
                Some(logprobs) => {
                    let merged = logprobs.merge_events(events);
                    self.write(&merged, out);
                }
            },
            Some(story) if story.resumed() == 0 => {
                story.listen(events);
                self.story.take_if(|story| story.is_over());
                self.write(events, out);
            }
            Some(story) => {
                let mut retold = Vec::with_capacity(events.len());
                story.retell(events, &mut retold);
                self.write(&retold, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        // A last event without its empty line is the worker's own end; it is passed on as it came.
        let rest = std::mem::take(&mut self.held);
        self.write(&rest, out);
        self.write_end(out);
    }

    fn write(&mut self, body: &[u8], out: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        self.bytes += body.len() as u64;
        if self.delimiter == Delimiter::Chunked {
            encode_chunk_head(body.len(), out);
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(body);
        }
    }

    fn write_end(&mut self, out: &mut Vec<u8>) {
        if self.delimiter == Delimiter::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}

#[cfg(test)]
mod tests;
