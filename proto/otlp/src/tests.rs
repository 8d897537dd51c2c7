//! What is written is what a protobuf decoder reads.

use prost::Message;
use prost::Oneof;

use crate::Resource as Exporter;
use crate::Span as Ended;
use crate::SpanContext;

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

fn ended() -> Ended<'static> {
    Ended {
        context: SpanContext { trace_id: 1 << 100, span_id: 2, parent_id: 3 },
        method: "POST",
        route: "/v1/chat/completions",
        request_id: "chatcmpl-1",
        start_unix_ns: 1_005_000,
        duration_us: 10,
        first_byte_us: Some(7),
        queued_us: None,
        status: 502,
        error: Some("read_response_body_failed"),
        worker: None,
        attempts: 2,
        outcome: "complete",
    }
}

fn exported(spans: &[Ended<'_>]) -> ExportRequest {
    let (mut written, mut scratch, mut request) = (Vec::new(), Vec::new(), Vec::new());
    spans.iter().for_each(|span| span.push(&mut scratch, &mut written));
    Exporter::new("ringway", "1.2.3").begin_request(written.len(), &mut request);
    request.extend_from_slice(&written);
    ExportRequest::decode(&request[..]).expect("it is protobuf")
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}

#[test]
fn a_span_is_what_the_request_was() {
    let request = exported(&[ended()]);
    let resource = request.resource_spans[0].resource.as_ref().expect("a resource");
    let keys: Vec<_> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["service.name", "service.version"]);
    let scope_spans = &request.resource_spans[0].scope_spans[0];
    assert_eq!(scope_spans.scope, Some(Scope { name: "ringway".to_owned(), version: "1.2.3".to_owned() }));
    let span = &scope_spans.spans[0];
    assert_eq!((span.name.as_str(), span.kind), ("POST /v1/chat/completions", 2));
    assert_eq!(span.trace_id, (1_u128 << 100).to_be_bytes());
    assert_eq!(
        (&span.span_id[..], &span.parent_span_id[..]),
        (&2_u64.to_be_bytes()[..], &3_u64.to_be_bytes()[..])
    );
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_005_000, 1_015_000));
    let status = Status { message: "read_response_body_failed".to_owned(), code: 2 };
    assert_eq!(span.status, Some(status));
    assert_eq!(attribute(span, "http.response.status_code"), Some(Value::Number(502)));
    assert_eq!(attribute(span, "ringway.request_id"), Some(Value::Text("chatcmpl-1".to_owned())));
    assert_eq!(attribute(span, "ringway.first_byte_us"), Some(Value::Number(7)));
    assert_eq!(attribute(span, "ringway.queued_us"), None);
}

/// Lengths of one, two and three bytes, and numbers of one to nine.
#[test]
fn values_of_every_length_are_read_back() {
    let url = "u".repeat(20_000);
    for length in [0, 1, 127, 128, 300, 16_383, 16_384, 20_000] {
        for shift in 0..64 {
            let first_byte_us = Some(u64::MAX >> shift);
            let good =
                Ended { worker: Some(&url[..length]), first_byte_us, status: 200, error: None, ..ended() };
            let request = exported(&[good, ended(), good]);
            let spans = &request.resource_spans[0].scope_spans[0].spans;
            assert_eq!(spans.len(), 3);
            assert_eq!(spans[0], spans[2]);
            assert_eq!(attribute(&spans[0], "ringway.worker"), Some(Value::Text(url[..length].to_owned())));
            let number = i64::try_from(u64::MAX >> shift).unwrap_or(i64::MAX);
            assert_eq!(attribute(&spans[0], "ringway.first_byte_us"), Some(Value::Number(number)));
            assert_eq!(spans[0].status, None);
        }
    }
}

#[test]
fn what_has_no_parent_names_none() {
    let root = SpanContext { parent_id: 0, ..ended().context };
    let request = exported(&[Ended { context: root, ..ended() }]);
    assert!(request.resource_spans[0].scope_spans[0].spans[0].parent_span_id.is_empty());
}
