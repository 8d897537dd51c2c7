//! The Prometheus listener: `GET /metrics` on its own port, on the services thread.

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use fleet::cell::Lifecycle;
use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::metrics::Sources;

/// Scrapers served at a time; a further one waits.
const SCRAPERS_MAX: usize = 32;
/// Longest wait for a scraper's request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// Pause between two looks whether another process serves by now.
const PHASE_PAUSE: Duration = Duration::from_millis(100);

/// Serves the metrics page until the runtime ends or another process has the listener.
pub(crate) async fn serve(listener: StdListener, sources: Sources, lifecycle: Arc<Lifecycle>) {
    let handed_over = async {
        while !lifecycle.is_handed_over() {
            tokio::time::sleep(PHASE_PAUSE).await;
        }
    };
    tokio::select! {
        () = accept(listener, sources) => {}
        () = handed_over => {}
    }
}

async fn accept(listener: StdListener, sources: Sources) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "metrics are not served");
            return;
        }
    };
    let scrapers = Arc::new(Semaphore::new(SCRAPERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&scrapers).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a scraper");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let sources = sources.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| std::future::ready(answer(&request, &sources)));
            // A scraper that breaks off harms nobody but itself.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" || request.method() != Method::GET {
        let mut response = Response::new(Full::from("GET /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut response = Response::new(Full::from(sources.render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    Ok(response)
}
