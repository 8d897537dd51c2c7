//! A client on a plain socket: it sends the bytes it is told to, and reads answers.

use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;

use serde_json::Value;

use crate::http::Body;
use crate::http::Head;
use crate::http::Headers;
use crate::http::Wire;
use crate::wait::DEADLINE;

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    /// What is left of the answer being read.
    body: Body,
    /// Bytes of events read and not returned yet.
    events: Vec<u8>,
    /// Whether the answer being read is one to HEAD.
    is_head: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub headers: Headers,
    /// Body, taken out of its framing.
    pub body: Vec<u8>,
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Request {
    head: String,
    body: Vec<u8>,
    says_length: bool,
}

// === impl Request ===

impl Request {
    /// A request with `Host`, and with nothing else until told.
    pub fn new(method: &str, target: &str) -> Request {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: gateway\r\n");
        Request { head, body: Vec::new(), says_length: method != "GET" && method != "HEAD" }
    }

    /// A GET.
    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    /// A POST of JSON.
    pub fn json(target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", target).header("content-type", "application/json").body(body)
    }

    /// The same with another method.
    pub fn method(mut self, method: &str) -> Request {
        let rest = self.head.split_once(' ').map_or("", |(_, rest)| rest);
        self.head = format!("{method} {rest}");
        self
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sets the body; its length is said.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// The bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        if self.says_length {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

// === impl Response ===

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            unreachable!("the body should be JSON: {error}: {self:?}");
        })
    }

    /// The code of an error in the one shape; none when the answer is no such error.
    pub fn error_code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let error = body.get("error")?.as_object()?;
        let is_text = |key: &str| error.get(key).is_some_and(Value::is_string);
        let is_whole = is_text("message") && is_text("type") && error.contains_key("param");
        let code = error.get("code")?.as_str()?;
        let is_said = self.headers.get("x-smg-error-code") == Some(code);
        let has_id = self.headers.get("x-request-id").is_some_and(|id| !id.is_empty());
        (is_whole && is_said && has_id).then(|| code.to_owned())
    }
}

// === impl Client ===

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn try_connect(addr: SocketAddr) -> io::Result<Client> {
        TcpStream::connect(addr).map(Client::over)
    }

    /// Speaks over a socket that is connected.
    pub fn over(stream: TcpStream) -> Client {
        Client { wire: Wire::new(stream), body: Body::Done, events: Vec::new(), is_head: false }
    }

    /// Connects.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).expect("the server listens")
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.is_head = bytes.starts_with(b"HEAD ");
        self.wire.send(bytes).expect("the server takes the request");
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn try_send(&mut self, request: &Request) -> io::Result<()> {
        self.is_head = false;
        self.wire.send(&request.bytes())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Whether some of an answer, or the end of the connection, has arrived.
    pub fn has_answer(&mut self) -> bool {
        self.wire.has_input()
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks before the answer is complete.
    pub fn try_ask(&mut self, request: &Request) -> io::Result<Response> {
        self.try_send(request)?;
        self.try_response()
    }

    /// Reads an answer.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let response = self.try_response();
        assert!(response.is_ok(), "no complete answer: {response:?}");
        response.expect("just asserted")
    }

    /// Reads an answer; interim ones are passed over.
    ///
    /// # Errors
    /// When the connection ends before the answer is complete.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let (status, headers) = self.try_head()?;
        let body = self.try_rest()?;
        Ok(Response { status, headers, body })
    }

    /// Reads the head of an answer; its body is left to [`Client::piece`] and [`Client::event`].
    #[track_caller]
    pub fn head(&mut self) -> (u16, Headers) {
        let head = self.try_head();
        assert!(head.is_ok(), "no head of an answer: {head:?}");
        head.expect("just asserted")
    }

    /// Reads the head of an answer.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn try_head(&mut self) -> io::Result<(u16, Headers)> {
        loop {
            let ended =
                || io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended without an answer");
            let head = self.wire.head()?.ok_or_else(ended)?;
            let status = status(&head)?;
            if (100..200).contains(&status) {
                continue;
            }
            let has_body = !self.is_head && status != 204 && status != 304;
            self.body = if has_body { head.body(Body::UntilClose)? } else { Body::Done };
            self.events.clear();
            return Ok((status, head.headers));
        }
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        self.wire.rest(&mut self.body)
    }

    /// Reads one interim answer.
    #[track_caller]
    pub fn interim(&mut self) -> u16 {
        let head = self.wire.head().expect("a head").expect("an interim answer");
        status(&head).expect("a status line")
    }

    /// The next piece of the body as it came; none at its end.
    #[track_caller]
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        self.wire.piece(&mut self.body).expect("the answer goes on")
    }

    /// The next server-sent event without its empty line; none at the proper end of the body.
    ///
    /// # Errors
    /// When the connection ends before the body, or the body within an event.
    pub fn try_event(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.events.windows(2).position(|window| window == b"\n\n") {
                let event: Vec<u8> = self.events.drain(..at + 2).take(at).collect();
                return Ok(Some(String::from_utf8_lossy(&event).into_owned()));
            }
            match self.wire.piece(&mut self.body)? {
                Some(piece) => self.events.extend_from_slice(&piece),
                None if self.events.is_empty() => return Ok(None),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half an event")),
            }
        }
    }

    /// The next server-sent event; none at the proper end of the body.
    #[track_caller]
    pub fn event(&mut self) -> Option<String> {
        self.try_event().expect("whole events and a proper end")
    }

    /// The data of every event to the end.
    #[track_caller]
    pub fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.event() {
            events.push(event.strip_prefix("data: ").unwrap_or(&event).to_owned());
        }
        events
    }

    /// Whether the server ends the connection, with nothing more said.
    pub fn is_closed(&mut self) -> bool {
        self.wire.closes_within(DEADLINE)
    }

    /// Leaves with a reset, as a killed process with unread data does.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Says that no further request will come.
    pub fn end_of_sending(&self) {
        self.wire.end_of_sending();
    }
}

fn status(head: &Head) -> io::Result<u16> {
    let status = head.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {}", head.start)))
}
