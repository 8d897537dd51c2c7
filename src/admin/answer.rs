//! Admin answers as bytes: JSON, text, and every error in the one shape.

use api::error::ApiError;
use api::error::ErrorCode;
use api::error::reason_phrase;
use api::error::write_error_json;
use fleet::admin::AdminReply;
use serde::Serialize;

use crate::control::state::members::AddError;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is wrong with a call about workers, in the codes of SGLang's workers API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkersError {
    BadRequest,
    NotFound,
    AlreadyExists,
    Full,
}

impl WorkersError {
    fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::Full => 503,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::NotFound => "WORKER_NOT_FOUND",
            Self::AlreadyExists => "WORKER_ALREADY_EXISTS",
            Self::Full => "TOO_MANY_WORKERS",
        }
    }
}

pub(crate) fn json(status: u16, value: &impl Serialize) -> AdminReply {
    let body = serde_json::to_vec(value).expect("admin answers are texts, numbers and lists of these");
    raw_json(status, body)
}

/// An answer that is JSON already.
pub(crate) fn raw_json(status: u16, body: impl Into<bytes::Bytes>) -> AdminReply {
    AdminReply { status, content_type: JSON, location: None, error_code: None, body: body.into() }
}

/// The metrics page.
pub(crate) fn metrics(page: String) -> AdminReply {
    AdminReply { content_type: METRICS, ..text(page) }
}

pub(crate) fn text(text: String) -> AdminReply {
    AdminReply { status: 200, content_type: TEXT, location: None, error_code: None, body: text.into() }
}

/// A refusal in plain text, as the first versions of SGLang's router gave.
pub(crate) fn text_error(text: String) -> AdminReply {
    let error_code = Some(WorkersError::BadRequest.code());
    AdminReply { status: 400, content_type: TEXT, location: None, error_code, body: text.into() }
}

pub(crate) fn workers_error(error: WorkersError, message: &str, param: Option<&str>) -> AdminReply {
    let status = error.status();
    let kind = if status < 500 { "invalid_request_error" } else { reason_phrase(status) };
    let mut body = Vec::new();
    write_error_json(kind, error.code(), message, param, &mut body);
    AdminReply { error_code: Some(error.code()), ..raw_json(status, body) }
}

pub(crate) fn api_error(error: &ApiError) -> AdminReply {
    let mut body = Vec::new();
    error.write_json(&mut body);
    AdminReply { error_code: Some(error.code.code()), ..raw_json(error.code.status(), body) }
}

pub(crate) fn not_found(path: &str) -> AdminReply {
    api_error(&ApiError::new(ErrorCode::RouteNotFound, format!("{path} is no admin endpoint")))
}

pub(crate) fn busy() -> AdminReply {
    api_error(&ApiError::new(ErrorCode::AdminUnavailable, "too many admin calls wait for workers; try again"))
}

pub(crate) fn handing_over() -> AdminReply {
    let why = "another process is taking over from this one; try again";
    api_error(&ApiError::new(ErrorCode::AdminUnavailable, why))
}

pub(crate) fn shutting_down() -> AdminReply {
    api_error(&ApiError::new(ErrorCode::ShuttingDown, "the gateway is shutting down"))
}

pub(crate) fn no_workers() -> AdminReply {
    api_error(&ApiError::new(ErrorCode::NoWorkers, "No available workers (none is registered and healthy)"))
}

/// Why a worker was not added.
pub(crate) fn not_added(error: AddError, url: &str) -> AdminReply {
    match error {
        AddError::Duplicate => {
            workers_error(WorkersError::AlreadyExists, &format!("Worker {url} already exists"), Some("url"))
        }
        AddError::Full => workers_error(WorkersError::Full, "no more workers can be registered", None),
        AddError::ShuttingDown => shutting_down(),
    }
}
