//! Media types that decide how a body is read.

/// Whether a body is JSON.
pub(crate) fn is_json(content_type: Option<&[u8]>) -> bool {
    content_type.is_some_and(|value| {
        const JSON: &[u8] = b"application/json";
        value.len() >= JSON.len() && value[..JSON.len()].eq_ignore_ascii_case(JSON)
    })
}

/// Whether a body is a stream of server-sent events.
pub(crate) fn is_event_stream(content_type: &[u8]) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    content_type.len() >= EVENT_STREAM.len()
        && content_type[..EVENT_STREAM.len()].eq_ignore_ascii_case(EVENT_STREAM)
}
