//! What is other for clients of vLLM's production-stack router: error bodies, other names of models, a request that
//! names its engine, and the line that is logged when an engine is chosen.
//!
//! Only looked at where `ShardConfig::has_stack` says so.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use api::endpoint::Endpoint;
use api::error::ApiError;
use api::error::ErrorCode;
use api::error::write_json_string;
use fleet::snapshot::Worker;
use fleet::stack::Pairs;
use fleet::stack::Stack;
use tracing::info;
use wire::RequestHead;

/// Target of the line about a choice.
pub(crate) const LOG_TARGET: &str = "routing";

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What an endpoint answers that asks neither the fleet nor a worker.
pub(crate) fn page(stack: &Stack, endpoint: Endpoint) -> Option<&[u8]> {
    match endpoint {
        Endpoint::Health => Some(&stack.health),
        Endpoint::Version => Some(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}").as_bytes()),
        _ => None,
    }
}

/// The engine that a request names in its query (`?id=`), as it stands there.
pub(crate) fn engine_id<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    head.query()?.split('&').find_map(|pair| pair.strip_prefix("id=")).filter(|id| !id.is_empty())
}

/// Why a body is refused before anybody is chosen for it; none if it is not.
pub(crate) fn refusal(endpoint: Endpoint, body: &[u8], is_json: bool) -> Option<ApiError> {
    if endpoint == Endpoint::Transcriptions && !is_json {
        let has = |field: &[u8]| memchr::memmem::find(body, field).is_some();
        let missing = |field: &str| {
            ApiError::new(
                ErrorCode::InvalidField,
                format!("Invalid request: missing '{field}' in form data."),
            )
        };
        return match (has(b"name=\"file\""), has(b"name=\"model\"")) {
            (false, _) => Some(missing("file")),
            (true, false) => Some(missing("model")),
            (true, true) => None,
        };
    }
    body.trim_ascii().is_empty().then(no_model)
}

/// The request names no model.
pub(crate) fn no_model() -> ApiError {
    ApiError::new(ErrorCode::ModelRequired, "Invalid request: missing 'model' in request body.")
}

/// Nobody serves this model.
pub(crate) fn unknown_model(endpoint: Endpoint, model: &str) -> ApiError {
    let message = if endpoint == Endpoint::Transcriptions {
        format!("No backend for model {model}")
    } else {
        format!("Model '{model}' not found. Available models can be listed at /v1/models.")
    };
    ApiError::new(ErrorCode::ModelNotFound, message)
}

/// Whoever serves this model cannot do so now.
pub(crate) fn unavailable(model: &str) -> ApiError {
    let message = format!("Model '{model}' is temporarily unavailable. Please try again later.");
    ApiError::new(ErrorCode::NoWorkers, message)
}

/// What a prefill engine's error is called, by how it hands over.
pub(crate) fn prefill_error(pairs: Option<Pairs>, said: &str) -> String {
    let what = if pairs == Some(Pairs::Shared) { "Prefiller error" } else { "Prefill failed" };
    format!("{what}: {said}")
}

/// An error as clients of this front end know it.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The answer for `error`.
    pub(crate) fn of(error: &ApiError, endpoint: Endpoint, pairs: Option<Pairs>) -> Self {
        use ErrorCode::*;
        let mut body = Vec::new();
        let mut object = |key: &str, message: &str| {
            body.extend_from_slice(b"{");
            write_json_string(key, &mut body);
            body.extend_from_slice(b":");
            write_json_string(message, &mut body);
            body.extend_from_slice(b"}");
        };
        let mut status = error.status();
        let mut content_type = JSON;
        match error.code {
            RouteNotFound => object("detail", "Not Found"),
            MethodNotAllowed => object("detail", "Method Not Allowed"),
            UpstreamConnect | UpstreamClosed | UpstreamProtocol | UpstreamBody | UpstreamTimeout
                if endpoint == Endpoint::Transcriptions =>
            {
                status = 503;
                object("error", &format!("Failed to connect to backend: {}", error.message));
            }
            UpstreamConnect | UpstreamClosed | UpstreamProtocol | UpstreamBody | UpstreamTimeout
            | DecodeServerError => {
                (status, content_type) = (500, TEXT);
                body.extend_from_slice(b"Internal Server Error");
            }
            JsonParse => object(
                "error",
                if error.message.ends_with("must be a JSON object") {
                    "Invalid request: request body must be a JSON object."
                } else {
                    "Invalid request: request body must be valid JSON."
                },
            ),
            PrefillBadRequest | PrefillNotFound | PrefillInternalError | PrefillBadGateway
            | PrefillUnavailable | PrefillError | PrefillServerError
                if pairs == Some(Pairs::Shared) =>
            {
                body.extend_from_slice(b"{\"error\":{\"message\":");
                write_json_string(&error.message, &mut body);
                body.extend_from_slice(
                    format!(",\"type\":\"prefiller_error\",\"code\":{status}}}}}").as_bytes(),
                );
            }
            _ => object("error", &error.message),
        }
        Self { status, content_type, body }
    }
}

/// Says who gets a request: the line that tools look for in the log.
pub(crate) fn log_choice(request_id: &str, session: Option<&str>, worker: &Worker, took_s: f64) {
    let session = session.unwrap_or("None");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let url = &worker.url;
    info!(
        target: LOG_TARGET,
        "Routing request {request_id} with session id {session} to {url} at {now}, process time = {took_s:.4}"
    );
}
