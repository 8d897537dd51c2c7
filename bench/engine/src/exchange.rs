//! One request and the answer being sent to it.
//!
//! Whole answers, and the head of a stream, are written by the HTTP library's encoder. Its body encoder
//! holds chunks back until it has 8 KiB, so a stream's chunks are framed here and sent one by one.

use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use monoio::io::AsyncWriteRentExt;
use monoio::io::sink::Sink;
use monoio_http::common::body::{Body, StreamHint};
use monoio_http::common::error::HttpError;
use monoio_http::common::response::Response;
use monoio_http::h1::codec::encoder::GenericEncoder;
use monoio_http::h1::payload::{FixedPayload, Payload};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::fault::RequestFault;
use crate::scheduler::Refusal;
use crate::writer::Writer;

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: http::Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) keeps_alive: bool,
}

/// The answer to one request.
pub(crate) struct Exchange<'a> {
    pub(crate) engine: Rc<Engine>,
    pub(crate) fault: RequestFault,
    writer: &'a mut Writer,
    keeps_alive: bool,
    events_sent: u64,
}

/// Why a request has no ordinary answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client is told.
    Answer { status: u16, kind: &'static str, message: String },
    /// The connection is of no more use.
    Closed,
}

/// The body of a stream, of which the encoder only writes the head: its first read fails.
struct HeadOnly;

// === impl Exchange ===

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        engine: Rc<Engine>,
        writer: &'a mut Writer,
        fault: RequestFault,
        keeps_alive: bool,
    ) -> Exchange<'a> {
        writer.set_drip(fault.drips);
        Exchange { engine, fault, writer, keeps_alive, events_sent: 0 }
    }

    pub(crate) async fn json(&mut self, status: u16, body: &Value) -> Result<(), Failure> {
        self.whole(status, "application/json", body.to_string()).await
    }

    pub(crate) async fn text(&mut self, status: u16, body: String) -> Result<(), Failure> {
        self.whole(status, "text/plain; version=0.0.4; charset=utf-8", body).await
    }

    /// Tells the client about `failure`, unless the connection is closed.
    pub(crate) async fn fail(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Answer { status, kind, message } => {
                let error = json!({"message": message, "type": kind, "param": null, "code": status});
                self.json(status, &json!({"error": error})).await
            }
            Failure::Closed => Err(Failure::Closed),
        }
    }

    /// Sends the head of an event stream.
    pub(crate) async fn open_stream(&mut self) -> Result<(), Failure> {
        let response = self.response(200, "text/event-stream", HeadOnly)?;
        let mut encoder = GenericEncoder::new(&mut *self.writer);
        // The encoder has the head in its buffer when the body fails.
        let _ = encoder.send(response).await;
        Sink::<Response<HeadOnly>>::flush(&mut encoder).await?;
        Ok(())
    }

    /// Sends one unnamed event.
    pub(crate) async fn event(&mut self, data: &Value) -> Result<(), Failure> {
        self.raw_event(&format!("data: {data}\n\n")).await
    }

    /// Sends one named event.
    pub(crate) async fn named_event(&mut self, name: &str, data: &Value) -> Result<(), Failure> {
        self.raw_event(&format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// Sends OpenAI's end mark, then ends the stream.
    pub(crate) async fn close_stream_done(&mut self) -> Result<(), Failure> {
        self.raw_event("data: [DONE]\n\n").await?;
        self.close_stream().await
    }

    /// Ends the stream.
    pub(crate) async fn close_stream(&mut self) -> Result<(), Failure> {
        self.send(Bytes::from_static(b"0\r\n\r\n")).await
    }

    async fn raw_event(&mut self, event: &str) -> Result<(), Failure> {
        if self.fault.closes_after_events.is_some_and(|events| self.events_sent >= events) {
            return Err(Failure::Closed);
        }
        self.events_sent += 1;
        let mut chunk = BytesMut::with_capacity(event.len() + 16);
        chunk.extend_from_slice(format!("{:x}\r\n", event.len()).as_bytes());
        chunk.extend_from_slice(event.as_bytes());
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk.freeze()).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let (result, _) = self.writer.write_all(bytes).await;
        result.map(|_| ()).map_err(Failure::from)
    }

    async fn whole(&mut self, status: u16, content_type: &'static str, body: String) -> Result<(), Failure> {
        let body_bytes = body.len();
        let payload: Payload = Payload::Fixed(FixedPayload::new(Bytes::from(body)));
        let response = self.response(status, content_type, payload)?;
        if self.fault.closes_after_events.is_some() {
            // A cut must fall into the body: no head of ours is shorter than this.
            self.writer.cut_after(body_bytes / 2 + 64);
        }
        let mut encoder = GenericEncoder::new(&mut *self.writer);
        encoder.send(response).await?;
        Sink::<Response<Payload>>::flush(&mut encoder).await?;
        Ok(())
    }

    fn response<B>(&self, status: u16, content_type: &'static str, body: B) -> Result<Response<B>, Failure> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("x-sim-engine", HeaderValue::from(self.engine.port));
        if !self.keeps_alive {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::Answer { status: 400, kind: "BadRequestError", message: message.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Failure {
        Failure::Closed
    }
}

impl From<HttpError> for Failure {
    fn from(_: HttpError) -> Failure {
        Failure::Closed
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::QueueFull => Failure::Answer {
                status: 503,
                kind: "ServiceUnavailableError",
                message: "the request queue is full".to_owned(),
            },
            Refusal::PromptTooLong { tokens, tokens_max } => Failure::bad_request(format!(
                "this model's maximum context length is {tokens_max} tokens, the request needs {tokens}"
            )),
        }
    }
}

// === impl HeadOnly ===

impl Body for HeadOnly {
    type Data = Bytes;
    type Error = HttpError;

    async fn next_data(&mut self) -> Option<Result<Bytes, HttpError>> {
        Some(Err(HttpError::IOError(io::Error::other("only the head is encoded"))))
    }

    fn stream_hint(&self) -> StreamHint {
        StreamHint::Stream
    }
}
