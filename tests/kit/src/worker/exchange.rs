//! One request at a worker, in the hands of a test.

use std::io;
use std::io::Write;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::http::Body;
use crate::http::Head;
use crate::http::Headers;
use crate::http::Wire;
use crate::http::is_timeout;
use crate::wait::DEADLINE;
use crate::worker::json_answer;

/// How long a write may stand still before the connection counts as stuck.
const STUCK_AFTER: Duration = Duration::from_millis(300);

/// A request as a worker read it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method and target of its first line.
    pub line: String,
    /// Every byte of its head.
    pub head: Vec<u8>,
    /// Its header lines.
    pub headers: Headers,
    /// Its body, taken out of its framing.
    pub body: Vec<u8>,
}

/// A request that the test answers. Dropped, its connection is closed.
#[derive(Debug)]
pub struct Exchange {
    /// What was asked.
    pub request: Received,
    wire: Wire,
    /// What of the request's body was not read yet.
    unread: Body,
    back: Sender<Wire>,
}

impl Received {
    pub(super) fn of(head: Head, body: Vec<u8>) -> Received {
        let line = head.start.trim_end_matches(" HTTP/1.1").to_owned();
        Received { line, head: head.bytes, headers: head.headers, body }
    }
}

impl Exchange {
    pub(super) fn new(request: Received, wire: Wire, unread: Body, back: Sender<Wire>) -> Exchange {
        // A test waits for a while; a resting connection waits for as long as it takes.
        let _ = wire.stream.set_read_timeout(Some(DEADLINE));
        Exchange { request, wire, unread, back }
    }

    /// Reads the body of a request that was handed over unread.
    #[track_caller]
    pub fn read_body(&mut self) -> Vec<u8> {
        self.wire.rest(&mut self.unread).expect("the whole body comes")
    }

    /// Whether a request that was handed over unread ends before its body is complete.
    pub fn is_broken_off(&mut self) -> bool {
        self.wire.rest(&mut self.unread).is_err_and(|error| !is_timeout(&error))
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes).expect("the gateway is there");
    }

    /// Begins a chunked stream of events.
    #[track_caller]
    pub fn open_stream(&mut self) {
        self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
    }

    /// Sends an event in a chunk of its own.
    #[track_caller]
    pub fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n").as_bytes());
    }

    /// Sends an event in a chunk of its own.
    ///
    /// # Errors
    /// When the gateway has closed the connection.
    pub fn try_event(&mut self, data: &str) -> io::Result<()> {
        let event = format!("data: {data}\n\n");
        self.wire.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
    }

    /// Sends a chunk.
    #[track_caller]
    pub fn chunk(&mut self, data: &[u8]) {
        let head = format!("{:x}\r\n", data.len());
        self.send(&[head.as_bytes(), data, b"\r\n"].concat());
    }

    /// Ends a stream as OpenAI does, and keeps the connection.
    #[track_caller]
    pub fn close_stream(mut self) {
        self.event("[DONE]");
        self.send(b"0\r\n\r\n");
        self.keep();
    }

    /// Answers with JSON, and keeps the connection.
    #[track_caller]
    pub fn answer(mut self, body: &str) {
        self.send(&json_answer(body));
        self.keep();
    }

    /// Serves the next request of this connection.
    pub fn keep(self) {
        // The worker may have been dropped before.
        let _ = self.back.send(self.wire);
    }

    /// Closes the connection in good order.
    pub fn close(self) {}

    /// Resets the connection.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Waits until the gateway closes the connection.
    #[track_caller]
    pub fn wait_closed(mut self) {
        assert!(
            self.wire.closes_within(DEADLINE),
            "the gateway keeps the connection of {}",
            self.request.line
        );
    }

    /// Whether the gateway closes the connection within `limit`.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        self.wire.closes_within(limit)
    }

    /// Sends `bytes` again and again until none is taken any more, and says how many were; at most `bytes_max`.
    #[track_caller]
    pub fn send_until_stuck(&mut self, bytes: &[u8], bytes_max: usize) -> usize {
        self.wire.stream.set_write_timeout(Some(STUCK_AFTER)).expect("a socket option");
        let mut sent = 0;
        while sent < bytes_max {
            match self.wire.stream.write(&bytes[sent % bytes.len()..]) {
                Ok(n) => sent += n,
                Err(error) if is_timeout(&error) => break,
                Err(error) => {
                    assert!(error.kind() == io::ErrorKind::Interrupted, "the gateway left: {error}")
                }
            }
        }
        self.wire.stream.set_write_timeout(Some(DEADLINE)).expect("a socket option");
        sent
    }
}
