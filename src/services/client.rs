//! Calls to workers: health, information endpoints and the questions of admin calls.
//!
//! Only registered URLs are called: redirects are not followed and no proxy is taken from the environment.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use reqwest::header::AUTHORIZATION;
use reqwest::header::CONTENT_TYPE;
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use crate::control::config::Inference;
use crate::control::destination::Destinations;
use crate::control::event::Failure;
use crate::control::event::Probe;
use crate::control::task::Ask;
use crate::control::task::Lookup;
use crate::control::task::Question;
use crate::control::task::Target;
use crate::services::limits;
use crate::tls;
use crate::tls::Authorities;

const NOT_FOUND: u16 = 404;

/// The HTTP client of this thread.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    destinations: Destinations,
    authorities: Arc<Authorities>,
}

// === impl Probe ===

impl Probe {
    pub(crate) fn timed_out() -> Self {
        Self { addresses: None, answer: Err(Failure::Timeout) }
    }
}

// === impl Client ===

impl Client {
    pub(crate) fn try_new(destinations: Destinations, tls: &tls::Client) -> reqwest::Result<Self> {
        let authorities = Arc::clone(&tls.authorities);
        // HTTP/1.1 is all that is needed here.
        let mut tls = rustls::ClientConfig::clone(&tls.config);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Connections are not kept: a check on a kept connection would not notice a worker that takes no new ones.
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .dns_resolver(Lookups(destinations))
            .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, destinations, authorities })
    }

    /// Looks a worker up, if needed, and asks for its health.
    pub(crate) async fn probe(&self, target: &Target, ask: &Ask, lookup: Lookup) -> Probe {
        if target.url.starts_with("https:") {
            // Before shards are given this worker, and not here: files may lie on a disk that does not answer.
            let authorities = Arc::clone(&self.authorities);
            let loaded = tokio::task::spawn_blocking(move || authorities.load()).await;
            debug_assert!(loaded.is_ok(), "reading authorities does not panic");
        }
        let addresses = match lookup {
            Lookup::Needless => None,
            Lookup::Needed => match self.resolve(target).await {
                Ok(addresses) => Some(addresses),
                Err(failure) => return Probe { addresses: None, answer: Err(failure) },
            },
        };
        let answer = match ask {
            Ask::Path(path) => {
                self.send(Method::GET, target, path).await.map(|response| response.status().as_u16())
            }
            Ask::Inference(fixed) => self.infer(target, &fixed.asks).await,
            Ask::Nothing => Ok(200),
        };
        Probe { addresses, answer }
    }

    /// Asks for all of these, and returns the first status that is no good one; what is no JSON is no answer.
    async fn infer(&self, target: &Target, asks: &[Inference]) -> Result<u16, Failure> {
        for Inference { path, content_type, body } in asks {
            let request = self.request(Method::POST, target, path);
            let request = request.header(CONTENT_TYPE, *content_type).body(body.clone());
            let mut response = sent(request.send().await, target, path)?;
            if !response.status().is_success() {
                return Ok(response.status().as_u16());
            }
            let mut answer = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Body)? {
                answer.extend_from_slice(&chunk);
                if answer.len() > limits::ANSWER_BYTES_MAX {
                    return Err(Failure::Body);
                }
            }
            serde_json::from_slice::<IgnoredAny>(&answer).map_err(|_| Failure::Body)?;
        }
        Ok(200)
    }

    /// The addresses of a worker's name, those left out that workers may not have.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
        let found = tokio::net::lookup_host((&*target.host, target.port)).await;
        let mut found: Vec<SocketAddr> = found.map_err(|_| Failure::Resolve)?.collect();
        if found.is_empty() {
            return Err(Failure::Resolve);
        }
        found.retain(|address| self.destinations.allows(address.ip()));
        if found.is_empty() { Err(Failure::Destination) } else { Ok(found) }
    }

    /// Asks every target, and returns the answers in their order.
    pub(crate) async fn ask_all(
        &self,
        question: &Question,
        targets: &[Arc<Target>],
    ) -> Vec<Result<Bytes, Failure>> {
        let mut answers: Vec<_> = targets.iter().map(|_| Err(Failure::Busy)).collect();
        let permits = Arc::new(Semaphore::new(limits::ASKED_PARALLEL_MAX));
        let mut asked = JoinSet::new();
        for (at, target) in targets.iter().enumerate() {
            let (client, target, permits) = (self.clone(), Arc::clone(target), Arc::clone(&permits));
            let question = question.clone();
            asked.spawn_local(async move {
                let _permit = permits.acquire_owned().await;
                let answer = tokio::time::timeout(limits::ASK_TIMEOUT, client.ask(&question, &target)).await;
                (at, answer.unwrap_or(Err(Failure::Timeout)))
            });
        }
        while let Some(Ok((at, answer))) = asked.join_next().await {
            answers[at] = answer;
        }
        answers
    }

    async fn ask(&self, question: &Question, target: &Target) -> Result<Bytes, Failure> {
        let method = match question {
            Question::FlushCache | Question::Sleep(_) | Question::WakeUp(_) => Method::POST,
            Question::Load | Question::ModelInfo | Question::IsSleeping => Method::GET,
        };
        self.first_found(&method, target, &question.paths()).await
    }

    /// The body of the first of `paths` that is not answered 404.
    pub(crate) async fn first_found(
        &self,
        method: &Method,
        target: &Target,
        paths: &[impl AsRef<str>],
    ) -> Result<Bytes, Failure> {
        let mut result = Err(Failure::Status(NOT_FOUND));
        for path in paths {
            result = self.body(method, target, path.as_ref()).await;
            if !matches!(result, Err(Failure::Status(NOT_FOUND))) {
                break;
            }
        }
        result
    }

    pub(crate) async fn body(&self, method: &Method, target: &Target, path: &str) -> Result<Bytes, Failure> {
        let mut body = Vec::new();
        let take = |chunk: &[u8]| body.extend_from_slice(chunk);
        self.read(method, target, path, limits::ANSWER_BYTES_MAX, take).await?;
        Ok(body.into())
    }

    /// Reads the body of a good answer as it comes, up to `bytes_max`.
    pub(crate) async fn read(
        &self,
        method: &Method,
        target: &Target,
        path: &str,
        bytes_max: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let mut response = self.send(method.clone(), target, path).await?;
        if !response.status().is_success() {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Body)? {
            bytes += chunk.len();
            if bytes > bytes_max {
                return Err(Failure::Body);
            }
            take(&chunk);
        }
        Ok(())
    }

    async fn send(&self, method: Method, target: &Target, path: &str) -> Result<reqwest::Response, Failure> {
        sent(self.request(method, target, path).send().await, target, path)
    }

    fn request(&self, method: Method, target: &Target, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", target.url));
        match &target.authorization {
            Some(authorization) => request.header(AUTHORIZATION, &**authorization),
            None => request,
        }
    }
}

/// What came of sending a request.
fn sent<T>(result: reqwest::Result<T>, target: &Target, path: &str) -> Result<T, Failure> {
    // Only a refused connection says that nobody listens; who breaks off may be busy, and keeps its cache.
    result.map_err(|error| {
        debug!(worker = %target.url, path, ?error, "a call failed");
        match error {
            error if error.is_timeout() => Failure::Timeout,
            error if error.is_connect() => Failure::Connect,
            _ => Failure::Body,
        }
    })
}

/// Looks names up for the client's own connections, so that they go nowhere else than shards may: an answer that changes
/// between two look-ups opens no way around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookups(pub(crate) Destinations);

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let destinations = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> =
                found.filter(|address| destinations.allows(address.ip())).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
