//! Calls that a shard hands to control, because their answer lives there.

use std::fmt;

use bytes::Bytes;
use futures_channel::oneshot;

/// Calls that wait for control at most; beyond it a shard answers 503.
pub const ADMIN_CALLS_QUEUED_MAX: usize = 256;

/// One admin request with the road back.
pub struct AdminCall {
    /// HTTP method.
    pub method: Box<str>,
    /// Path without query, percent-encoding as sent.
    pub path: Box<str>,
    /// Query without `?`.
    pub query: Option<Box<str>>,
    /// Whole body.
    pub body: Bytes,
    /// Request id, for the logs.
    pub request_id: Box<str>,
    /// Where the answer goes; dropped when the client has left.
    pub reply: oneshot::Sender<AdminReply>,
}

impl fmt::Debug for AdminCall {
    // Queries and bodies may hold keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("AdminCall");
        shown.field("method", &self.method).field("path", &self.path).field("request_id", &self.request_id);
        shown.finish_non_exhaustive()
    }
}

/// The answer to an [`AdminCall`].
#[derive(Clone, Debug)]
pub struct AdminReply {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// `Location` header, if any.
    pub location: Option<String>,
    /// Error code for `X-SMG-Error-Code`, if the answer is an error.
    pub error_code: Option<&'static str>,
    /// Body.
    pub body: Bytes,
}
