//! OpenTelemetry's spans and W3C's trace context in their wire forms, written straight into buffers.
//!
//! The forms are those of opentelemetry-proto 1.x (`trace.proto`, `trace_service.proto`) and of W3C Trace Context. A span
//! is written once, where its request ended; whoever exports spans only frames what was written.

mod context;
mod export;
mod field;
mod span;

pub use self::context::SpanContext;
pub use self::context::TRACEPARENT_BYTES;
pub use self::export::Resource;
pub use self::span::Span;

#[cfg(test)]
mod tests;
