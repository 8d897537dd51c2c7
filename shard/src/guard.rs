//! Who may ask for what, decided from a request's head alone: before its body is read, and without a wait unless a
//! signed token has to be verified elsewhere.
//!
//! Invariants
//! - Keys are kept as digests, and compared in constant time.
//! - The credentials of the gateway's own keys go no further: see [`conceal`].
//! - An endpoint that a door does not serve is unknown there.

pub(crate) mod audit;
mod cors;
mod keys;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use api::endpoint::Access;
use api::endpoint::Endpoint;
use api::endpoint::Handler;
use api::error::ApiError;
use api::error::ErrorCode;
use fleet::access::Principal;
use fleet::access::Role;
use fleet::access::TokenError;
use fleet::batch::BATCH_HEADER;
use fleet::secret::Secret;
use wire::RequestHead;

use crate::client::Client;
use crate::finish::Trace;
use crate::guard::cors::Cors;
pub(crate) use crate::guard::cors::CorsBlock;
use crate::guard::keys::KeyTable;
use crate::limits;
use crate::rt::wait::complete;
use crate::state::Shard;

/// What the guard goes by.
#[derive(Clone, Debug, Default)]
pub struct GuardConfig {
    /// The gateway's key (`--api-key`): for inference, and for the control plane unless that has credentials of its own.
    pub api_key: Option<Secret>,
    /// Further keys for inference, each with its tenant (`--tenant-api-key`).
    pub tenant_keys: Vec<(Arc<str>, Secret)>,
    /// Keys of the control plane (`--control-plane-api-keys`).
    pub control_keys: Vec<(Principal, Secret)>,
    /// Whether signed tokens open the control plane (`--jwt-issuer`).
    pub accepts_tokens: bool,
    /// Origins whose pages may read answers; empty for any (`--cors-allowed-origins`).
    pub cors_origins: Vec<String>,
    /// Whether no page of another origin may read answers.
    pub is_cors_silent: bool,
    /// Whether the control plane has a listener of its own (`--admin-port`).
    pub has_admin_door: bool,
    /// Whether calls of the control plane are recorded.
    pub is_audited: bool,
    /// What the requests of batches show, if there are files and batches (`--enable-batch-api`).
    pub batch_key: Option<Secret>,
}

/// The guard of a process, shared by its shards.
#[derive(Debug)]
pub struct Guard {
    /// Who may ask workers for something, by tenant; none is anybody.
    inference: Option<KeyTable<Option<Arc<str>>>>,
    control: ControlAccess,
    cors: Cors,
    has_admin_door: bool,
    is_audited: bool,
    /// What the requests of batches show.
    batches: Option<KeyTable<()>>,
    /// Who has a key.
    tenants: HashSet<Arc<str>>,
}

/// Who may use the control plane.
#[derive(Debug)]
enum ControlAccess {
    /// Anybody, who is then called this.
    Open(Principal),
    /// Who has the gateway's own key.
    GatewayKey(KeyTable<Principal>),
    /// Principals with keys or tokens of their own.
    Principals { keys: KeyTable<Principal>, accepts_tokens: bool },
}

/// Through which listener a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The one for everybody.
    Main,
    /// The control plane's own.
    Admin,
}

/// Who asks, once let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Whose key it was, if it was a tenant's.
    pub(crate) tenant: Option<Arc<str>>,
    /// Who uses the control plane.
    pub(crate) principal: Option<Principal>,
}

/// What comes of looking at credentials.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    Passed(Caller),
    /// Somebody else has to verify this token.
    Signed(Secret),
    /// Refused, and who it was if that is known.
    Refused(ApiError, Option<Principal>),
}

const NO_CREDENTIALS: &str = "Missing or invalid Authorization header";

// === impl Guard ===

impl Guard {
    /// A guard. Origins must be as browsers send them.
    pub fn new(config: GuardConfig) -> Self {
        let principal = |name: &str, method: &str| Principal {
            name: name.into(),
            method: method.into(),
            role: Role::Admin,
        };
        let gateway_key = config.api_key.as_ref().map(|key| (principal("gateway", "api_key"), key.clone()));
        let names = config.tenant_keys.iter().map(|(tenant, _)| Arc::clone(tenant)).collect();
        let tenants = config.tenant_keys.into_iter().map(|(tenant, key)| (Some(tenant), key));
        let inference: Vec<_> = config.api_key.map(|key| (None, key)).into_iter().chain(tenants).collect();
        let control = match gateway_key {
            _ if config.accepts_tokens || !config.control_keys.is_empty() => ControlAccess::Principals {
                keys: KeyTable::new(config.control_keys),
                accepts_tokens: config.accepts_tokens,
            },
            Some(key) => ControlAccess::GatewayKey(KeyTable::new([key])),
            None => ControlAccess::Open(principal("anonymous", "none")),
        };
        Self {
            inference: (!inference.is_empty()).then(|| KeyTable::new(inference)),
            control,
            cors: if config.is_cors_silent { Cors::silent() } else { Cors::new(&config.cors_origins) },
            has_admin_door: config.has_admin_door,
            is_audited: config.is_audited,
            batches: config.batch_key.map(|key| KeyTable::new([((), key)])),
            tenants: names,
        }
    }

    /// `endpoint` if it is served at this door.
    pub(crate) fn at_door(&self, door: Door, endpoint: Endpoint) -> Endpoint {
        let is_served = match (door, endpoint.access()) {
            (_, Access::Public) => true,
            (Door::Main, Access::Inference) | (Door::Admin, Access::Control) => true,
            (Door::Main, Access::Control) => !self.has_admin_door,
            (Door::Admin, Access::Inference) => false,
        } && (self.batches.is_some() || endpoint.handler() != Handler::Service);
        if is_served { endpoint } else { Endpoint::Unknown }
    }

    /// The CORS headers of an answer to this request.
    pub(crate) fn cors_block(&self, head: &RequestHead<'_>) -> CorsBlock {
        self.cors.block(|| head.header("origin"))
    }

    /// Those of an answer to whoever it was.
    pub(crate) fn cors_block_of_anybody(&self) -> CorsBlock {
        self.cors.block(|| None)
    }

    /// The lines of a block.
    pub(crate) fn cors_lines(&self, block: CorsBlock) -> &[u8] {
        self.cors.lines(block)
    }

    fn check(&self, access: Access, authorization: Authorization<'_>) -> Check {
        match access {
            Access::Public => Check::Passed(Caller::default()),
            Access::Inference => self.check_inference(authorization),
            Access::Control => self.check_control(authorization),
        }
    }

    fn check_inference(&self, authorization: Authorization<'_>) -> Check {
        let Some(keys) = &self.inference else { return Check::Passed(Caller::default()) };
        let Authorization::Bearer(key) = authorization else {
            let message = "an API key is required: send it as `Authorization: Bearer KEY`";
            return refused(ErrorCode::InvalidApiKey, message);
        };
        match keys.find(key) {
            Some(tenant) => Check::Passed(Caller { tenant: tenant.clone(), principal: None }),
            None => refused(ErrorCode::InvalidApiKey, "the API key is not valid"),
        }
    }

    /// Who a batch makes a request for, by the header that shows it. Its tenant must still have a key, if anybody needs
    /// one.
    fn check_batch(&self, shown: &[u8]) -> Check {
        let not_allowed = |message| refused(ErrorCode::BatchNotAllowed, message);
        let shown = std::str::from_utf8(shown).unwrap_or_default();
        let (key, tenant) = shown.split_once(' ').map_or((shown, None), |(key, tenant)| (key, Some(tenant)));
        if self.batches.as_ref().is_none_or(|keys| keys.find(key.as_bytes()).is_none()) {
            return not_allowed("no batch of this gateway made the request");
        }
        match tenant.map(|name| (name, self.tenants.get(name))) {
            None => Check::Passed(Caller::default()),
            Some((_, Some(tenant))) => {
                Check::Passed(Caller { tenant: Some(Arc::clone(tenant)), principal: None })
            }
            Some((name, None)) if self.inference.is_none() => {
                Check::Passed(Caller { tenant: Some(name.into()), principal: None })
            }
            Some((_, None)) => not_allowed("the tenant of the batch has no key any more"),
        }
    }

    /// What a batch shows of itself, where there are batches.
    fn batch_header<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        self.batches.as_ref().and_then(|_| head.header(BATCH_HEADER))
    }

    fn check_control(&self, authorization: Authorization<'_>) -> Check {
        let (keys, accepts_tokens) = match &self.control {
            ControlAccess::Open(anybody) => return control_caller(anybody.clone()),
            ControlAccess::GatewayKey(keys) => (keys, false),
            ControlAccess::Principals { keys, accepts_tokens } => (keys, *accepts_tokens),
        };
        let Authorization::Bearer(token) = authorization else {
            return refused(ErrorCode::Unauthorized, NO_CREDENTIALS);
        };
        // What looks like a signed token is nothing else: there is no falling back to keys.
        if accepts_tokens && token.iter().filter(|&&byte| byte == b'.').count() == 2 {
            return match std::str::from_utf8(token) {
                Ok(token) if token.len() <= limits::TOKEN_BYTES_MAX => Check::Signed(token.into()),
                Ok(_) | Err(_) => refused(ErrorCode::Unauthorized, "Invalid JWT: it is not one"),
            };
        }
        match keys.find(token) {
            Some(principal) => control_caller(principal.clone()),
            None => refused(ErrorCode::Unauthorized, "Invalid authentication token"),
        }
    }
}

fn refused(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Check {
    Check::Refused(ApiError::new(code, message), None)
}

/// Lets a known principal in, if its role is enough.
fn control_caller(principal: Principal) -> Check {
    match principal.role {
        Role::Admin => Check::Passed(Caller { tenant: None, principal: Some(principal) }),
        Role::User => {
            let message = "Admin role required for control plane access";
            Check::Refused(ApiError::new(ErrorCode::Forbidden, message), Some(principal))
        }
    }
}

/// Finds out who asks.
///
/// # Errors
/// What to answer instead: 401, 403, or 503 when a token cannot be verified now.
pub(crate) async fn admit(
    shard: &Rc<Shard>,
    client: &Client<'_>,
    head: &RequestHead<'_>,
    trace: &Trace<'_>,
) -> Result<Caller, ApiError> {
    let guard = &trace.config.guard;
    let access = trace.endpoint.access();
    // Browsers ask what may be sent without credentials.
    if access == Access::Public || head.method == "OPTIONS" {
        return Ok(Caller::default());
    }
    let batch = guard.batch_header(head).filter(|_| access == Access::Inference);
    let check = match batch {
        Some(shown) => guard.check_batch(shown),
        None => guard.check(access, Authorization::of(head)),
    };
    let check = match check {
        Check::Signed(token) => verify(shard, client, token).await?,
        done => done,
    };
    match check {
        Check::Passed(caller) => Ok(caller),
        Check::Signed(_) => Err(unavailable()),
        Check::Refused(error, principal) => {
            if access == Access::Control && guard.is_audited {
                audit::denied(principal.as_ref(), head, trace, &error);
            }
            Err(error)
        }
    }
}

/// Has a token verified.
///
/// The client is not looked after meanwhile: what it sends may be the body of this very request.
async fn verify(shard: &Rc<Shard>, client: &Client<'_>, token: Secret) -> Result<Check, ApiError> {
    let answer = shard.ports.verify(token).ok_or_else(unavailable)?;
    client.shorten_deadline(shard.clock.deadline_ms(limits::TOKEN_TIMEOUT));
    let answer = complete(client.slot, async { answer.await.map_err(io::Error::other) }).await;
    client.restore_deadline();
    match answer {
        Ok(Ok(Ok(principal))) => Ok(control_caller(principal)),
        Ok(Ok(Err(TokenError::Invalid(reason)))) => {
            Ok(refused(ErrorCode::Unauthorized, format!("Invalid JWT: {reason}")))
        }
        Ok(Ok(Err(TokenError::Unavailable)) | Err(_)) | Err(_) => Err(unavailable()),
    }
}

fn unavailable() -> ApiError {
    ApiError::new(ErrorCode::AdminUnavailable, "the token cannot be verified now; try again")
}

/// Takes the client's `Authorization` out of a head when it holds a key of the gateway: no worker, no policy and no log
/// sees it. A worker with a key of its own gets that one, any other none.
pub(crate) fn conceal(guard: &Guard, head: &mut RequestHead<'_>) {
    if guard.inference.is_some() {
        head.headers.retain(|header| !header.is("authorization"));
    }
    if guard.batches.is_some() {
        head.headers.retain(|header| !header.is(BATCH_HEADER));
    }
}

/// What a head says about who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authorization<'a> {
    /// A key or token.
    Bearer(&'a [u8]),
    /// Nothing, something else, or more than one thing.
    Other,
}

impl<'a> Authorization<'a> {
    fn of(head: &RequestHead<'a>) -> Self {
        let mut values = head.headers.iter().filter(|header| header.is("authorization"));
        match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only.value),
            _ => Self::Other,
        }
    }

    fn parse(value: &'a [u8]) -> Self {
        const SCHEME: &[u8] = b"Bearer ";
        match value.split_at_checked(SCHEME.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                let token = token.trim_ascii();
                if token.is_empty() { Self::Other } else { Self::Bearer(token) }
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
