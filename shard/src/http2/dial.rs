//! HTTP/2 connections to workers: each request a stream, which looks to its exchange like a connection of its own.

use std::cell::Cell;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;

use bytes::Bytes;
use h2::Reason;
use h2::client::ResponseFuture;
use h2::client::SendRequest;

use crate::http2::body::Inlet;
use crate::http2::body::Outlet;
use crate::http2::form;
use crate::http2::form::Delimiter;
use crate::limits;
use crate::limits::OWN_HEAD_LIMITS;
use crate::relay::BodyDecoder;
use crate::rt::io::Io;
use crate::rt::pipe;
use crate::rt::pipe::Pipe;
use crate::rt::socket::Socket;

/// One connection to a worker, as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    streams: Rc<Cell<usize>>,
}

/// Begins to speak HTTP/2 on a connection; what the worker says to it is seen by the first stream.
///
/// # Errors
/// When the connection breaks.
pub(crate) async fn dial(socket: Socket) -> io::Result<Multiplexed> {
    let scheme = if matches!(socket, Socket::Tls(_)) { "https" } else { "http" };
    let socket = Rc::new(socket);
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(limits::HTTP2_WORKER_STREAMS_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .initial_window_size(limits::HTTP2_WORKER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_WORKER_CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(limits::HTTP2_SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(limits::HTTP2_RESET_STREAMS_MAX);
    let (send, connection) =
        builder.handshake(Io::new(Rc::clone(&socket), Vec::new())).await.map_err(io::Error::other)?;
    monoio::spawn(async move {
        // Streams learn of its end by themselves.
        let _ = connection.await;
        socket.shutdown_write();
    });
    Ok(Multiplexed { send, scheme, streams: Rc::default() })
}

// === impl Multiplexed ===

impl Multiplexed {
    /// Whether the worker still takes streams.
    pub(crate) fn is_open(&mut self) -> bool {
        !matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Streams under way.
    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether another stream would not have to wait.
    pub(crate) fn has_room(&self) -> bool {
        self.streams() < self.send.current_max_send_streams().min(limits::HTTP2_WORKER_STREAMS_MAX)
    }

    /// A new stream.
    pub(crate) fn open(&self) -> Socket {
        let (inner, pipe) = pipe::pair(limits::HTTP2_PIPE_BYTES_MAX);
        let (send, scheme, streams) = (self.send.clone(), self.scheme, Rc::clone(&self.streams));
        streams.set(streams.get() + 1);
        monoio::spawn(async move {
            if let Err(broken) = run(send, scheme, &pipe).await {
                pipe.abort(broken.kind());
            }
            streams.set(streams.get() - 1);
        });
        Socket::Pipe(inner)
    }
}

/// Why a stream carries no (more) answer.
enum Fate {
    /// The worker has not looked at the request, or the connection is gone: it may be sent again.
    Refused,
    /// The worker broke it off.
    Failed,
    /// The exchange wants no more.
    Unwanted,
}

impl Fate {
    /// What the exchange sees.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused => ErrorKind::ConnectionReset,
            Self::Failed | Self::Unwanted => ErrorKind::ConnectionAborted,
        }
    }
}

impl From<h2::Error> for Fate {
    fn from(error: h2::Error) -> Self {
        let is_refused =
            error.is_go_away() || error.is_io() || error.reason() == Some(Reason::REFUSED_STREAM);
        if is_refused { Self::Refused } else { Self::Failed }
    }
}

async fn run(send: SendRequest<Bytes>, scheme: &'static str, pipe: &Pipe) -> Result<(), Fate> {
    let (text, early) = head(pipe).await?;
    let mut send = send.ready().await?;
    // Both are our own words: neither can fail but by a fault of ours.
    let head = wire::parse_request(&text, &OWN_HEAD_LIMITS).map_err(|_| Fate::Failed)?;
    let request = form::request(&head, scheme).ok_or(Fate::Failed)?;
    let is_head = head.method == "HEAD";
    let decoder = match head.framing {
        wire::RequestFraming::Length(length) if length > 0 => BodyDecoder::Length(length),
        _ => BodyDecoder::Done,
    };
    drop(head);
    let is_done = decoder.is_done();
    let (response, stream) = send.send_request(request, is_done)?;
    let upload = Outlet::new(stream, decoder, &early).map_err(|_| Fate::Failed)?;
    let mut transfer = Transfer { upload, is_uploaded: is_done, response, is_head, answer: None };
    poll_fn(|cx| transfer.poll(pipe, cx)).await
}

/// The complete head of the request, and what has come with it.
async fn head(pipe: &Pipe) -> Result<(Bytes, Bytes), Fate> {
    let mut text = Bytes::new();
    loop {
        poll_fn(|cx| pipe.poll_readable(cx)).await;
        let searched = text.len();
        let taken = pipe.take(limits::HTTP2_PIPE_BYTES_MAX);
        if taken.is_empty() {
            return Err(Fate::Unwanted);
        }
        text = if text.is_empty() { taken } else { [&text[..], &taken].concat().into() };
        if let Some(end) = wire::head_end(&text, searched) {
            let head = text.split_to(end);
            return Ok((head, text));
        }
    }
}

/// Both bodies of one stream.
struct Transfer {
    upload: Outlet,
    is_uploaded: bool,
    response: ResponseFuture,
    is_head: bool,
    answer: Option<Inlet>,
}

// === impl Transfer ===

impl Transfer {
    /// Ready when the answer is complete, whether or not the worker wanted all of the request.
    fn poll(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<Result<(), Fate>> {
        // A worker that wants no more of the request may still answer it.
        if !self.is_uploaded {
            self.is_uploaded = self.upload.poll(pipe, cx).is_ready();
        }
        let answer = match &mut self.answer {
            Some(answer) => answer,
            None => {
                let Poll::Ready(response) = Pin::new(&mut self.response).poll(cx) else {
                    return self.poll_unwanted(pipe, cx);
                };
                let (head, body) = response?.into_parts();
                let delimiter = Delimiter::of(&head.headers, !body.is_end_stream());
                let mut text = Vec::with_capacity(limits::HTTP2_HEAD_BYTES);
                form::write_response(&head, delimiter, self.is_head, &mut text);
                self.answer.insert(Inlet::new(text, delimiter, body))
            }
        };
        match answer.poll(pipe, cx) {
            Poll::Ready(Ok(())) => {
                pipe.shutdown_write();
                Poll::Ready(Ok(()))
            }
            // Part of the answer has been given: there is no sending it again.
            Poll::Ready(Err(_)) => Poll::Ready(Err(Fate::Failed)),
            Poll::Pending => self.poll_unwanted(pipe, cx),
        }
    }

    /// Ready when the exchange has dropped its end.
    fn poll_unwanted(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<Result<(), Fate>> {
        while self.is_uploaded {
            ready!(pipe.poll_readable(cx));
            // What the worker did not want is dropped.
            if pipe.take(limits::HTTP2_PIPE_BYTES_MAX).is_empty() {
                self.upload.reset(Reason::CANCEL);
                return Poll::Ready(Err(Fate::Unwanted));
            }
        }
        Poll::Pending
    }
}
