//! A request that has ended, as a span.

use crate::context::SpanContext;
use crate::field::bytes;
use crate::field::bytes_len;
use crate::field::fixed64;
use crate::field::head;
use crate::field::number;
use crate::field::text;
use crate::field::varint;
use crate::field::varint_len;

/// Number of the field `attributes`.
const ATTRIBUTES: u32 = 9;
/// `SPAN_KIND_SERVER`
const KIND_SERVER: u64 = 2;
/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Where it stands in a trace.
    pub context: SpanContext,
    /// HTTP method.
    pub method: &'a str,
    /// Template of the path.
    pub route: &'a str,
    /// Request id.
    pub request_id: &'a str,
    /// When its head had arrived, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// From the start to the first byte of the answer, in microseconds.
    pub first_byte_us: Option<u64>,
    /// How long it waited to be admitted, in microseconds.
    pub queued_us: Option<u64>,
    /// Status sent to the client; 0 for none.
    pub status: u16,
    /// Why the gateway answered itself, or ended the answer.
    pub error: Option<&'a str>,
    /// Address of who answered, or failed to.
    pub worker: Option<&'a str>,
    /// Attempts made.
    pub attempts: u32,
    /// How it ended: `complete`, `client_left` or `broken`.
    pub outcome: &'a str,
}

impl Span<'_> {
    /// Appends it as one more of the `spans` of a `ScopeSpans`. `scratch` is where it is written before its length is
    /// known.
    pub fn push(&self, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        self.write(scratch);
        bytes(2, scratch, out);
    }

    fn write(&self, out: &mut Vec<u8>) {
        let context = &self.context;
        let end = self.start_unix_ns.saturating_add(self.duration_us.saturating_mul(1_000));
        bytes(1, &context.trace_id.to_be_bytes(), out);
        bytes(2, &context.span_id.to_be_bytes(), out);
        if context.parent_id != 0 {
            bytes(4, &context.parent_id.to_be_bytes(), out);
        }
        head(5, self.method.len() + 1 + self.route.len(), out);
        for part in [self.method, " ", self.route] {
            out.extend_from_slice(part.as_bytes());
        }
        varint(6, KIND_SERVER, out);
        fixed64(7, self.start_unix_ns, out);
        fixed64(8, end, out);
        // Names of the semantic conventions for HTTP servers, and our own beside them.
        text(ATTRIBUTES, "http.request.method", self.method, out);
        text(ATTRIBUTES, "http.route", self.route, out);
        text(ATTRIBUTES, "ringway.request_id", self.request_id, out);
        text(ATTRIBUTES, "ringway.outcome", self.outcome, out);
        number(ATTRIBUTES, "ringway.attempts", self.attempts.into(), out);
        if self.status != 0 {
            number(ATTRIBUTES, "http.response.status_code", self.status.into(), out);
        }
        if let Some(code) = self.error {
            text(ATTRIBUTES, "error.type", code, out);
        }
        if let Some(worker) = self.worker {
            text(ATTRIBUTES, "ringway.worker", worker, out);
        }
        if let Some(us) = self.first_byte_us {
            number(ATTRIBUTES, "ringway.first_byte_us", us, out);
        }
        if let Some(us) = self.queued_us {
            number(ATTRIBUTES, "ringway.queued_us", us, out);
        }
        if self.status >= 500 || self.outcome == "broken" {
            let message = self.error.unwrap_or_default();
            head(15, bytes_len(message.len()) + varint_len(STATUS_ERROR), out);
            bytes(2, message.as_bytes(), out);
            varint(3, STATUS_ERROR, out);
        }
    }
}
