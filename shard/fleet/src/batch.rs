//! Calls that a shard hands to the service of files and batches, and the road to it.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_channel::oneshot;

use crate::secret::Secret;

/// Header of the requests that batches make: a word only this process knows, then a blank and the tenant, if any.
pub const BATCH_HEADER: &str = "x-ringway-batch";
/// Calls that wait for the service at most; beyond it a shard answers 503.
pub const BATCH_CALLS_QUEUED_MAX: usize = 128;
/// Bytes of the bodies of all calls under way: five of the largest files.
pub const BATCH_CALL_BYTES_MAX: usize = 1 << 30;
/// Largest file that may be uploaded, as OpenAI bounds the input of a batch.
pub const FILE_BYTES_MAX: usize = 200 * 1024 * 1024;
/// Largest body of an upload: such a file with the words around it.
pub const UPLOAD_BYTES_MAX: usize = FILE_BYTES_MAX + 64 * 1024;
/// Bytes of a file that are sent to a client at a time.
pub const PIECE_BYTES: usize = 256 * 1024;

/// What a shard asks the service for.
#[derive(Debug)]
pub enum BatchCall {
    /// A client's request.
    Request(Box<BatchRequest>, oneshot::Sender<BatchReply>),
    /// More of a file that is being sent to a client.
    Piece(Piece, oneshot::Sender<io::Result<Bytes>>),
}

/// A client's request. It is counted in the road's bytes until it is dropped.
pub struct BatchRequest {
    /// HTTP method.
    pub method: &'static str,
    /// Path without query, percent-encoding as sent.
    pub path: Box<str>,
    /// Query without `?`.
    pub query: Option<Box<str>>,
    /// `Content-Type`, if it was sent as text.
    pub content_type: Option<Box<str>>,
    /// Whose files and batches it may see: `key:NAME`, `header:NAME`, or empty where tenants are not told apart.
    pub owner: Box<str>,
    /// `Authorization` that is meant for workers: the gateway has no keys of its own.
    pub credentials: Option<Secret>,
    /// The class that its requests ask for (`x-smg-priority`).
    pub priority: Option<Box<str>>,
    /// Whole body.
    pub body: Bytes,
    /// Keeps the room that the body takes.
    pub room: Room,
}

impl fmt::Debug for BatchRequest {
    // Queries, bodies and credentials are not for everybody.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("BatchRequest");
        shown.field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The file, open as long as somebody is sent it.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// How long it is at most, in bytes.
    pub bytes: usize,
}

/// The answer to a [`BatchRequest`].
#[derive(Clone, Debug)]
pub struct BatchReply {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// Error code for `X-SMG-Error-Code`, if the answer is an error.
    pub error_code: Option<&'static str>,
    /// Body.
    pub body: BatchBody,
}

/// What an answer carries.
#[derive(Clone, Debug)]
pub enum BatchBody {
    /// All of it.
    Whole(Bytes),
    /// A file of this many bytes, to be asked for piece by piece.
    File(Arc<File>, u64),
}

/// The road to the service. It is bounded in calls and in bytes: what it has no room for comes back.
#[derive(Clone)]
pub struct BatchRoad {
    send: Arc<dyn Fn(BatchCall) -> bool + Send + Sync>,
    bytes: Arc<AtomicUsize>,
}

/// Room for one body on the road, given back when dropped.
#[derive(Debug)]
pub struct Room {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl BatchRoad {
    /// A road that hands calls over by `send`, which says whether it had room.
    pub fn new(send: impl Fn(BatchCall) -> bool + Send + Sync + 'static) -> Self {
        Self { send: Arc::new(send), bytes: Arc::default() }
    }

    /// Room for a body; none when too much is under way.
    pub fn room(&self, bytes: usize) -> Option<Room> {
        let take = |total: usize| total.checked_add(bytes).filter(|&total| total <= BATCH_CALL_BYTES_MAX);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Room { bytes, total: Arc::clone(&self.bytes) })
    }

    /// Hands a request over; none when there is no room, or nobody at the other end.
    pub fn request(&self, request: BatchRequest) -> Option<oneshot::Receiver<BatchReply>> {
        let (reply, answer) = oneshot::channel();
        (self.send)(BatchCall::Request(Box::new(request), reply)).then_some(answer)
    }

    /// Asks for a piece of a file; none when there is no room, or nobody at the other end.
    pub fn piece(&self, piece: Piece) -> Option<oneshot::Receiver<io::Result<Bytes>>> {
        let (reply, answer) = oneshot::channel();
        (self.send)(BatchCall::Piece(piece, reply)).then_some(answer)
    }
}

impl fmt::Debug for BatchRoad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BatchRoad")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_road_holds_so_many_bytes_at_a_time() {
        let road = BatchRoad::new(|_| true);
        let most = road.room(BATCH_CALL_BYTES_MAX - 1);
        assert!(most.is_some() && road.room(2).is_none() && road.room(usize::MAX).is_none());
        let last = road.room(1);
        assert!(last.is_some() && road.room(1).is_none());
        drop(most);
        assert!(road.room(1).is_some());
    }

    #[test]
    fn a_call_that_finds_no_room_has_no_answer_to_wait_for() {
        let file = || File::open("/dev/null").map(Arc::new).expect("it is there");
        let piece = || Piece { file: file(), offset: 0, bytes: 1 };
        assert!(BatchRoad::new(|_| false).piece(piece()).is_none());
        assert!(BatchRoad::new(|_| true).piece(piece()).is_some());
    }
}
