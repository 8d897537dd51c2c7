//! HTTP/2, towards clients and workers: every stream becomes a pipe that carries one exchange in the form of HTTP/1.1.
//!
//! So a request takes one way through the gateway whatever its transport, and is refused, routed, timed and told the
//! same. The `h2` library does the protocol; its guards against floods are set from [`crate::limits`].

mod body;
mod dial;
mod form;
mod serve;
mod stream;

pub(crate) use dial::Multiplexed;
pub(crate) use dial::dial;
pub(crate) use serve::serve;

/// How a connection with prior knowledge begins: it looks like the head of a request (RFC 9113 §3.4).
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Whether a connection that begins with `bytes` speaks HTTP/2.
pub(crate) fn is_preface(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE_HEAD)
}
