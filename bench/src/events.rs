//! Server-sent events, parsed as their bytes arrive.

/// Longest event, in bytes; cumulative streams repeat all text in each.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Puts the `data` of events together.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    last_was_return: bool,
}

/// An event is longer than this client takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

impl EventParser {
    /// Takes `bytes` and gives each complete event's data to `event`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) -> Result<(), EventTooLong> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n' || *byte == b'\r') {
            let (text, end) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (piece, None),
            };
            let joins_return =
                std::mem::take(&mut self.last_was_return) && end == Some(b'\n') && text.is_empty();
            if joins_return && self.line.is_empty() {
                continue;
            }
            self.line.extend_from_slice(text);
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(EventTooLong);
            }
            if let Some(end) = end {
                self.last_was_return = end == b'\r';
                self.end_line(&mut event);
            }
        }
        Ok(())
    }

    /// Whether the last event is complete.
    pub(crate) fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&self.data);
            }
            self.data.clear();
            return;
        }
        if let Some(value) = self.line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.has_data = true;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str, wanted: &[&str]) {
        for cut in 0..=stream.len() {
            let mut parser = EventParser::default();
            let mut events = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                let pushed = parser
                    .push(piece.as_bytes(), |data| events.push(String::from_utf8_lossy(data).into_owned()));
                assert_eq!(pushed, Ok(()));
            }
            assert_eq!(events, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn events_come_out_whole_wherever_they_are_cut() {
        check("data: a\n\ndata:b\n\n", &["a", "b"]);
        check("event: x\r\ndata: a\r\n\r\n: comment\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
        check("data: a\ndata: b\n\n", &["a\nb"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check("data: unfinished\n", &[]);
    }
}
