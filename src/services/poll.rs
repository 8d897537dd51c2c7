//! Asks a worker what it is busy with, and remembers where it answered.

use bytes::Bytes;
use engine::incarnation::Marks;
use engine::load::EngineLoad;
use engine::metrics::Page;
use engine::metrics::PageReader;
use reqwest::Method;

use crate::control::event::Failure;
use crate::control::poll::Endpoints;
use crate::control::poll::IDENTITY_PATHS;
use crate::control::poll::LOAD_PATHS;
use crate::control::poll::METRICS_PATHS;
use crate::control::poll::Place;
use crate::control::poll::Polled;
use crate::control::task::Target;
use crate::services::client::Client;
use crate::services::limits;

/// Polls one worker. The JSON comes first where there is any: it also counts the tokens of requests that wait.
pub(crate) async fn poll(client: &Client, target: &Target, asked: Endpoints) -> Polled {
    let ((json, load), (page, metrics)) = tokio::join!(
        find(asked.load, LOAD_PATHS, |path| client.body(&Method::GET, target, path)),
        find(asked.metrics, METRICS_PATHS, |path| page(client, target, path)),
    );
    let mut endpoints = Endpoints { load, metrics, ..asked };
    let mut marks = page.map(|page| page.marks);
    if metrics == Place::Nowhere {
        let ask = |path| client.body(&Method::GET, target, path);
        let (info, identity): (Option<Bytes>, _) = find(asked.identity, IDENTITY_PATHS, ask).await;
        endpoints.identity = identity;
        marks = info.map(|info| Marks::from_server_info(&info));
    }
    let said = json.and_then(|json: Bytes| EngineLoad::from_json(&json, target.rank)).unwrap_or_default();
    // The page is about all ranks together.
    let paged = page.filter(|_| target.rank.is_none()).map(|page| page.load);
    let load = said.or(paged.unwrap_or_default());
    let prefix = page.and_then(|page| page.prefix);
    Polled { load: load.is_known().then_some(load), marks, prefix, endpoints }
}

async fn page(client: &Client, target: &Target, path: &str) -> Result<Page, Failure> {
    let mut reader = PageReader::default();
    let take = |bytes: &[u8]| reader.push(bytes);
    client.read(&Method::GET, target, path, limits::METRICS_BYTES_MAX, take).await?;
    Ok(reader.finish())
}

/// Asks where the answer was found before, or else at every path until one is there.
async fn find<T, F: Future<Output = Result<T, Failure>>>(
    place: Place,
    paths: &[&'static str],
    ask: impl Fn(&'static str) -> F,
) -> (Option<T>, Place) {
    let tried = match place {
        Place::Nowhere => 0..0,
        Place::Untried => 0..paths.len(),
        Place::At(at) => at..paths.len().min(at + 1),
    };
    for at in tried {
        match ask(paths[at]).await {
            Ok(answer) => return (Some(answer), Place::At(at)),
            Err(Failure::Status(status)) if is_missing(status) => {}
            // It may be there: who is in trouble now is asked the same again.
            Err(_) => return (None, place),
        }
    }
    // Who answered elsewhere before may do so at another path now.
    let is_news = matches!(place, Place::At(_));
    (None, if is_news { Place::Untried } else { Place::Nowhere })
}

/// Whether a status says that there is no such endpoint; llama.cpp answers 501 for one that was not switched on.
fn is_missing(status: u16) -> bool {
    matches!(status, 404 | 405 | 501)
}
