//! Files and batches: a client's call goes to their service with its whole body, and a file comes back piece by piece.

use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use api::endpoint::Handler;
use api::error::ApiError;
use api::error::ErrorCode;
use bytes::Bytes;
use fleet::batch::BatchBody;
use fleet::batch::BatchReply;
use fleet::batch::BatchRequest;
use fleet::batch::PIECE_BYTES;
use fleet::batch::Piece;
use fleet::batch::Room;
use fleet::secret::Secret;
use wire::RequestHead;

use crate::admit::PRIORITY_HEADER;
use crate::answer::Own;
use crate::answer::answer;
use crate::answer::answer_error;
use crate::client::Client;
use crate::client::Next;
use crate::exchange::PREFLIGHT;
use crate::finish::End;
use crate::finish::Trace;
use crate::guard::Caller;
use crate::intake::Body;
use crate::limits;
use crate::respond;
use crate::respond::Answer;
use crate::respond::Connection;
use crate::respond::Method;
use crate::state::Shard;
use crate::stop::Stop;

/// Seconds after which a call that the service refused for the moment may be made again.
const RETRY_AFTER_S: &str = "1";

/// What a call says, without its body and without the buffer that it was read into.
pub(crate) struct Asked {
    path: Box<str>,
    query: Option<Box<str>>,
    content_type: Option<Box<str>>,
    owner: Box<str>,
    credentials: Option<Secret>,
    priority: Option<Box<str>>,
}

/// Whether the service answers this request.
pub(crate) fn is_asked(trace: &Trace<'_>) -> bool {
    trace.endpoint.handler() == Handler::Service
        && trace.method != PREFLIGHT
        && trace.endpoint.allows(trace.method)
}

impl Asked {
    /// A call with this head, from which the gateway's own keys have been taken.
    pub(crate) fn of(head: &RequestHead<'_>, caller: &Caller, trace: &mut Trace<'_>) -> Self {
        trace.tenant.clone_from(&caller.tenant);
        let text = |name: &str| head.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let named = trace.config.tenant_header.as_deref().and_then(text).filter(|name| !name.is_empty());
        let owner = match (&caller.tenant, named) {
            (Some(tenant), _) => format!("key:{tenant}"),
            (None, Some(name)) => format!("header:{name}"),
            (None, None) => String::new(),
        };
        Self {
            path: head.path().into(),
            query: head.query().map(Into::into),
            content_type: text("content-type").map(Into::into),
            owner: owner.into(),
            credentials: text("authorization").map(Secret::from),
            priority: text(PRIORITY_HEADER).map(Into::into),
        }
    }

    fn with(self, method: &'static str, body: Bytes, room: Room) -> BatchRequest {
        let Self { path, query, content_type, owner, credentials, priority } = self;
        BatchRequest { method, path, query, content_type, owner, credentials, priority, body, room }
    }
}

/// Takes a request's body out of the buffer; what follows it is early. A large one takes the buffer with it: no shard
/// stands still for a copy of many megabytes.
pub(crate) fn take_body(
    buf: &mut Vec<u8>,
    head_len: usize,
    body: Option<Body>,
    early: &mut Vec<u8>,
) -> Bytes {
    match body {
        Some(Body::Plain(len)) => {
            *early = buf[head_len + len..].to_vec();
            if len <= limits::BUFFER_BYTES {
                return Bytes::copy_from_slice(&buf[head_len..head_len + len]);
            }
            Bytes::from(std::mem::take(buf)).slice(head_len..head_len + len)
        }
        Some(Body::Decoded { bytes, end }) => {
            *early = buf[end..].to_vec();
            bytes.into()
        }
        None => Bytes::new(),
    }
}

/// Has the service answer.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    asked: Asked,
    body: Bytes,
    connection: Connection,
    trace: &mut Trace<'_>,
) -> Next {
    let method = trace.method;
    let reply = shard.ports.batches.as_ref().and_then(|road| {
        let room = road.room(body.len())?;
        road.request(asked.with(method, body, room))
    });
    let Some(reply) = reply else {
        return answer_error(shard, client, connection, &unavailable(), trace).await;
    };
    let BatchReply { status, content_type, error_code, body } = match client.beside(reply).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => return answer_error(shard, client, connection, &unavailable(), trace).await,
        Err(Stop::Reject(error)) => return answer_error(shard, client, connection, &error, trace).await,
        Err(Stop::Gone) => return Next::Close,
    };
    match body {
        BatchBody::Whole(body) => {
            let retry_after = [("retry-after", RETRY_AFTER_S)];
            let extra = if status == 503 { &retry_after[..] } else { &[] };
            let own = Own { status, content_type, body: &body, error_code, extra };
            answer(shard, client, connection, &own, trace).await
        }
        BatchBody::File(file, bytes) => {
            trace.status = status;
            match send(shard, client, (&file, bytes), (content_type, connection), trace).await {
                Ok(()) => {
                    trace.end = End::Complete;
                    if connection == Connection::Close { Next::Close } else { Next::KeepAlive }
                }
                Err(()) => Next::Close,
            }
        }
    }
}

fn unavailable() -> ApiError {
    ApiError::new(ErrorCode::BatchesUnavailable, "files and batches have too much to do; try again")
}

/// Sends a file: a piece is asked for when the one before it has been taken by the client.
///
/// # Errors
/// When the client is gone or the file cannot be read. The length has been said, so either ends the connection.
async fn send(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    (file, bytes): (&Arc<File>, u64),
    (content_type, connection): (&str, Connection),
    trace: &mut Trace<'_>,
) -> Result<(), ()> {
    let mut head = Vec::new();
    let answer = Answer {
        status: trace.status,
        content_type,
        request_id: &trace.request_id,
        error_code: None,
        extra: &[],
        cors: trace.config.guard.cors_lines(trace.cors),
        connection,
        body: b"",
        method: Method::WithBody,
    };
    respond::write_head(&answer, bytes, &mut head);
    client.send(shard, &head, b"").await?;
    let mut offset = 0;
    while offset < bytes {
        let wanted = PIECE_BYTES.min(usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES));
        let piece = Piece { file: Arc::clone(file), offset, bytes: wanted };
        let read = client.beside(read(shard, piece)).await.map_err(drop)?.map_err(drop)?;
        if read.is_empty() {
            return Err(());
        }
        client.send(shard, &read, b"").await?;
        offset += read.len() as u64;
    }
    Ok(())
}

/// A piece of a file, however often the road is full.
async fn read(shard: &Rc<Shard>, piece: Piece) -> io::Result<Bytes> {
    let Some(road) = &shard.ports.batches else { return Err(io::ErrorKind::NotConnected.into()) };
    loop {
        if let Some(answer) = road.piece(piece.clone()) {
            return answer.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        }
        monoio::time::sleep(limits::PIECE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_leaves_with_its_buffer_only_when_it_is_large() {
        for len in [0, 5, limits::BUFFER_BYTES, limits::BUFFER_BYTES + 1, 100_000] {
            let mut buf = [&b"head"[..], &vec![b'x'; len], b"early"].concat();
            let mut early = Vec::new();
            let body = take_body(&mut buf, 4, Some(Body::Plain(len)), &mut early);
            assert_eq!((body.len(), &early[..]), (len, &b"early"[..]));
            assert!(body.iter().all(|&byte| byte == b'x'));
            assert_eq!(buf.is_empty(), len > limits::BUFFER_BYTES);
        }
        let mut early = Vec::new();
        let decoded = Body::Decoded { bytes: b"body".to_vec(), end: 4 };
        let body = take_body(&mut b"headnext".to_vec(), 4, Some(decoded), &mut early);
        assert_eq!((&body[..], &early[..]), (&b"body"[..], &b"next"[..]));
    }
}
