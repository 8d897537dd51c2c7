//! Spans in OTLP's protobuf (opentelemetry-proto 1.x, collector/trace/v1), as far as they are used here.

use fleet::span::Span as Ended;
use prost::Message;
use prost::Oneof;

/// `SPAN_KIND_SERVER`
const KIND_SERVER: i32 = 2;
/// `STATUS_CODE_ERROR`
const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// The call that exports `spans`. `start_unix_ns` is what their times count from.
pub(super) fn request(spans: &[Ended], start_unix_ns: u64) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![text("service.name", "ringway"), text("service.version", env!("CARGO_PKG_VERSION"))],
    };
    let scope = Scope { name: "ringway".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = spans.iter().map(|ended| span(ended, start_unix_ns)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
        .encode_to_vec()
}

fn span(ended: &Ended, start_unix_ns: u64) -> Span {
    let context = &ended.context;
    let start = start_unix_ns.saturating_add(ended.start_us.saturating_mul(1_000));
    // Names of the semantic conventions for HTTP servers, and our own beside them.
    let mut attributes = vec![
        text("http.request.method", ended.method),
        text("http.route", ended.route),
        text("ringway.request_id", &ended.request_id),
        text("ringway.outcome", ended.outcome),
        number("ringway.attempts", ended.attempts.into()),
    ];
    if ended.status != 0 {
        attributes.push(number("http.response.status_code", ended.status.into()));
    }
    attributes.extend(ended.error.map(|code| text("error.type", code)));
    attributes.extend(ended.worker.as_ref().map(|worker| text("ringway.worker", &worker.url)));
    let micros = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    attributes.extend(ended.first_byte_us.map(|us| number("ringway.first_byte_us", micros(us))));
    attributes.extend(ended.queued_us.map(|us| number("ringway.queued_us", micros(us))));
    let is_error = ended.status >= 500 || ended.outcome == "broken";
    Span {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        parent_span_id: if context.parent_id == 0 {
            Vec::new()
        } else {
            context.parent_id.to_be_bytes().to_vec()
        },
        name: format!("{} {}", ended.method, ended.route),
        kind: KIND_SERVER,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(ended.duration_us.saturating_mul(1_000)),
        attributes,
        status: is_error
            .then(|| Status { message: ended.error.unwrap_or_default().to_owned(), code: STATUS_ERROR }),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Text(value.to_owned())) }) }
}

fn number(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Number(value)) }) }
}

#[cfg(test)]
mod tests {
    use fleet::span::SpanContext;

    use super::*;

    #[test]
    fn a_span_is_what_the_request_was() {
        let ended = Ended {
            context: SpanContext { trace_id: 1 << 100, span_id: 2, parent_id: 3 },
            method: "POST",
            route: "/v1/chat/completions",
            request_id: "chatcmpl-1".to_owned(),
            start_us: 5,
            duration_us: 10,
            first_byte_us: Some(7),
            queued_us: None,
            status: 502,
            error: Some("read_response_body_failed"),
            worker: None,
            attempts: 2,
            outcome: "complete",
        };
        let message = ExportRequest::decode(&request(&[ended], 1_000_000)[..]).expect("it is protobuf");
        let span = &message.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(span.trace_id, (1_u128 << 100).to_be_bytes());
        assert_eq!((span.span_id.len(), &span.parent_span_id[..]), (8, &3_u64.to_be_bytes()[..]));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_005_000, 1_015_000));
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(STATUS_ERROR));
        let of = |key: &str| span.attributes.iter().find(|attribute| attribute.key == key);
        let status = of("http.response.status_code").and_then(|found| found.value.clone()?.value);
        assert_eq!(status, Some(Value::Number(502)));
        assert!(of("ringway.queued_us").is_none());
    }
}
