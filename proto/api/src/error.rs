//! The one error shape: `{"error":{"message","type","code","param"}}`, with a closed list of codes.
//!
//! Code names follow SGLang Model Gateway's, so that clients and dashboards keep working; statuses follow what the
//! failure is (502 for a connection that failed, 504 for one that took too long).

use std::borrow::Cow;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $status:literal $code:literal;)*) => {
        /// Why the gateway answers a request itself instead of a worker. Its number indexes the error counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code, in table order.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// HTTP status.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }

            /// Name in the body, in `X-SMG-Error-Code` and in metrics.
            pub fn code(self) -> &'static str {
                match self { $(ErrorCode::$name => $code,)* }
            }
        }
    };
}

codes! {
    /// The bytes are not a well-formed, unambiguous HTTP request.
    MalformedRequest 400 "malformed_request";
    /// The body is not JSON, or not an object.
    JsonParse 400 "json_parse_error";
    /// A field the gateway reads has the wrong type or is missing.
    InvalidField 400 "invalid_request";
    /// The body is not one that a data-parallel rank can be named in.
    RankNotInserted 400 "dp_rank_insertion_failed";
    /// Several models are served and the request names none.
    ModelRequired 400 "model_required";
    /// Nobody serves this model.
    ModelNotFound 404 "model_not_found";
    /// No API key, or a wrong one.
    InvalidApiKey 401 "invalid_api_key";
    /// No credentials for the control plane, or wrong ones.
    Unauthorized 401 "unauthorized";
    /// A request of a batch whose tenant may not ask any more, or that no batch of this gateway made.
    BatchNotAllowed 401 "batch_not_allowed";
    /// Known, and not allowed.
    Forbidden 403 "forbidden";
    /// No such path.
    RouteNotFound 404 "route_not_found";
    /// The path exists; the method does not.
    MethodNotAllowed 405 "method_not_allowed";
    /// The client took too long to send its request.
    RequestTimeout 408 "request_timeout";
    /// The body is larger than `--max-payload-size`.
    PayloadTooLarge 413 "payload_too_large";
    /// As many requests wait for admission as may, or this one's place went to a tenant that holds fewer.
    QueueFull 429 "scheduler_queue_full";
    /// The request waited for admission longer than it may.
    QueueTimeout 408 "scheduler_queue_timeout";
    /// The request had to make room for one of a higher class before it was answered.
    Preempted 503 "scheduler_preempted";
    /// The tenant has had what it may have in a minute.
    TenantRateLimited 429 "tenant_rate_limit_exceeded";
    /// Request line and headers are larger than the limit.
    HeadTooLarge 431 "request_header_fields_too_large";
    /// The request needs something HTTP/1.1 defines and the gateway does not do.
    NotImplemented 501 "not_implemented";
    /// Another version of HTTP.
    VersionNotSupported 505 "http_version_not_supported";
    /// No worker is registered and routable for this request.
    NoWorkers 503 "no_available_workers";
    /// No connection to a worker could be made.
    UpstreamConnect 502 "call_upstream_connection_failed";
    /// A worker's connection ended before it answered.
    UpstreamClosed 502 "call_upstream_request_failed";
    /// A worker's answer was not HTTP.
    UpstreamProtocol 502 "call_upstream_decode_error";
    /// A worker's answer ended early.
    UpstreamBody 502 "read_response_body_failed";
    /// A worker took longer than the request timeout.
    UpstreamTimeout 504 "call_upstream_timeout";
    /// A prefill worker finds the request bad.
    PrefillBadRequest 400 "prefill_bad_request";
    /// A prefill worker does not know what the request is about.
    PrefillNotFound 404 "prefill_not_found";
    /// A prefill worker answered 500.
    PrefillInternalError 500 "prefill_internal_error";
    /// A prefill worker answered 502.
    PrefillBadGateway 502 "prefill_bad_gateway";
    /// A prefill worker has enough to do.
    PrefillUnavailable 503 "prefill_unavailable";
    /// A prefill worker answered another error.
    PrefillError 500 "prefill_error";
    /// A prefill worker could not be reached, or broke off.
    PrefillServerError 502 "prefill_server_error";
    /// A decode worker could not be reached, or broke off.
    DecodeServerError 502 "decode_server_error";
    /// The gateway is shutting down.
    ShuttingDown 503 "shutting_down";
    /// Control does not answer; routing goes on.
    AdminUnavailable 503 "admin_unavailable";
    /// The service of files and batches has too much to do.
    BatchesUnavailable 503 "batches_unavailable";
}

impl ErrorCode {
    /// Number of codes.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in the table.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// OpenAI's `type`: whose fault it is for 4xx, else the status phrase, as SGLang's gateway says it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::QueueFull | Self::QueueTimeout | Self::TenantRateLimited => "rate_limit_error",
            _ if self.status() < 500 => "invalid_request_error",
            _ => reason_phrase(self.status()),
        }
    }
}

/// An answer the gateway makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Which error.
    pub code: ErrorCode,
    /// What happened and what to do about it, for a human.
    pub message: Cow<'static, str>,
    /// The request field it is about.
    pub param: Option<&'static str>,
    /// A worker's own status, where that is passed on instead of the code's.
    pub worker_status: Option<u16>,
}

impl ApiError {
    /// An error about the whole request.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), param: None, worker_status: None }
    }

    /// An error about one field.
    pub fn about(code: ErrorCode, param: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), param: Some(param), worker_status: None }
    }

    /// The status of its answer.
    pub fn status(&self) -> u16 {
        self.worker_status.unwrap_or(self.code.status())
    }

    /// Appends the JSON body.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write_error_json(self.code.kind(), self.code.code(), &self.message, self.param, out);
    }
}

/// Appends an error body in the one shape.
pub fn write_error_json(kind: &str, code: &str, message: &str, param: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":{\"message\":");
    write_json_string(message, out);
    out.extend_from_slice(b",\"type\":");
    write_json_string(kind, out);
    out.extend_from_slice(b",\"code\":");
    write_json_string(code, out);
    out.extend_from_slice(b",\"param\":");
    match param {
        Some(param) => write_json_string(param, out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}}");
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The standard phrase of a status (RFC 9110 §15), or `Unknown`.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_json_whatever_the_message_holds() {
        let nasty = "a \"quote\", a \\ and \u{1}\n\r\t é";
        let mut out = Vec::new();
        ApiError::about(ErrorCode::InvalidField, "model", nasty).write_json(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
        assert_eq!(value["error"]["message"], nasty);
        assert_eq!(value["error"]["type"], "invalid_request_error");
        assert_eq!(value["error"]["code"], "invalid_request");
        assert_eq!(value["error"]["param"], "model");
    }

    #[test]
    fn codes_are_unique_and_have_phrases() {
        for (at, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.index(), at);
            assert_ne!(reason_phrase(code.status()), "Unknown");
            assert!(!ErrorCode::ALL[..at].iter().any(|other| other.code() == code.code()));
        }
    }
}
