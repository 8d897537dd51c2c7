//! Push parsers over byte slices: HTTP/1.1 heads, chunked bodies, event streams, JSON scan and splice.
//!
//! Invariants
//! - Nothing here owns a socket, reads a clock, or knows what a field of the API means.
//! - No input panics, and none costs more than its limit in [`limits`].
//! - Every push parser gives the same answer however its input is cut.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod head;
pub mod request;
pub mod response;

pub mod chunked;
pub mod sse;

pub mod json;

pub mod limits;

pub use chunked::{Chunk, ChunkError, ChunkedDecoder, LAST_CHUNK, encode_chunk_head};
pub use head::{HeadError, HeadLimits, Header, Headers, Version, connection_names, head_end, is_hop_by_hop};
pub use request::{RequestFraming, RequestHead, parse_request};
pub use response::{ResponseFraming, ResponseHead, parse_response};
pub use sse::{SseEvent, SseEvents, SseFeed, SseScanner, write_data_event};
