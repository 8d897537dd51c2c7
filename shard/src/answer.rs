//! Sending an answer of the gateway's own: a page, an admin reply, an error.

use std::rc::Rc;

use api::error::ApiError;
use api::error::ErrorCode;

use crate::admit;
use crate::client::Client;
use crate::client::Next;
use crate::finish::End;
use crate::finish::Trace;
use crate::respond;
use crate::respond::Answer;
use crate::respond::Connection;
use crate::respond::Method;
use crate::stack::Reply;
use crate::state::Shard;

const JSON: &str = "application/json";

/// An answer of our own, before the connection and the request are known.
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) error_code: Option<&'a str>,
    pub(crate) extra: &'a [(&'a str, &'a str)],
}

pub(crate) async fn answer(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    connection: Connection,
    own: &Own<'_>,
    trace: &mut Trace<'_>,
) -> Next {
    let mut out = shard.take_buffer();
    let method = if trace.method == "HEAD" { Method::Head } else { Method::WithBody };
    let full = Answer {
        status: own.status,
        content_type: own.content_type,
        request_id: &trace.request_id,
        error_code: own.error_code,
        extra: own.extra,
        cors: trace.config.guard.cors_lines(trace.cors),
        connection,
        body: own.body,
        method,
    };
    respond::write(&full, &mut out);
    trace.status = own.status;
    let sent = client.send(shard, &out, b"").await;
    shard.give_buffer(out);
    if sent.is_err() {
        return Next::Close;
    }
    trace.end = End::Complete;
    if connection == Connection::Close { Next::Close } else { Next::KeepAlive }
}

/// Answers with an error in the one shape.
pub(crate) async fn answer_error(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    connection: Connection,
    error: &ApiError,
    trace: &mut Trace<'_>,
) -> Next {
    // Nobody needs the prompt any more.
    client.prefill = None;
    let preempted = admit::begin_answer(client, trace).err();
    let error = preempted.as_ref().unwrap_or(error);
    if error.code == ErrorCode::Preempted {
        admit::make_room(shard, trace);
    }
    trace.error = Some(error.code);
    let stack = trace.stack.clone();
    let reply = match &stack {
        None => Reply { status: error.code.status(), content_type: JSON, body: respond::error_body(error) },
        Some(stack) => Reply::of(error, trace.endpoint, stack.pairs),
    };
    let retry_after = admit::retry_after_s(shard, error.code, trace).to_string();
    let retry_after = ("retry-after", retry_after.as_str());
    let extra: &[(&str, &str)] = match error.code {
        ErrorCode::InvalidApiKey => &[("www-authenticate", "Bearer")],
        ErrorCode::Unauthorized => &[("www-authenticate", "Bearer realm=\"control-plane\"")],
        ErrorCode::MethodNotAllowed => &[("allow", trace.endpoint.methods())],
        ErrorCode::Preempted => &[retry_after, ("x-smg-preempted", "true")],
        ErrorCode::NoWorkers
        | ErrorCode::AdminUnavailable
        | ErrorCode::BatchesUnavailable
        | ErrorCode::ShuttingDown
        | ErrorCode::QueueFull
        | ErrorCode::QueueTimeout
        | ErrorCode::TenantRateLimited => &[retry_after],
        _ => &[],
    };
    let own = Own {
        status: reply.status,
        content_type: reply.content_type,
        body: &reply.body,
        error_code: stack.is_none().then_some(error.code.code()),
        extra,
    };
    answer(shard, client, connection, &own, trace).await
}
