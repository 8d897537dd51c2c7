//! A request of a batch, made over loopback to the gateway's own listener: routing, retries, limits and metrics are
//! those of any other request.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::error::ErrorCode;
use arc_swap::ArcSwap;
use fleet::batch::BATCH_HEADER;
use fleet::cell::Lifecycle;
use fleet::cell::Phase;
use fleet::secret::Secret;
use reqwest::Response;
use reqwest::header::AUTHORIZATION;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use shard::ShardConfig;
use tokio::sync::Semaphore;
use tracing::debug;

use super::key;
use super::limits;
use super::lines::Line;
use super::lines::Outcome;
use super::record::Batch;
use super::record::Fault;
use crate::tls;

/// Names the class of a request.
const PRIORITY_HEADER: &str = "x-smg-priority";
/// Says which error the gateway answered with itself.
const ERROR_HEADER: &str = "x-smg-error-code";
const REQUEST_ID_HEADER: &str = "x-request-id";

/// The gateway, as its own client sees it.
pub(super) struct Gateway {
    /// None once no request is made any more.
    http: RefCell<Option<reqwest::Client>>,
    /// `http://address`, without a path.
    origin: String,
    settings: Arc<ArcSwap<ShardConfig>>,
    lifecycle: Arc<Lifecycle>,
    /// Held by each request under way.
    places: Semaphore,
}

/// Who asks for what: what the requests of one batch have in common.
pub(super) struct Asker {
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The tenant that clients are trusted to name.
    named: Option<HeaderValue>,
    /// Whether the batch came with credentials for workers which are gone.
    has_lost_credentials: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Asked {
    Over(Outcome),
    /// Neither this request nor any other of the batch may be made.
    Refused(Fault),
    /// The process ends: somebody else will make it.
    Left,
}

/// One attempt.
enum Attempt {
    Answered {
        status: u16,
        error: Option<String>,
        request_id: String,
        retry_after: Option<Duration>,
        body: Vec<u8>,
    },
    TooLarge,
    Broken(String),
}

impl Gateway {
    /// The gateway that listens at `listen`, with TLS if `server` says so.
    ///
    /// # Errors
    /// When there can be no client.
    pub(super) fn new(
        listen: SocketAddr,
        server: Option<&Arc<tls::Server>>,
        settings: Arc<ArcSwap<ShardConfig>>,
        lifecycle: Arc<Lifecycle>,
        parallel_max: usize,
    ) -> Result<Self, String> {
        let said = |error: reqwest::Error| error.to_string();
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .pool_max_idle_per_host(parallel_max)
            .pool_idle_timeout(limits::CONNECTION_IDLE_MAX)
            .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")));
        let (scheme, builder) = match server {
            None => ("http", builder),
            Some(server) => {
                let config = tls::client_of(server).map_err(|error| error.to_string())?;
                ("https", builder.tls_backend_preconfigured(config))
            }
        };
        Ok(Self {
            http: RefCell::new(Some(builder.build().map_err(said)?)),
            origin: format!("{scheme}://{}", reachable(listen)),
            settings,
            lifecycle,
            places: Semaphore::new(parallel_max),
        })
    }

    /// Whether requests may be made.
    pub(super) fn is_running(&self) -> bool {
        self.lifecycle.phase() == Phase::Running
    }

    /// Closes the connections that are kept: a process that hands over waits for its clients.
    pub(super) fn close(&self) {
        self.http.take();
    }

    /// Makes the request of a line, again and again while the gateway has no room or no worker for it.
    pub(super) async fn ask(self: Rc<Self>, asker: Rc<Asker>, line: Rc<Line>) -> Asked {
        let Ok(_place) = self.places.acquire().await else { return Asked::Left };
        let mut pause = limits::LINE_PAUSE;
        let mut attempts = 1;
        loop {
            if !self.is_running() {
                return Asked::Left;
            }
            let attempt = self.attempt(&asker, &line).await;
            let is_last = attempts >= limits::LINE_ATTEMPTS_MAX;
            let mut wanted = None;
            match attempt {
                // Another process may have taken the connection, in an upgrade.
                Attempt::Answered { error: Some(code), body, .. }
                    if code == ErrorCode::BatchNotAllowed.code() =>
                {
                    if attempts >= limits::NOT_ALLOWED_ATTEMPTS_MAX {
                        return Asked::Refused(Fault::new(&code, message(&body)));
                    }
                }
                Attempt::Answered { status: 401 | 403, .. } if asker.has_lost_credentials => {
                    let message = "workers ask for the credentials that the batch was created with, and these were \
                        not kept when the gateway was restarted: create it again";
                    return Asked::Refused(Fault::new("credentials_lost", message));
                }
                Attempt::Answered { status: 429 | 503, retry_after, .. } if !is_last => wanted = retry_after,
                Attempt::Answered { status, request_id, body, .. } => {
                    return Asked::Over(Outcome::Answered { status, request_id, body });
                }
                Attempt::TooLarge => {
                    let message = format!("the answer exceeds {} bytes", limits::ANSWER_BYTES_MAX);
                    return Asked::Over(Outcome::Failed { code: "answer_too_large", message });
                }
                Attempt::Broken(error) if is_last => {
                    let message = format!("the request could not be made: {error}");
                    return Asked::Over(Outcome::Failed { code: "request_failed", message });
                }
                Attempt::Broken(error) => debug!(error, "a request of a batch broke off"),
            }
            attempts += 1;
            self.rest(wanted.unwrap_or_default().max(pause).min(limits::LINE_PAUSE_MAX)).await;
            pause *= 2;
        }
    }

    /// Waits, unless the process ends meanwhile.
    async fn rest(&self, pause: Duration) {
        let end = tokio::time::Instant::now() + pause;
        while self.is_running() {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(limits::LOOK_INTERVAL)).await;
        }
    }

    async fn attempt(&self, asker: &Asker, line: &Line) -> Attempt {
        let Some(http) = self.http.borrow().clone() else {
            return Attempt::Broken("no request is made any more".to_owned());
        };
        let mut request = http
            .post(format!("{}{}", self.origin, asker.path))
            .header(CONTENT_TYPE, "application/json")
            .body(line.body.to_vec());
        for (name, value) in &asker.headers {
            request = request.header(name, value);
        }
        if let (Some(tenant), Some(header)) = (&asker.named, &self.settings.load().tenant_header) {
            request = request.header(header, tenant);
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Attempt::Broken(why(&error)),
        }
    }
}

impl Asker {
    /// Who asks for a batch. Credentials that are gone may not be needed: whoever uses OpenAI's clients sends some.
    pub(super) fn of(batch: &Batch, credentials: Option<&Secret>) -> Self {
        let secret = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let key = key();
        let shown = match batch.owner.strip_prefix("key:") {
            Some(tenant) => format!("{} {tenant}", &*key),
            None => key.to_string(),
        };
        let headers = [
            (HeaderName::from_static(BATCH_HEADER), secret(&shown)),
            (AUTHORIZATION, credentials.and_then(|credentials| secret(credentials))),
            (
                HeaderName::from_static(PRIORITY_HEADER),
                batch.priority.as_deref().and_then(|class| HeaderValue::from_str(class).ok()),
            ),
        ];
        Self {
            path: batch.endpoint.clone(),
            headers: headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            named: batch.owner.strip_prefix("header:").and_then(|name| HeaderValue::from_str(name).ok()),
            has_lost_credentials: batch.has_credentials && credentials.is_none(),
        }
    }
}

/// Where a listener can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(it) if it.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, it.port()).into(),
        SocketAddr::V6(it) if it.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, it.port()).into(),
        listen => listen,
    }
}

async fn read(mut response: Response) -> Attempt {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let status = response.status().as_u16();
    let (error, request_id) = (header(ERROR_HEADER), header(REQUEST_ID_HEADER).unwrap_or_default());
    let retry_after = header("retry-after").and_then(|after| after.parse().ok()).map(Duration::from_secs);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Attempt::Answered { status, error, request_id, retry_after, body },
            Ok(Some(chunk)) if body.len() + chunk.len() > limits::ANSWER_BYTES_MAX => {
                return Attempt::TooLarge;
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Attempt::Broken(why(&error)),
        }
    }
}

/// The innermost reason.
fn why(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What an error in the one shape says.
fn message(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"]["message"].as_str().unwrap_or("the gateway does not let the batch in").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;

    #[test]
    fn the_gateway_is_reached_where_it_listens() {
        for (listen, expected) in [
            ("0.0.0.0:30000", "127.0.0.1:30000"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:2", "10.0.0.1:2"),
            ("127.2.3.4:5", "127.2.3.4:5"),
        ] {
            let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
            assert_eq!(reachable(parse(listen)), parse(expected));
        }
    }

    #[test]
    fn a_batch_shows_its_tenant_and_its_credentials() {
        let of = |owner: &str| Batch {
            owner: owner.to_owned(),
            has_credentials: true,
            priority: Some("low".to_owned()),
            ..record::tests::batch()
        };
        let value = |asker: &Asker, name: &str| {
            let found = asker.headers.iter().find(|(header, _)| header == name)?;
            found.1.to_str().ok().map(str::to_owned)
        };
        let asker = Asker::of(&of("key:blue"), Some(&Secret::from("Bearer sk-1")));
        assert_eq!(value(&asker, BATCH_HEADER), Some(format!("{} blue", &*key())));
        assert_eq!(value(&asker, "authorization").as_deref(), Some("Bearer sk-1"));
        assert_eq!(value(&asker, PRIORITY_HEADER).as_deref(), Some("low"));
        assert!(!asker.has_lost_credentials && asker.named.is_none());
        let asker = Asker::of(&of("header:red"), None);
        assert_eq!(value(&asker, BATCH_HEADER), Some(key().to_string()));
        assert!(asker.has_lost_credentials && asker.named.is_some());
        assert!(asker.headers.iter().all(|(name, value)| value.is_sensitive() || name == PRIORITY_HEADER));
    }
}
