//! A bounded pair of byte queues in memory: what an exchange over an HTTP/2 stream reads and writes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;

use crate::rt::socket::Received;

/// One of the two ends. Dropping it is a close of both directions.
#[derive(Debug)]
pub(crate) struct Pipe {
    inbound: Rc<Queue>,
    outbound: Rc<Queue>,
}

/// One direction.
#[derive(Debug)]
struct Queue {
    state: RefCell<State>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    end: End,
    /// Nobody will read what is written.
    is_abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// It does not yet.
    #[default]
    Open,
    /// Behind the bytes that are queued.
    Closed,
    /// At once, with an error of this kind.
    Broken(io::ErrorKind),
}

/// Two ends, each direction holding so many bytes at most.
pub(crate) fn pair(bytes_max: usize) -> (Pipe, Pipe) {
    let queue = || Rc::new(Queue { state: RefCell::default(), bytes_max });
    let (up, down) = (queue(), queue());
    let here = Pipe { inbound: Rc::clone(&down), outbound: Rc::clone(&up) };
    (here, Pipe { inbound: up, outbound: down })
}

// === impl Queue ===

impl Queue {
    /// Puts in what there is room for of `pieces`.
    fn push(&self, pieces: &[&[u8]]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        if state.is_abandoned || state.end != End::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut pushed = 0;
        for piece in pieces {
            let room = self.bytes_max - state.bytes.len();
            let n = piece.len().min(room);
            state.bytes.extend_from_slice(&piece[..n]);
            pushed += n;
        }
        if pushed > 0 {
            wake(&mut state.reader);
        }
        Ok(pushed)
    }

    /// Hands what is queued to `take`, which says how much of it it took.
    fn pull(&self, take: impl FnOnce(&[u8]) -> usize) -> io::Result<Received> {
        let mut state = self.state.borrow_mut();
        if let End::Broken(kind) = state.end {
            return Err(kind.into());
        }
        if state.bytes.is_empty() {
            return Ok(if state.end == End::Closed { Received::End } else { Received::WouldBlock });
        }
        let taken = take(&state.bytes);
        state.bytes.advance(taken);
        if taken > 0 {
            wake(&mut state.writer);
        }
        Ok(Received::Bytes(taken))
    }

    fn end(&self, end: End) {
        let mut state = self.state.borrow_mut();
        if state.end == End::Open {
            state.end = end;
            if let End::Broken(_) = end {
                state.bytes = BytesMut::new();
            }
            wake(&mut state.reader);
        }
    }

    fn abandon(&self) {
        let mut state = self.state.borrow_mut();
        state.is_abandoned = true;
        state.bytes = BytesMut::new();
        wake(&mut state.writer);
    }
}

// === impl Pipe ===

impl Pipe {
    /// Receives into a slice.
    pub(crate) fn recv(&self, into: &mut [u8]) -> io::Result<Received> {
        self.inbound.pull(|bytes| {
            let n = bytes.len().min(into.len());
            into[..n].copy_from_slice(&bytes[..n]);
            n
        })
    }

    /// Receives into the spare capacity of `into` and lengthens it.
    pub(crate) fn recv_spare(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        self.inbound.pull(|bytes| {
            let n = bytes.len().min(into.capacity() - into.len());
            into.extend_from_slice(&bytes[..n]);
            n
        })
    }

    /// Looks whether bytes or a close are waiting.
    pub(crate) fn peek(&self) -> io::Result<Received> {
        let found = self.inbound.pull(|_| 0)?;
        Ok(if found == Received::Bytes(0) { Received::Bytes(1) } else { found })
    }

    /// Takes up to `bytes_max` bytes without copying them.
    pub(crate) fn take(&self, bytes_max: usize) -> Bytes {
        let mut state = self.inbound.state.borrow_mut();
        let n = state.bytes.len().min(bytes_max);
        let taken = state.bytes.split_to(n).freeze();
        if n > 0 {
            wake(&mut state.writer);
        }
        taken
    }

    /// Sends what there is room for; 0 when there is none.
    pub(crate) fn send(&self, pieces: &[&[u8]]) -> io::Result<usize> {
        self.outbound.push(pieces)
    }

    /// Tells the other end that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        self.outbound.end(End::Closed);
    }

    /// Breaks both directions: the other end sees an error of this kind, whatever is queued.
    pub(crate) fn abort(&self, kind: io::ErrorKind) {
        self.outbound.end(End::Broken(kind));
        self.inbound.abandon();
    }

    /// Ready when there is something to receive, or nothing more will come.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.inbound.state.borrow_mut();
        if !state.bytes.is_empty() || state.end != End::Open {
            return Poll::Ready(());
        }
        note(&mut state.reader, cx);
        Poll::Pending
    }

    /// Ready when there is room to send, or nobody reads any more.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.outbound.state.borrow_mut();
        if state.is_abandoned || state.bytes.len() < self.outbound.bytes_max {
            return Poll::Ready(());
        }
        note(&mut state.writer, cx);
        Poll::Pending
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.outbound.end(End::Closed);
        self.inbound.abandon();
    }
}

fn note(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_in_order_and_within_the_bound() {
        let (here, there) = pair(4);
        assert_eq!(here.send(&[b"ab", b"cdef"]).expect("open"), 4);
        assert_eq!(here.send(&[b"x"]).expect("open"), 0);
        assert_eq!(there.peek().expect("open"), Received::Bytes(1));
        let mut bytes = [0; 3];
        assert_eq!(there.recv(&mut bytes).expect("open"), Received::Bytes(3));
        assert_eq!(&bytes, b"abc");
        assert_eq!(here.send(&[b"xyz"]).expect("open"), 3);
        assert_eq!(&there.take(2)[..], b"dx");
        let mut rest = Vec::with_capacity(8);
        assert_eq!(there.recv_spare(&mut rest).expect("open"), Received::Bytes(2));
        assert_eq!(rest, b"yz");
        assert_eq!(there.recv(&mut bytes).expect("open"), Received::WouldBlock);
    }

    #[test]
    fn a_close_comes_behind_what_was_sent() {
        let (here, there) = pair(4);
        here.send(&[b"ab"]).expect("open");
        drop(here);
        let mut bytes = [0; 4];
        assert_eq!(there.recv(&mut bytes).expect("bytes first"), Received::Bytes(2));
        assert_eq!(there.recv(&mut bytes).expect("then the end"), Received::End);
        assert_eq!(there.send(&[b"x"]).expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_abort_comes_before_what_was_sent() {
        let (here, there) = pair(4);
        here.send(&[b"ab"]).expect("open");
        here.abort(io::ErrorKind::ConnectionReset);
        let mut bytes = [0; 4];
        assert_eq!(there.recv(&mut bytes).expect_err("broken").kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(there.peek().expect_err("broken").kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn whoever_waits_is_woken() {
        let (here, there) = pair(1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(there.poll_readable(&mut cx).is_pending());
        assert!(here.poll_writable(&mut cx).is_ready());
        here.send(&[b"a"]).expect("open");
        assert!(there.inbound.state.borrow().reader.is_none(), "woken");
        assert!(there.poll_readable(&mut cx).is_ready());
        assert!(here.poll_writable(&mut cx).is_pending());
        there.take(1);
        assert!(here.outbound.state.borrow().writer.is_none(), "woken");
        assert!(there.poll_readable(&mut cx).is_pending());
        drop(here);
        assert!(there.poll_readable(&mut cx).is_ready());
    }
}
