//! What a shard answers by itself: pages of its snapshot, and what may be sent.

use std::rc::Rc;

use api::endpoint::Endpoint;
use api::error::ErrorCode;

use crate::answer::Own;
use crate::answer::answer;
use crate::client::Client;
use crate::client::Next;
use crate::finish::Trace;
use crate::respond::Connection;
use crate::stack;
use crate::state::Shard;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What any path answers a browser that asks whether it may send a request (Fetch standard §4.8), and whoever else asks
/// for its options.
pub(crate) async fn preflight(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    connection: Connection,
    trace: &mut Trace<'_>,
) -> Next {
    trace.cors = trace.cors.for_preflight();
    let methods = trace.endpoint.methods();
    let allow = [("allow", methods)];
    let extra = if methods.is_empty() { &[] } else { &allow[..] };
    let own = Own { status: 200, content_type: TEXT, body: b"", error_code: None, extra };
    answer(shard, client, connection, &own, trace).await
}

/// What the shard answers from its snapshot.
pub(crate) async fn page(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    connection: Connection,
    trace: &mut Trace<'_>,
) -> Next {
    let stack = trace.stack.clone();
    if let Some(stack) = &stack
        && let Some(body) = stack::page(stack, trace.endpoint)
    {
        let own = Own { status: 200, content_type: JSON, body, error_code: None, extra: &[] };
        return answer(shard, client, connection, &own, trace).await;
    }
    let fleet = shard.fleet();
    let page = match trace.endpoint {
        Endpoint::Readiness => &fleet.readiness,
        Endpoint::HealthGenerate => &fleet.health_generate,
        Endpoint::Models => &fleet.models,
        _ => {
            let own = Own { status: 200, content_type: TEXT, body: b"OK", error_code: None, extra: &[] };
            return answer(shard, client, connection, &own, trace).await;
        }
    };
    let error_code = (page.status >= 400).then_some(ErrorCode::NoWorkers.code());
    let own = Own {
        status: page.status,
        content_type: page.content_type,
        body: &page.body,
        error_code,
        extra: &[],
    };
    answer(shard, client, connection, &own, trace).await
}
