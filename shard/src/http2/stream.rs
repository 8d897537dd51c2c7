//! One stream of a client's connection: its request into a pipe, the exchange over it, its answer out of it.

use std::future::Future;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use crate::http2::body::Inlet;
use crate::http2::body::Outlet;
use crate::http2::form;
use crate::http2::form::Delimiter;
use crate::limits;
use crate::limits::OWN_HEAD_LIMITS;
use crate::relay::BodyDecoder;
use crate::rt::pipe;
use crate::rt::pipe::Pipe;
use crate::rt::socket::Received;
use crate::rt::socket::Socket;

/// Carries one exchange, which `serve` runs over the socket it is given, to its end. Once the exchange is over, a client
/// that takes nothing of what is left for `stall_max` loses it.
pub(super) async fn run<F>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    stall_max: Duration,
    serve: impl FnOnce(Socket) -> F,
) where
    F: Future<Output = ()>,
{
    let (inner, pipe) = pipe::pair(limits::HTTP2_PIPE_BYTES_MAX);
    let mut exchange = Some(Box::pin(serve(Socket::Pipe(inner))));
    let (head, body) = request.into_parts();
    let delimiter = Delimiter::of(&head.headers, !body.is_end_stream());
    let mut text = Vec::with_capacity(limits::HTTP2_HEAD_BYTES);
    form::write_request(&head, delimiter, &mut text);
    let mut upload = Inlet::new(text, delimiter, body);
    let method = head.method.as_str().to_owned();
    let mut answer = Answer { respond, method, text: Bytes::new(), searched: 0, sending: Sending::Head };
    let mut patience = Patience { stall_max, sent: 0, timer: None };
    poll_fn(|cx| {
        let uploaded = upload.poll(&pipe, cx);
        if let Poll::Ready(Err(_)) = &uploaded {
            pipe.abort(ErrorKind::ConnectionReset);
        }
        poll_once(&mut exchange, cx);
        if answer.poll_end(&pipe, cx).is_pending() {
            if exchange.is_none() && patience.poll(answer.sent(), cx).is_ready() {
                answer.give_up(&pipe);
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        // The exchange may still have to put its worker's connection back, or to learn that its client is gone. After
        // an early refusal it takes the rest of the body for a moment, so that clients which send all of it first
        // are served.
        poll_once(&mut exchange, cx);
        if exchange.is_none() || uploaded.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn poll_once<F: Future<Output = ()>>(exchange: &mut Option<Pin<Box<F>>>, cx: &mut Context<'_>) {
    if exchange.as_mut().is_some_and(|exchange| exchange.as_mut().poll(cx).is_ready()) {
        // Dropping it closes its end of the pipe.
        *exchange = None;
    }
}

/// How long a client that takes nothing is waited for.
struct Patience {
    stall_max: Duration,
    /// What it had taken when the timer was set.
    sent: u64,
    timer: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Patience {
    /// Ready when `sent` has been the same for too long.
    fn poll(&mut self, sent: u64, cx: &mut Context<'_>) -> Poll<()> {
        if sent != self.sent {
            (self.sent, self.timer) = (sent, None);
        }
        let stall_max = self.stall_max;
        self.timer.get_or_insert_with(|| Box::pin(monoio::time::sleep(stall_max))).as_mut().poll(cx)
    }
}

/// An answer on its way out of the pipe.
struct Answer {
    respond: SendResponse<Bytes>,
    method: String,
    /// The head so far, and what has come with it.
    text: Bytes,
    searched: usize,
    sending: Sending,
}

enum Sending {
    /// The head is not complete.
    Head,
    /// The body.
    Body(Outlet),
    /// Nothing more is sent.
    Done,
}

// === impl Answer ===

impl Answer {
    /// Ready when nothing more will be sent: all of it has been, or it broke off on either side.
    fn poll_end(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll(pipe, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(reason)) => {
                match &mut self.sending {
                    Sending::Head => self.respond.send_reset(reason),
                    Sending::Body(body) => body.reset(reason),
                    Sending::Done => {}
                }
                pipe.abort(ErrorKind::ConnectionReset);
            }
            Poll::Pending => {
                ready!(match &mut self.sending {
                    Sending::Head => self.respond.poll_reset(cx).map(drop),
                    Sending::Body(body) => body.poll_reset(cx),
                    Sending::Done => Poll::Pending,
                });
                pipe.abort(ErrorKind::ConnectionReset);
            }
        }
        self.sending = Sending::Done;
        Poll::Ready(())
    }

    /// Bytes of the body that the client has taken.
    fn sent(&self) -> u64 {
        match &self.sending {
            Sending::Body(body) => body.sent(),
            Sending::Head | Sending::Done => 0,
        }
    }

    /// Ends the stream for a client that takes nothing.
    fn give_up(&mut self, pipe: &Pipe) {
        match &mut self.sending {
            Sending::Head => self.respond.send_reset(Reason::CANCEL),
            Sending::Body(body) => body.reset(Reason::CANCEL),
            Sending::Done => {}
        }
        pipe.abort(ErrorKind::TimedOut);
    }

    fn poll(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            match &mut self.sending {
                Sending::Done => return Poll::Ready(Ok(())),
                Sending::Body(body) => return body.poll(pipe, cx),
                Sending::Head => match pipe.peek() {
                    Ok(Received::Bytes(_)) => self.head(pipe)?,
                    Ok(Received::WouldBlock) => ready!(pipe.poll_readable(cx)),
                    Ok(Received::End) | Err(_) => return Poll::Ready(Err(Reason::INTERNAL_ERROR)),
                },
            }
        }
    }

    /// Takes what is there of the head, and sends it when it is complete.
    fn head(&mut self, pipe: &Pipe) -> Result<(), Reason> {
        let taken = pipe.take(limits::HTTP2_PIPE_BYTES_MAX);
        self.text = if self.text.is_empty() { taken } else { [&self.text[..], &taken].concat().into() };
        while let Some(end) = wire::head_end(&self.text, self.searched) {
            let text = self.text.split_to(end);
            self.searched = 0;
            let head = wire::parse_response(&text, &self.method, &OWN_HEAD_LIMITS)
                .map_err(|_| Reason::INTERNAL_ERROR)?;
            let response = form::response(&head).ok_or(Reason::INTERNAL_ERROR)?;
            if response.status().is_informational() {
                // A client that is gone by now is noticed below.
                let _ = self.respond.send_informational(response);
                continue;
            }
            let decoder = BodyDecoder::new(head.framing);
            let is_done = decoder.is_done();
            let stream = self.respond.send_response(response, is_done).map_err(|_| Reason::CANCEL)?;
            let early = std::mem::take(&mut self.text);
            self.sending =
                if is_done { Sending::Done } else { Sending::Body(Outlet::new(stream, decoder, &early)?) };
            return Ok(());
        }
        self.searched = self.text.len();
        if self.searched > OWN_HEAD_LIMITS.head_bytes_max { Err(Reason::INTERNAL_ERROR) } else { Ok(()) }
    }
}
