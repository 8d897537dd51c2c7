//! Streams that outlive their worker: what the client has been told, and how to ask another worker for the rest.
//!
//! A chat or a completion that breaks off is asked for again with the text so far as the beginning of the answer
//! (`continue_final_message`, or a longer prompt). What the other worker then says is fitted to what the client has: one
//! id, no second role, the tokens of both in the usage. No socket here, and no tokenizer: text is kept as the raw
//! contents of JSON strings, which concatenate as they are.
//!
//! Invariants
//! - What cannot be continued without a doubt is not: what was told and what was asked both have a say in
//!   [`Story::sequel`]. The request is looked at only then: a stream that goes well costs its own text.
//! - The client's text is what the first worker said, then what the others said, without a gap or a repetition.

mod event;
mod request;

use wire::SseEvents;
use wire::write_data_event;

use crate::limits;
use crate::resume::event::Told;

pub(crate) use crate::resume::request::Kind;

/// What a client has been told of one answer.
#[derive(Debug)]
pub(crate) struct Story {
    kind: Kind,
    /// It is followed to the first token only.
    is_preface: bool,
    /// The text, as it stands in JSON strings.
    text: Vec<u8>,
    /// Tokens of it; an event counts as one.
    tokens: u64,
    /// Of these, tokens that were told before the present worker took over.
    tokens_before: u64,
    /// Of the first event, as JSON values.
    id: Vec<u8>,
    created: Vec<u8>,
    model: Vec<u8>,
    /// Whether the client has yet to be told that another worker took over.
    owes_note: bool,
    /// How often another worker took over after a token had been told.
    resumed: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More text may come.
    Open,
    /// The answer has its finish reason: what may be missing is the usage and the end mark.
    Finished,
    /// Something was told that cannot be continued.
    Fixed,
}

/// What to do about a story that broke off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sequel {
    /// Nothing: it cannot be continued.
    None,
    /// Ask another worker the same: no text has been told.
    Repeat,
    /// Ask another worker with this body.
    Ask(Vec<u8>),
    /// All has been said: send this, and end the stream.
    End(Vec<u8>),
}

// === impl Story ===

impl Story {
    /// The story of an answer, to be continued by whoever can.
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(kind, false)
    }

    /// The same until the first token only: the event that only names a role is told once.
    pub(crate) fn preface(kind: Kind) -> Self {
        Self::with(kind, true)
    }

    fn with(kind: Kind, is_preface: bool) -> Self {
        Self {
            kind,
            is_preface,
            text: Vec::new(),
            tokens: 0,
            tokens_before: 0,
            id: Vec::new(),
            created: Vec::new(),
            model: Vec::new(),
            owes_note: false,
            resumed: 0,
            state: State::Open,
        }
    }

    /// How often another worker has taken over.
    pub(crate) fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Whether the answer may be continued, or ended, if its worker fails now and the request allows it.
    pub(crate) fn has_sequel(&self) -> bool {
        self.state != State::Fixed && !self.is_over()
    }

    /// Whether nothing that comes matters to it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_preface && (self.tokens > 0 || self.state != State::Open)
    }

    /// An event went by that was too long to look at.
    pub(crate) fn lose_track(&mut self) {
        self.state = State::Fixed;
    }

    /// Takes in whole events of the first worker, which go to the client as they are.
    pub(crate) fn listen(&mut self, events: &[u8]) {
        for event in SseEvents::new(events) {
            self.take_in(&event.data);
        }
    }

    /// Takes in whole events of a later worker and appends what goes to the client instead.
    pub(crate) fn retell(&mut self, events: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.owes_note) {
            // A comment: the head, where it would stand otherwise, has gone.
            out.extend_from_slice(format!(": x-ringway-resumed: {}\n\n", self.resumed).as_bytes());
        }
        for event in SseEvents::new(events) {
            let before = self.tokens_before;
            let told = event::read(self.kind, &event.data);
            match told.as_ref().and_then(|told| told.retold(&event.data, &self.id, &self.created, before)) {
                Some(data) => write_data_event(&data, out),
                // A second beginning, with a role and no text.
                None if told.is_some() => {}
                None => write_data_event(&event.data, out),
            }
            self.take_in(&event.data);
        }
    }

    /// How it goes on after its worker has failed, when something of it has been told. `body` is the client's own
    /// request.
    pub(crate) fn sequel(&mut self, body: &[u8]) -> Sequel {
        if !self.has_sequel() {
            return Sequel::None;
        }
        let mut out = Vec::new();
        let limits = request::limits(self.kind, body);
        // An answer that is complete, or not begun, may be what it wants.
        if limits.is_none() && self.state == State::Open && self.tokens > 0 {
            return Sequel::None;
        }
        let left = limits.and_then(|limits| limits.tokens_max).map(|max| max.saturating_sub(self.tokens));
        if self.state == State::Finished || left == Some(0) {
            if self.state != State::Finished {
                event::write_finish(self.kind, [&self.id, &self.created, &self.model], &mut out);
            }
            write_data_event(b"[DONE]", &mut out);
            return Sequel::End(out);
        }
        self.tokens_before = self.tokens;
        self.resumed += 1;
        if self.tokens == 0 {
            return Sequel::Repeat;
        }
        self.owes_note = true;
        match request::continued(self.kind, body, &self.text, self.tokens) {
            Some(body) => Sequel::Ask(body),
            None => Sequel::None,
        }
    }

    fn take_in(&mut self, data: &[u8]) {
        if data == b"[DONE]" || self.state == State::Fixed {
            return;
        }
        let Some(told) = event::read(self.kind, data) else {
            self.state = State::Fixed;
            return;
        };
        if self.id.is_empty() {
            (self.id, self.created, self.model) =
                (told.id.to_vec(), told.created.to_vec(), told.model.to_vec());
        }
        self.tell(&told);
    }

    fn tell(&mut self, told: &Told<'_>) {
        if self.text.len() + told.text.len() > limits::RESUMED_TEXT_BYTES_MAX {
            self.state = State::Fixed;
            self.text = Vec::new();
            return;
        }
        self.text.extend_from_slice(told.text);
        self.tokens += u64::from(!told.text.is_empty());
        self.state = match (self.state, told) {
            (_, Told { is_fixed: true, .. }) => State::Fixed,
            (_, Told { is_finish: true, .. }) => State::Finished,
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests;
