//! Reading a request: its head, then its whole body, within size and time limits.

use std::rc::Rc;

use api::error::ApiError;
use api::error::ErrorCode;
use wire::Chunk;
use wire::ChunkedDecoder;
use wire::HeadError;
use wire::RequestFraming;

use crate::client::Client;
use crate::limits;
use crate::rt::socket::Received;
use crate::rt::wait::Interrupt;
use crate::state::Shard;
use crate::stop::Stop;

/// Where the body of a request is.
#[derive(Debug)]
pub(crate) enum Body {
    /// In the read buffer behind the head, this long.
    Plain(usize),
    /// Chunked: decoded apart; the request ends at this offset of the read buffer.
    Decoded { bytes: Vec<u8>, end: usize },
}

/// Whether a request may begin so: with the letters of a method, behind empty lines at most (RFC 9112 §2.2).
///
/// What cannot become a request, such as TLS on a plain port, is told so at once instead of being waited for.
fn may_begin(buf: &[u8]) -> bool {
    let first = buf.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn must_begin(buf: &[u8]) -> Result<(), Stop> {
    let no_http = || Stop::reject(ErrorCode::MalformedRequest, "malformed request: this is no HTTP");
    may_begin(buf).then_some(()).ok_or_else(no_http)
}

/// Reads until `buf` holds a complete head and returns its length; none if there was nothing to read after all.
pub(crate) async fn head(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    buf: &mut Vec<u8>,
) -> Result<Option<usize>, Stop> {
    client.slot.busy_until(shard.clock.deadline_ms(shard.config().head_timeout));
    let mut searched = 0;
    // The connection is readable when an exchange begins, unless a pipelined request came with the last one.
    let mut try_read = buf.is_empty();
    if !try_read {
        if let Some(end) = wire::head_end(buf, 0) {
            return within_limit(end).map(Some);
        }
        must_begin(buf)?;
        searched = buf.len();
    }
    loop {
        if !try_read {
            match client.readable().await {
                Ok(()) => {}
                Err(Interrupt::Deadline) if buf.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) => {
                    return Err(Stop::reject(
                        ErrorCode::RequestTimeout,
                        "the request head took too long to arrive",
                    ));
                }
                Err(_) => return Err(Stop::Gone),
            }
        }
        try_read = false;
        buf.reserve(limits::BUFFER_BYTES / 2);
        match client.stream.recv_spare(buf) {
            Ok(Received::Bytes(n)) => shard.stats.received_bytes_total.add(n as u64),
            // The wake-up was for bytes that the last exchange took with it.
            Ok(Received::WouldBlock) if buf.is_empty() => return Ok(None),
            Ok(Received::WouldBlock) => continue,
            Ok(Received::End) | Err(_) => return Err(Stop::Gone),
        }
        if let Some(end) = wire::head_end(buf, searched) {
            return within_limit(end).map(Some);
        }
        must_begin(buf)?;
        searched = buf.len();
        within_limit(searched)?;
    }
}

fn within_limit(head_bytes: usize) -> Result<usize, Stop> {
    if head_bytes > limits::HEAD_BYTES_MAX {
        return Err(Stop::reject(
            ErrorCode::HeadTooLarge,
            format!("request line and headers exceed {} bytes", limits::HEAD_BYTES_MAX),
        ));
    }
    Ok(head_bytes)
}

/// A refused head as the client sees it.
pub(crate) fn head_error(error: &HeadError) -> ApiError {
    let code = match error.status() {
        431 => ErrorCode::HeadTooLarge,
        501 => ErrorCode::NotImplemented,
        505 => ErrorCode::VersionNotSupported,
        _ => ErrorCode::MalformedRequest,
    };
    ApiError::new(code, format!("malformed request: {error}"))
}

/// How much body a request may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPlan {
    pub(crate) framing: RequestFraming,
    pub(crate) head_len: usize,
    pub(crate) bytes_max: usize,
    /// The client waits for leave to send.
    pub(crate) expect_continue: bool,
}

/// The body, if `buf` holds all of it already: the common case, which needs no wait.
pub(crate) fn body_at_hand(plan: &BodyPlan, buf: &[u8]) -> Result<Option<Body>, Stop> {
    match plan.framing {
        RequestFraming::None => Ok(Some(Body::Plain(0))),
        RequestFraming::Length(length) => {
            let length = within_payload(length, plan.bytes_max)?;
            Ok((buf.len() - plan.head_len >= length).then_some(Body::Plain(length)))
        }
        RequestFraming::Chunked => Ok(None),
    }
}

/// How fast a body comes: one that keeps coming, byte by byte, would hold its memory for as long as it likes.
#[derive(Clone, Copy, Debug)]
struct Rate {
    begun_ms: u64,
    /// Least bytes per second after the grace; 0 for no bound.
    min: u64,
    received: u64,
}

impl Rate {
    fn is_too_slow(&self, now_ms: u64) -> bool {
        let counted_ms =
            now_ms.saturating_sub(self.begun_ms).saturating_sub(limits::BODY_RATE_GRACE.as_millis() as u64);
        self.received.saturating_mul(1000) < counted_ms.saturating_mul(self.min)
    }
}

/// Reads the rest of the body.
pub(crate) async fn body(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    plan: &BodyPlan,
    buf: &mut Vec<u8>,
) -> Result<Body, Stop> {
    if plan.expect_continue && buf.len() == plan.head_len {
        client.send(shard, b"HTTP/1.1 100 Continue\r\n\r\n", b"").await.map_err(|_| Stop::Gone)?;
        // What came while there was no room to say so.
        buf.append(&mut client.early);
    }
    let mut rate = Rate {
        begun_ms: shard.clock.coarse_ms(),
        min: shard.config().body_rate_min,
        received: buf.len() as u64,
    };
    match plan.framing {
        RequestFraming::None => Ok(Body::Plain(0)),
        RequestFraming::Length(length) => {
            let length = within_payload(length, plan.bytes_max)?;
            sized(shard, client, (plan.head_len + length, &mut rate), buf).await.map(|()| Body::Plain(length))
        }
        RequestFraming::Chunked => chunked(shard, client, (plan, &mut rate), buf).await,
    }
}

fn within_payload(length: u64, bytes_max: usize) -> Result<usize, Stop> {
    usize::try_from(length).ok().filter(|&length| length <= bytes_max).ok_or_else(|| too_large(bytes_max))
}

fn too_large(bytes_max: usize) -> Stop {
    Stop::reject(ErrorCode::PayloadTooLarge, format!("request body exceeds {bytes_max} bytes"))
}

async fn sized(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    (total, rate): (usize, &mut Rate),
    buf: &mut Vec<u8>,
) -> Result<(), Stop> {
    // Memory follows what has arrived, doubling, so that a length alone reserves little; prompts of common size
    // get their room at once.
    if buf.capacity() < total {
        buf.reserve_exact(total.min(limits::HEAD_BYTES_MAX * 16) - buf.len());
    }
    while buf.len() < total {
        if buf.capacity() == buf.len() {
            buf.reserve_exact((total - buf.len()).min(buf.len()));
        }
        more(shard, client, rate, buf).await?;
    }
    Ok(())
}

async fn chunked(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    (plan, rate): (&BodyPlan, &mut Rate),
    buf: &mut Vec<u8>,
) -> Result<Body, Stop> {
    let mut decoder = ChunkedDecoder::new();
    let mut bytes = Vec::new();
    loop {
        let mut input = &buf[plan.head_len..];
        loop {
            match decoder.next(&mut input) {
                Ok(Chunk::Data(data)) if bytes.len() + data.len() > plan.bytes_max => {
                    return Err(too_large(plan.bytes_max));
                }
                Ok(Chunk::Data(data)) => bytes.extend_from_slice(data),
                Ok(Chunk::End) => {
                    let end = buf.len() - input.len();
                    return Ok(Body::Decoded { bytes, end });
                }
                Ok(Chunk::NeedMore) => break,
                Err(error) => {
                    return Err(Stop::reject(
                        ErrorCode::MalformedRequest,
                        format!("malformed chunked body: {error}"),
                    ));
                }
            }
        }
        // What was decoded is not needed again; the head is.
        buf.truncate(plan.head_len);
        buf.reserve(limits::BUFFER_BYTES);
        more(shard, client, rate, buf).await?;
    }
}

/// Waits for more of the body and reads it into the spare room of `buf`.
async fn more(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    rate: &mut Rate,
    buf: &mut Vec<u8>,
) -> Result<(), Stop> {
    if rate.is_too_slow(shard.clock.coarse_ms()) {
        return Err(Stop::reject(ErrorCode::RequestTimeout, "the request body comes too slowly"));
    }
    client.shorten_deadline(shard.clock.deadline_ms(shard.config().body_timeout));
    loop {
        match client.stream.recv_spare(buf) {
            Ok(Received::Bytes(n)) => {
                shard.stats.received_bytes_total.add(n as u64);
                rate.received += n as u64;
                return Ok(());
            }
            Ok(Received::WouldBlock) => {}
            Ok(Received::End) | Err(_) => return Err(Stop::Gone),
        }
        match client.readable().await {
            Ok(()) => {}
            Err(Interrupt::Deadline) => {
                return Err(Stop::reject(
                    ErrorCode::RequestTimeout,
                    "the request body took too long to arrive",
                ));
            }
            Err(_) => return Err(Stop::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_be_slow_for_a_moment_only() {
        let grace_ms = limits::BODY_RATE_GRACE.as_millis() as u64;
        let rate = |received| Rate { begun_ms: 1000, min: 100, received };
        assert!(!rate(0).is_too_slow(1000 + grace_ms));
        assert!(rate(0).is_too_slow(1001 + grace_ms));
        assert!(!rate(500).is_too_slow(6000 + grace_ms));
        assert!(rate(499).is_too_slow(6000 + grace_ms));
        assert!(!Rate { min: 0, ..rate(0) }.is_too_slow(u64::MAX));
        assert!(!rate(0).is_too_slow(0), "time does not run backwards");
    }

    #[test]
    fn only_what_may_be_a_request_is_waited_for() {
        for begun in [&b""[..], b"\r\n", b"\r\nG", b"POST", b"patch ", b"~x"] {
            assert!(may_begin(begun), "{begun:?}");
        }
        for begun in [&b"\x16\x03\x01"[..], b"\r\n\0", b" GET", b"{", b"\xffGET", b"\"", b"("] {
            assert!(!may_begin(begun), "{begun:?}");
        }
    }
}
