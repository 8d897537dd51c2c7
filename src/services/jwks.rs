//! The issuer's keys, fetched and kept, and the tokens that shards hand over, verified by them.
//!
//! Invariants
//! - Keys that were good stay in use until others are fetched.
//! - However many tokens name unknown keys, the issuer is asked once in a while at most.
//! - Signatures are verified one at a time, on a thread of their own: a flood of tokens delays no health check.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use fleet::access::Principal;
use fleet::access::TOKENS_QUEUED_MAX;
use fleet::access::TokenCall;
use fleet::access::TokenError;
use fleet::access::TokenRoad;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tracing::info;
use tracing::warn;

use crate::auth::AuthConfig;
use crate::auth::TokenUrl;
use crate::auth::keys::Key;
use crate::auth::keys::KeySet;
use crate::auth::keys::Looks;
use crate::auth::token;
use crate::auth::token::TokenFault;
use crate::control::destination::Destinations;
use crate::services::ExtraTask;
use crate::services::client::Lookups;
use crate::services::limits;

/// What is known of an issuer at start.
#[derive(Debug)]
pub(crate) struct Issuer {
    config: Arc<AuthConfig>,
    jwks_uri: TokenUrl,
    keys: KeySet,
}

/// The part of an issuer's discovery document that is read.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Finds the issuer's keys. To be called before anything listens: without them nobody could use the control plane.
///
/// # Errors
/// Says why there are none.
pub(crate) fn find(config: AuthConfig) -> Result<Issuer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let http = client()?;
        let jwks_uri = match &config.jwks_uri {
            Some(uri) => uri.clone(),
            None => discover(&http, &config.issuer).await?,
        };
        let keys = fetch_keys(&http, &jwks_uri).await?;
        Ok(Issuer { config: Arc::new(config), jwks_uri, keys })
    })
}

/// The road for tokens, and the task at its end.
pub(crate) fn serve(issuer: Issuer) -> (TokenRoad, ExtraTask) {
    let (calls, inbox) = mpsc::channel::<TokenCall>(TOKENS_QUEUED_MAX);
    let road = TokenRoad::new(move |call| calls.try_send(call).is_ok());
    let task: ExtraTask = Box::new(move || Box::pin(run(issuer, inbox)));
    (road, task)
}

async fn run(issuer: Issuer, inbox: mpsc::Receiver<TokenCall>) {
    info!(issuer = %issuer.config.issuer, keys = issuer.keys.len(), "tokens open the control plane");
    match Verifier::new(issuer) {
        Ok(verifier) => {
            let verifier = Rc::new(verifier);
            tokio::join!(verifier.keep_keys(), answer_all(&verifier, inbox));
        }
        // Nobody takes tokens from now on, which refuses them all.
        Err(error) => warn!(%error, "tokens cannot be verified"),
    }
}

async fn answer_all(verifier: &Rc<Verifier>, mut inbox: mpsc::Receiver<TokenCall>) {
    let permits = Arc::new(Semaphore::new(TOKENS_QUEUED_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Some(call) = inbox.recv().await else { return };
        let verifier = Rc::clone(verifier);
        tokio::task::spawn_local(async move {
            let answer = verifier.verify(&call).await;
            // Whoever asked may have left.
            drop(call.reply.send(answer));
            drop(permit);
        });
    }
}

struct Verifier {
    config: Arc<AuthConfig>,
    http: reqwest::Client,
    jwks_uri: TokenUrl,
    keys: RefCell<KeySet>,
    looks: Cell<Looks>,
    start: Instant,
    /// Held by who asks the issuer.
    looking: Mutex<()>,
    /// Held by who uses a CPU.
    verifying: Semaphore,
}

// === impl Verifier ===

impl Verifier {
    fn new(issuer: Issuer) -> Result<Self, String> {
        Ok(Self {
            config: issuer.config,
            http: client()?,
            jwks_uri: issuer.jwks_uri,
            keys: RefCell::new(issuer.keys),
            looks: Cell::new(Looks { fetched: Duration::ZERO, tried: None }),
            start: Instant::now(),
            looking: Mutex::new(()),
            verifying: Semaphore::new(1),
        })
    }

    async fn verify(&self, call: &TokenCall) -> Result<Principal, TokenError> {
        let invalid = |fault: TokenFault| TokenError::Invalid(fault.message().into());
        let claimed = token::claimed(&call.token).map_err(invalid)?;
        let key = self.key(&claimed.key_id).await.ok_or_else(|| invalid(TokenFault::UnknownKey))?;
        let (config, token) = (Arc::clone(&self.config), call.token.clone());
        let Ok(_permit) = self.verifying.acquire().await else { return Err(TokenError::Unavailable) };
        if call.reply.is_canceled() {
            return Err(TokenError::Unavailable);
        }
        let verified =
            tokio::task::spawn_blocking(move || token::verify(&config, &token, &key, unix_s())).await;
        verified.map_err(|_| TokenError::Unavailable)?.map_err(invalid)
    }

    /// The key of this id, for which the issuer is asked if that was not done just now.
    async fn key(&self, id: &str) -> Option<Key> {
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        let _looking = self.looking.lock().await;
        // Who held the lock may have found it.
        let known = self.known(id);
        if known.is_some() || !self.looks.get().may_look(self.start.elapsed()) {
            return known;
        }
        self.look().await;
        self.known(id)
    }

    fn known(&self, id: &str) -> Option<Key> {
        self.keys.borrow().find(id).cloned()
    }

    /// Looks at the keys again when they are due, for as long as the thread lives.
    async fn keep_keys(&self) {
        loop {
            let due = self.looks.get().due();
            tokio::time::sleep(due.saturating_sub(self.start.elapsed())).await;
            let _looking = self.looking.lock().await;
            if self.looks.get().due() <= self.start.elapsed() {
                self.look().await;
            }
        }
    }

    async fn look(&self) {
        let fetched = fetch_keys(&self.http, &self.jwks_uri).await;
        let now = self.start.elapsed();
        let before = self.looks.get();
        match fetched {
            Ok(keys) => {
                info!(keys = keys.len(), "the issuer's keys were fetched");
                self.keys.replace(keys);
                self.looks.set(Looks { fetched: now, tried: Some(now) });
            }
            Err(error) => {
                warn!(%error, "the issuer's keys could not be fetched: the old ones stay in use");
                self.looks.set(Looks { tried: Some(now), ..before });
            }
        }
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .dns_resolver(Lookups(Destinations::Usual))
        .timeout(limits::ISSUER_TIMEOUT)
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| chain(&error))
}

/// Where the issuer says that its keys are (OpenID Connect Discovery 1.0 §4).
async fn discover(http: &reqwest::Client, issuer: &str) -> Result<TokenUrl, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let url = TokenUrl::parse(&url).map_err(|error| format!("{url}: {error}"))?;
    let body = get(http, &url).await?;
    let discovery: Discovery = serde_json::from_slice(&body)
        .map_err(|_| format!("{}: the answer is no discovery document", url.url()))?;
    if discovery.issuer != issuer {
        return Err(format!("{}: it is the document of another issuer", url.url()));
    }
    TokenUrl::parse(&discovery.jwks_uri).map_err(|error| format!("{}: its jwks_uri: {error}", url.url()))
}

async fn fetch_keys(http: &reqwest::Client, uri: &TokenUrl) -> Result<KeySet, String> {
    KeySet::parse(&get(http, uri).await?).map_err(|error| format!("{}: {error}", uri.url()))
}

/// The body of a good answer.
async fn get(http: &reqwest::Client, url: &TokenUrl) -> Result<Bytes, String> {
    let failed = |error: reqwest::Error| format!("{}: {}", url.url(), chain(&error.without_url()));
    let mut response = http.get(url.url().clone()).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{}: HTTP {}", url.url(), response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > limits::ANSWER_BYTES_MAX {
            return Err(format!("{}: the answer exceeds {} bytes", url.url(), limits::ANSWER_BYTES_MAX));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
