//! Bodies between an HTTP/2 stream and a pipe, in both directions, no faster than the far side takes them.

use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::SendStream;

use crate::http2::form::Delimiter;
use crate::limits;
use crate::relay::BodyDecoder;
use crate::rt::pipe::Pipe;
use crate::rt::socket::Received;

/// Room for the words around a chunk.
const CHUNK_WORDS_BYTES: usize = 24;

/// A message on its way from a stream into a pipe.
pub(super) struct Inlet {
    body: RecvStream,
    delimiter: Delimiter,
    /// Text that the pipe has had no room for yet: at most a head, or a frame of data with the words around it.
    text: Bytes,
    /// Bytes of the body in it, for which the peer gets leave to send more once they are in the pipe.
    held: usize,
    /// All of the body has been taken.
    is_taken: bool,
}

/// The peer broke the message off.
#[derive(Debug)]
pub(super) struct BrokenOff;

// === impl Inlet ===

impl Inlet {
    /// A message with this head.
    pub(super) fn new(head: Vec<u8>, delimiter: Delimiter, body: RecvStream) -> Self {
        Self { body, delimiter, text: head.into(), held: 0, is_taken: delimiter == Delimiter::Nothing }
    }

    /// Ready when everything is in the pipe, or nobody wants it any more.
    ///
    /// # Errors
    /// When the peer breaks the message off.
    pub(super) fn poll(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        loop {
            while !self.text.is_empty() {
                match pipe.send(&[&self.text]) {
                    Ok(0) => ready!(pipe.poll_writable(cx)),
                    Ok(n) => self.text.advance(n),
                    Err(_) => return Poll::Ready(Ok(())),
                }
            }
            // A stream that is over needs no leave.
            let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.held));
            if self.is_taken {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.held = data.len();
                    self.text = self.framed(data);
                }
                Some(Err(_)) => return Poll::Ready(Err(BrokenOff)),
                None => {
                    self.is_taken = true;
                    if self.delimiter == Delimiter::Chunks {
                        self.text = Bytes::from_static(wire::LAST_CHUNK);
                    }
                }
            }
        }
    }

    fn framed(&self, data: Bytes) -> Bytes {
        if self.delimiter != Delimiter::Chunks || data.is_empty() {
            return data;
        }
        let mut chunk = Vec::with_capacity(data.len() + CHUNK_WORDS_BYTES);
        wire::encode_chunk_head(data.len(), &mut chunk);
        chunk.extend_from_slice(&data);
        chunk.extend_from_slice(b"\r\n");
        chunk.into()
    }
}

/// A body on its way from a pipe into a stream.
pub(super) struct Outlet {
    stream: SendStream<Bytes>,
    decoder: BodyDecoder,
    /// What has come out of its framing and waits for the peer's leave.
    ready: Bytes,
    /// Bytes that the peer has given leave for.
    sent: u64,
}

// === impl Outlet ===

impl Outlet {
    /// A body in the framing of `decoder`, of which `early` has come with the head.
    ///
    /// # Errors
    /// When that does not follow the framing.
    pub(super) fn new(
        stream: SendStream<Bytes>,
        mut decoder: BodyDecoder,
        early: &Bytes,
    ) -> Result<Self, Reason> {
        let ready = decode(&mut decoder, early)?;
        Ok(Self { stream, decoder, ready, sent: 0 })
    }

    /// Ready when the end of the body has been handed over.
    ///
    /// # Errors
    /// With the reason to reset the stream, when the pipe ends before the body does or the peer wants no more.
    pub(super) fn poll(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            let is_last = self.decoder.is_done();
            if is_last || !self.ready.is_empty() {
                ready!(self.send(is_last, cx))?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match pipe.peek() {
                Ok(Received::Bytes(_)) => {
                    self.ready = decode(&mut self.decoder, &pipe.take(limits::HTTP2_PIPE_BYTES_MAX))?;
                }
                Ok(Received::WouldBlock) => ready!(pipe.poll_readable(cx)),
                Ok(Received::End) | Err(_) => return Poll::Ready(Err(Reason::INTERNAL_ERROR)),
            }
        }
    }

    /// Sends what is ready; with its last byte the end, if `is_last`.
    fn send(&mut self, is_last: bool, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        if self.ready.is_empty() && is_last {
            return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|_| Reason::CANCEL));
        }
        while !self.ready.is_empty() {
            let room = self.stream.capacity().min(self.ready.len());
            if room == 0 {
                self.stream.reserve_capacity(self.ready.len());
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(Reason::CANCEL)),
                }
            }
            let piece = self.ready.split_to(room);
            self.sent += room as u64;
            let is_end = is_last && self.ready.is_empty();
            self.stream.send_data(piece, is_end).map_err(|_| Reason::CANCEL)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that the peer has given leave for.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Ready when the peer does not want the body any more.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

/// The body that `input` holds, in one piece: without a copy if it is one already.
fn decode(decoder: &mut BodyDecoder, input: &Bytes) -> Result<Bytes, Reason> {
    let mut left = &input[..];
    let mut next = || decoder.next(&mut left).map_err(|_| Reason::INTERNAL_ERROR);
    let Some(first) = next()? else { return Ok(Bytes::new()) };
    let Some(second) = next()? else { return Ok(input.slice_ref(first)) };
    let mut whole = Vec::with_capacity(input.len());
    whole.extend_from_slice(first);
    whole.extend_from_slice(second);
    while let Some(piece) = next()? {
        whole.extend_from_slice(piece);
    }
    Ok(whole.into())
}
