//! What a tenant may ask for in a minute: charged before a request waits or is routed, settled at its end.

use std::net::IpAddr;
use std::rc::Rc;

use api::endpoint::PromptShape;
use api::error::ApiError;
use api::error::ErrorCode;
use api::peek;
use fleet::tenants::Quota;
use fleet::tenants::TenantName;
use wire::RequestHead;

use crate::admit;
use crate::exchange::Incoming;
use crate::finish::Trace;
use crate::media;
use crate::rt::wait::yield_now;
use crate::state::Shard;

/// Who a request is from: whose key it came with, who it says, if that is trusted, or where it came from. Credentials
/// that nobody has checked say nothing: anybody could make up new ones.
pub(crate) fn name<'a>(
    key_of: Option<&'a str>,
    head: &'a RequestHead<'_>,
    header: Option<&str>,
    peer: IpAddr,
) -> TenantName<'a> {
    let named = header.and_then(|name| head.header(name)).filter(|name| !name.is_empty());
    match (key_of, named) {
        (Some(tenant), _) => TenantName::Auth(tenant.as_bytes()),
        (None, Some(name)) => TenantName::Header(name),
        (None, None) => TenantName::address(peer),
    }
}

/// Charges the request to its tenant, if tenants have limits.
///
/// # Errors
/// 429 when the tenant has had what it may.
pub(crate) async fn charge(
    shard: &Rc<Shard>,
    peer: IpAddr,
    incoming: &Incoming<'_, '_>,
    shape: PromptShape,
    trace: &mut Trace<'_>,
) -> Result<(), ApiError> {
    let Some(policies) = trace.config.tenant_policies.clone() else { return Ok(()) };
    let tenant = trace.tenant.clone();
    let name = name(tenant.as_deref(), incoming.head, trace.config.tenant_header.as_deref(), peer);
    let (rule, quota) = if policies.has_model_rules() {
        with_model(shard, incoming, shape, |model| policies.find(name, model))
    } else {
        policies.find(name, None)
    };
    if quota == Quota::default() {
        return Ok(());
    }
    trace.tokens = admit::tokens_of(incoming.body.len());
    let tokens = admit::estimate(incoming.body);
    let account = shard.tenants.account(name, rule);
    let now_us = admit::now_us(shard);
    let charged = loop {
        match shard.tenants.charge(account, quota, tokens, now_us) {
            Some(charged) => break charged,
            None => yield_now().await,
        }
    };
    match charged {
        Ok(charge) => {
            trace.charge = Some(charge);
            Ok(())
        }
        Err(due_us) => {
            trace.retry_after_s = due_us.div_ceil(1_000_000).min(u32::MAX.into()) as u32;
            let message = "the tenant has had what it may in a minute; try again later";
            Err(ApiError::new(ErrorCode::TenantRateLimited, message))
        }
    }
}

/// Settles what the request was charged, at its end.
pub(crate) fn settle(shard: &Shard, trace: &mut Trace<'_>) {
    let Some(charge) = trace.charge.take() else { return };
    // Whoever reached no worker, or had to make room for others, has had nothing.
    let is_unserved = trace.attempts.made() == 0 || trace.error == Some(ErrorCode::Preempted);
    shard.tenants.settle(charge, if is_unserved { 0 } else { trace.tokens }, admit::now_us(shard));
}

/// Calls `f` with the model that a body names. One that cannot be read names none: routing refuses it.
fn with_model<T>(
    shard: &Shard,
    incoming: &Incoming<'_, '_>,
    shape: PromptShape,
    f: impl FnOnce(Option<&str>) -> T,
) -> T {
    let is_json = shape != PromptShape::Opaque || media::is_json(incoming.head.header("content-type"));
    let spans = &mut shard.prompt.borrow_mut().spans;
    let peeked = if is_json {
        peek::peek(shape, incoming.body, &[], spans).unwrap_or_default()
    } else {
        peek::peek_opaque(incoming.body, spans)
    };
    f(peeked.model.as_deref())
}
