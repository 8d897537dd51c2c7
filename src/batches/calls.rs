//! Calls of clients, answered: the files and batches of whoever calls, and no others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use api::endpoint::Endpoint;
use api::endpoint::Handler;
use api::endpoint::PromptShape;
use api::error::reason_phrase;
use api::error::write_error_json;
use bytes::Bytes;
use fleet::batch::BatchBody;
use fleet::batch::BatchCall;
use fleet::batch::BatchReply;
use fleet::batch::BatchRequest;
use fleet::batch::Piece;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tracing::warn;

use super::Service;
use super::limits;
use super::record;
use super::record::Batch;
use super::record::Counts;
use super::record::PURPOSE_BATCH;
use super::record::PURPOSE_UNKNOWN;
use super::record::Results;
use super::record::Status;
use super::record::Times;
use super::record::is_id;
use super::record::new_id;
use super::store::Full;
use super::store::PageOf;
use super::store::Removed;
use super::store::StoreError;
use super::unix_s;
use super::upload;
use crate::admin::query;

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Why a call is not answered as it wishes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    param: Option<&'static str>,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into() }
    }

    /// A field of the request is not as it should be.
    pub(super) fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(400, "invalid_request", message) }
    }

    fn no_file(id: &str) -> Self {
        Self::new(404, "file_not_found", format!("File {id} not found"))
    }

    fn no_batch(id: &str) -> Self {
        Self::new(404, "batch_not_found", format!("Batch {id} not found"))
    }

    /// The disk does not do what it should.
    pub(super) fn disk(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(507, "storage_full", "the disk has no room for the file")
            }
            _ => {
                warn!(%error, "a file cannot be stored or read");
                Self::new(503, "storage_failed", "the file cannot be stored or read now; try again")
            }
        }
    }

    fn reply(self, is_short: bool) -> BatchReply {
        let kind = match self.status {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            status => reason_phrase(status),
        };
        let mut body = Vec::new();
        if is_short {
            body = json!({ "error": self.message }).to_string().into();
        } else {
            write_error_json(kind, self.code, &self.message, self.param, &mut body);
        }
        BatchReply {
            status: self.status,
            content_type: JSON,
            error_code: Some(self.code),
            body: BatchBody::Whole(body.into()),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        warn!(%error, "the database of files and batches failed");
        Self::new(503, "storage_failed", "the database of files and batches does not answer; try again")
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Files => {
                let message = format!("{} files are kept, as many as may be: delete some", limits::FILES_MAX);
                Self::new(507, "storage_full", message)
            }
            Full::Bytes => {
                let message =
                    format!("all files together may have {} bytes: delete some", limits::FILES_BYTES_MAX);
                Self::new(507, "storage_full", message)
            }
            Full::Batches => {
                let message = format!("{} batches wait, as many as may", limits::BATCHES_QUEUED_MAX);
                Self::new(429, "batch_queue_full", message)
            }
            Full::OwnersBatches => {
                let message =
                    format!("{} batches of yours wait, as many as may", limits::BATCHES_QUEUED_PER_OWNER_MAX);
                Self::new(429, "batch_queue_full", message)
            }
        }
    }
}

/// Answers calls until nobody can make any more.
pub(super) async fn answer_all(service: &Rc<Service>, mut inbox: mpsc::Receiver<BatchCall>) {
    let permits = Arc::new(Semaphore::new(limits::CALLS_PARALLEL_MAX));
    // The permit comes first: what has none waits on the road, whose length is bounded.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Some(call) = inbox.recv().await else { return };
        let service = Rc::clone(service);
        tokio::task::spawn_local(async move {
            // Whoever asked may have left.
            match call {
                BatchCall::Request(request, reply) => {
                    let answer = answer(&service, *request).await;
                    let answer = answer.unwrap_or_else(|refusal| refusal.reply(service.has_short_errors));
                    drop(reply.send(answer));
                }
                BatchCall::Piece(piece, reply) => drop(reply.send(read(piece).await)),
            }
            drop(permit);
        });
    }
}

async fn read(piece: Piece) -> io::Result<Bytes> {
    let Piece { file, offset, bytes } = piece;
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; bytes];
        let read = file.read_at(&mut piece, offset)?;
        piece.truncate(read);
        Ok(piece.into())
    });
    read.await.map_err(io::Error::other)?
}

async fn answer(service: &Rc<Service>, request: BatchRequest) -> Result<BatchReply, Refusal> {
    let endpoint = Endpoint::resolve(&request.path);
    let owner = request.owner.to_string();
    // The last segment of `/v1/files/ID`, or the one before the last of `/v1/files/ID/content`.
    let id = request.path.split('/').nth(3).unwrap_or_default().to_owned();
    let query = request.query.clone().unwrap_or_default();
    let value = match (endpoint, request.method) {
        (Endpoint::Files, "POST") => upload::upload(service, request).await?.object(),
        (Endpoint::Files, _) => list_files(service, owner, &query).await?,
        (Endpoint::File, "DELETE") => delete_file(service, id, owner).await?,
        (Endpoint::File, _) => file(service, id, owner).await?.object(),
        (Endpoint::FileContent, _) => return content(service, id, owner).await,
        (Endpoint::Batches, "POST") => create(service, request).await?.object(),
        (Endpoint::Batches, _) => list_batches(service, owner, &query).await?,
        (Endpoint::Batch, "DELETE") => delete_batch(service, id, owner).await?,
        (Endpoint::Batch, _) => batch(service, id, owner).await?.object(),
        (Endpoint::BatchCancel, _) => cancel(service, batch(service, id, owner).await?).await?.object(),
        _ => return Err(Refusal::new(404, "route_not_found", "no such path")),
    };
    Ok(BatchReply {
        status: 200,
        content_type: JSON,
        error_code: None,
        body: BatchBody::Whole(value.to_string().into()),
    })
}

async fn file(service: &Service, id: String, owner: String) -> Result<record::FileRecord, Refusal> {
    let found = if is_id("file-", &id) {
        let id = id.clone();
        service.store.ask(move |database| database.file(&id, &owner)).await?
    } else {
        None
    };
    found.ok_or_else(|| Refusal::no_file(&id))
}

async fn batch(service: &Service, id: String, owner: String) -> Result<Batch, Refusal> {
    let found = if is_id("batch_", &id) { service.batch(&id).await? } else { None };
    found.filter(|batch| batch.owner == owner).ok_or_else(|| Refusal::no_batch(&id))
}

async fn content(service: &Service, id: String, owner: String) -> Result<BatchReply, Refusal> {
    let path = service.folder.file(&file(service, id.clone(), owner).await?.id);
    let opened = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((Arc::new(file), bytes))
    });
    match opened.await.map_err(io::Error::other).flatten() {
        Ok((file, bytes)) => {
            let body = BatchBody::File(file, bytes);
            Ok(BatchReply { status: 200, content_type: BYTES, error_code: None, body })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::no_file(&id)),
        Err(error) => Err(Refusal::disk(&error)),
    }
}

async fn delete_file(service: &Service, id: String, owner: String) -> Result<Value, Refusal> {
    let found = file(service, id, owner.clone()).await?.id;
    let id = found.clone();
    match service.store.ask(move |database| database.remove_file(&id, &owner)).await? {
        Removed::Unknown => return Err(Refusal::no_file(&found)),
        Removed::Needed(batch) => {
            let message =
                format!("File {found} is the input of {batch}, which is not over: cancel that first");
            return Err(Refusal::new(409, "file_in_use", message));
        }
        Removed::Yes => {}
    }
    let (folder, id) = (service.folder.clone(), found.clone());
    // The file is gone for everybody; what the disk does about it is told in the log.
    let _ = tokio::task::spawn_blocking(move || folder.remove(&id)).await;
    Ok(json!({ "id": found, "object": "file", "deleted": true }))
}

/// The page that a query asks for.
fn page(owner: String, query: &str, (limit, limit_max): (u64, u64)) -> Result<PageOf, Refusal> {
    let limit = match query::parameter(query, "limit") {
        None => limit,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=limit_max).contains(limit)).ok_or_else(|| {
                Refusal::field("limit", format!("`limit` must be between 1 and {limit_max}"))
            })?
        }
    };
    let is_ascending = match query::parameter(query, "order").as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Refusal::field("order", "`order` must be asc or desc")),
    };
    Ok(PageOf { owner, after: query::parameter(query, "after"), limit, is_ascending })
}

/// A list of which one row more was asked for than it may have.
fn list(mut rows: Vec<Value>, limit: u64) -> Value {
    let has_more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let id = |row: Option<&Value>| row.map(|row| row["id"].clone());
    let (first_id, last_id) = (id(rows.first()), id(rows.last()));
    json!({ "object": "list", "data": rows, "first_id": first_id, "last_id": last_id, "has_more": has_more })
}

async fn list_files(service: &Service, owner: String, query: &str) -> Result<Value, Refusal> {
    let page = page(owner.clone(), query, (limits::FILES_PAGE, limits::FILES_PAGE_MAX))?;
    let purpose = query::parameter(query, "purpose");
    if let Some(after) = &page.after {
        file(service, after.clone(), owner).await?;
    }
    let limit = page.limit;
    let files = service.store.ask(move |database| database.files(&page, purpose.as_deref())).await?;
    Ok(list(files.iter().map(record::FileRecord::object).collect(), limit))
}

async fn list_batches(service: &Service, owner: String, query: &str) -> Result<Value, Refusal> {
    let page = page(owner.clone(), query, (limits::BATCHES_PAGE, limits::BATCHES_PAGE_MAX))?;
    if let Some(after) = &page.after {
        batch(service, after.clone(), owner).await?;
    }
    let limit = page.limit;
    let batches = service.store.ask(move |database| database.batches(&page)).await?;
    Ok(list(batches.iter().map(Batch::object).collect(), limit))
}

/// What a client says of a batch.
#[derive(Deserialize)]
struct Wish {
    input_file_id: Option<String>,
    endpoint: Option<String>,
    completion_window: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    /// Files are kept until they are deleted.
    output_expires_after: Option<Value>,
}

impl Wish {
    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let wish: Self = serde_json::from_slice(body).map_err(|error| {
            Refusal::new(400, "json_parse_error", format!("the body is no such JSON object: {error}"))
        })?;
        if wish.output_expires_after.is_some() {
            return Err(Refusal::field(
                "output_expires_after",
                "`output_expires_after` is not supported yet",
            ));
        }
        for (key, value) in wish.metadata.iter().flatten() {
            if key.len() > limits::METADATA_KEY_BYTES_MAX || value.len() > limits::METADATA_VALUE_BYTES_MAX {
                let message = format!(
                    "keys of `metadata` may have {} bytes, values {}",
                    limits::METADATA_KEY_BYTES_MAX,
                    limits::METADATA_VALUE_BYTES_MAX
                );
                return Err(Refusal::field("metadata", message));
            }
        }
        if wish.metadata.as_ref().is_some_and(|pairs| pairs.len() > limits::METADATA_PAIRS_MAX) {
            let message = format!("`metadata` may have {} pairs", limits::METADATA_PAIRS_MAX);
            return Err(Refusal::field("metadata", message));
        }
        Ok(wish)
    }
}

/// Whether the requests of a batch may go there: where a worker answers JSON with JSON.
fn is_endpoint(path: &str) -> bool {
    let endpoint = Endpoint::resolve(path);
    endpoint.template() == path
        && matches!(endpoint.handler(), Handler::Relay(shape) if shape != PromptShape::Opaque)
}

async fn create(service: &Rc<Service>, request: BatchRequest) -> Result<Batch, Refusal> {
    let wish = Wish::parse(&request.body)?;
    let missing = |name: &'static str| Refusal::field(name, format!("Missing required parameter '{name}'"));
    let input = wish.input_file_id.ok_or_else(|| missing("input_file_id"))?;
    let endpoint = wish.endpoint.ok_or_else(|| missing("endpoint"))?;
    if !is_endpoint(&endpoint) {
        let message = format!("no batch can ask {endpoint:?}: use an endpoint such as /v1/chat/completions");
        return Err(Refusal::field("endpoint", message));
    }
    let window = wish.completion_window.unwrap_or_else(|| limits::WINDOW.to_owned());
    let window_s = record::window_s(&window).ok_or_else(|| {
        let message = format!("{window:?} is no window such as 24h, from 1s to 7d");
        Refusal::field("completion_window", message)
    })?;
    let owner = request.owner.to_string();
    let input = file(service, input, owner.clone()).await?;
    if input.purpose != PURPOSE_BATCH && input.purpose != PURPOSE_UNKNOWN {
        let message = format!("File {} was uploaded for {}, not for batch", input.id, input.purpose);
        return Err(Refusal::field("input_file_id", message));
    }
    let now = unix_s();
    let batch = Batch {
        id: new_id("batch_"),
        owner,
        priority: request.priority.filter(|class| class.len() <= limits::PRIORITY_BYTES_MAX).map(Into::into),
        has_credentials: request.credentials.is_some(),
        endpoint,
        input_file_id: input.id,
        completion_window: window,
        metadata: wish.metadata,
        status: Status::Validating,
        ending: None,
        faults: Vec::new(),
        results: Results { output: new_id("file-"), errors: new_id("file-") },
        output_file_id: None,
        error_file_id: None,
        times: Times { created_at: now, expires_at: now + window_s, ..Times::default() },
        counts: Counts::default(),
    };
    if let Some(credentials) = request.credentials {
        service.keep(&batch.id, credentials);
    }
    let added = batch.clone();
    service.store.ask(move |database| database.add_batch(&added)).await??;
    service.news.notify_one();
    Ok(batch)
}

async fn cancel(service: &Service, batch: Batch) -> Result<Batch, Refusal> {
    let id = batch.id.clone();
    let updated =
        service.store.ask(move |database| database.update(&id, &[], |batch| batch.cancel(unix_s()))).await?;
    let (batch, is_heard) = updated.ok_or_else(|| Refusal::no_batch(&batch.id))?;
    if !is_heard {
        let message = format!("Batch {} is over: {}", batch.id, batch.status.name());
        return Err(Refusal::new(409, "batch_is_over", message));
    }
    service.news.notify_one();
    Ok(batch)
}

/// Ends a batch early, as the production-stack's router does; one that is over is forgotten.
async fn delete_batch(service: &Service, id: String, owner: String) -> Result<Value, Refusal> {
    let batch = batch(service, id, owner).await?;
    let id = batch.id.clone();
    if service.store.ask(move |database| database.remove_batch(&id)).await? {
        return Ok(json!({ "id": batch.id, "object": "batch", "deleted": true }));
    }
    Ok(cancel(service, batch).await?.object())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_where_json_is_answered_with_json() {
        for path in
            ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/generate"]
        {
            assert!(is_endpoint(path), "{path}");
        }
        for path in [
            "/workers",
            "/v1/models",
            "/v1/audio/speech",
            "/v1/batches",
            "v1/completions",
            "",
            "/flush_cache",
        ] {
            assert!(!is_endpoint(path), "{path}");
        }
    }

    #[test]
    fn queries_and_lists_are_bounded() {
        let limit_of = |query: &str| page(String::new(), query, (20, 100)).map(|page| page.limit);
        assert_eq!((limit_of(""), limit_of("limit=100")), (Ok(20), Ok(100)));
        for query in ["limit=0", "limit=101", "limit=x", "order=up"] {
            assert_eq!(limit_of(query).expect_err("refused").status, 400, "{query}");
        }
        let rows = || (0..3).map(|at| json!({ "id": at })).collect::<Vec<_>>();
        let page = list(rows(), 2);
        assert_eq!(
            (&page["has_more"], &page["last_id"], page["data"].as_array().map(Vec::len)),
            (&json!(true), &json!(1), Some(2))
        );
        let page = list(Vec::new(), 2);
        assert_eq!((&page["has_more"], &page["first_id"]), (&json!(false), &Value::Null));
    }

    #[test]
    fn metadata_is_bounded() {
        let many: BTreeMap<String, String> = (0..17).map(|at| (at.to_string(), String::new())).collect();
        for body in [
            json!({ "metadata": many }),
            json!({ "metadata": { "k".repeat(65): "" } }),
            json!({ "metadata": { "k": "v".repeat(513) } }),
            json!({ "metadata": { "k": 1 } }),
            json!({ "output_expires_after": { "anchor": "created_at", "seconds": 1 } }),
            json!({ "endpoint": 1 }),
            json!([1]),
        ] {
            assert!(Wish::parse(body.to_string().as_bytes()).is_err(), "{body}");
        }
        assert!(Wish::parse(br#"{"metadata":{"k":"v"},"more":1}"#).is_ok());
        assert!(Wish::parse(br#"{"metadata":null}"#).is_ok());
    }
}
