//! Every bound of the data plane, each with its reason.

use std::time::Duration;

use wire::HeadLimits;

/// Longest request or response head: a generous cookie jar, and eight times nginx's default.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields per head.
pub(crate) const HEADERS_MAX: usize = 100;
/// The same, for the head parsers.
pub(crate) const HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: HEAD_BYTES_MAX, headers_max: HEADERS_MAX };
/// The same, for heads that we wrote ourselves: a peer's, with what we add to it.
pub(crate) const OWN_HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 2 * HEAD_BYTES_MAX, headers_max: wire::limits::HEADERS_CAP };
/// A fresh read buffer: holds a short chat with its head in one piece.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// Read buffers a shard keeps for reuse.
pub(crate) const BUFFERS_KEPT_MAX: usize = 256;
/// A buffer that grew beyond this is given back to the allocator instead of being kept; prompts of 64 KiB with their
/// head stay below it.
pub(crate) const BUFFER_KEPT_BYTES_MAX: usize = 128 * 1024;
/// Bytes of all kept buffers of a shard.
pub(crate) const BUFFERS_KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// One read of a streaming response: what one loop turn takes from one worker socket.
pub(crate) const STREAM_READ_BYTES: usize = 64 * 1024;
/// A JSON answer up to this size is held until complete, so that a worker that dies inside it costs a clean 502.
pub(crate) const RESPONSE_HELD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one unfinished server-sent event held back; a longer event is passed on as it comes.
pub(crate) const EVENT_HELD_BYTES_MAX: usize = 256 * 1024;
/// Text of one answer that is remembered so that another worker can go on with it; a longer one cannot be resumed.
pub(crate) const RESUMED_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Bodies up to this size are copied behind the head and leave in one piece.
pub(crate) const BODY_COPIED_BYTES_MAX: usize = 8 * 1024;
/// Workers that may be chosen and not be had, because their circuit breaker turns the request away or another shard gave
/// its key to somebody else, before the request is answered 503.
pub(crate) const BREAKERS_ASKED_MAX: usize = 16;
/// Tokens of one stream after which its worker's pace is written again.
pub(crate) const TOKENS_UNTOLD_MAX: u32 = 32;
/// Time that they took, in microseconds, after which it is too.
pub(crate) const TOKEN_TIME_UNTOLD_MAX_US: u64 = 250_000;
/// Idle connections kept to one worker by one shard, as the SGLang router's client keeps.
pub(crate) const UPSTREAM_IDLE_PER_WORKER_MAX: usize = 500;
/// Longest idle time of a kept worker connection; engines commonly close after 5 s, which the sweep notices.
pub(crate) const UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(50);
/// Longest time that a prefill worker may take to end its answer once the answer of the decode worker has begun.
pub(crate) const PREFILL_LINGER_MAX: Duration = Duration::from_secs(30);
/// Bytes of a prefill worker's answer that are kept, where something of it belongs into the client's: log probabilities
/// of a prompt of a million tokens.
pub(crate) const PREFILL_KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a prefill worker's error that the client is shown.
pub(crate) const PREFILL_ERROR_SHOWN_BYTES_MAX: usize = 1024;
/// Prompts or answers of one request that each get a room of their own between the two workers of a pair.
pub(crate) const BOOTSTRAP_ROOMS_MAX: u32 = 4096;
/// Interim (1xx) responses accepted before the final one.
pub(crate) const INTERIM_RESPONSES_MAX: u32 = 8;
/// Housekeeping period: the grain of every deadline of a shard.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Connections accepted in one turn of the loop, so that a crowd at the door does not hold up who is inside.
pub(crate) const ACCEPTS_PER_TURN: usize = 64;
/// Time that handshakes begun before a shutdown have to end: a round trip to the other side of the world.
pub(crate) const BACKLOG_SETTLE: Duration = Duration::from_millis(250);
/// Least time between two batches of reports that are not full: control publishes no faster.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(1);
/// Shortest pause between two looks whether a request start is due: the grain of the runtime's timer.
pub(crate) const START_PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause: so late, at most, is a start that became due earlier than was known.
pub(crate) const START_PAUSE_MAX: Duration = Duration::from_millis(10);
/// Ticks between two sweeps of the idle worker connections.
pub(crate) const SWEEP_EVERY_TICKS: u64 = 10;
/// Connections that the control plane's own listener has beyond the bound of all: a crowd of clients locks no admin out.
pub(crate) const ADMIN_CONNECTIONS_SPARE: u64 = 32;
/// Longest body of an OPTIONS request.
pub(crate) const PREFLIGHT_BODY_BYTES_MAX: usize = 4 * 1024;
/// Longest body of an admin request.
pub(crate) const ADMIN_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read and thrown away after an error answer, so that the close does not reset the answer.
pub(crate) const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time spent on that.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(2);
/// Addresses of a worker tried per connection attempt.
pub(crate) const ADDRESSES_TRIED_MAX: usize = 4;
/// Longest signed token that is looked at: what fits into common servers' header lines.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for a token's verification: it may take one look at the issuer's keys.
pub(crate) const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of one field of an audit record, as SGLang's gateway has them.
pub(crate) const AUDIT_CHARACTERS_MAX: usize = 1024;
/// Longest client-sent request id that is taken over.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 256;

/// Bytes encrypted for one connection and not yet taken by the kernel: one send of a stream, as `STREAM_READ_BYTES`.
pub(crate) const TLS_SEND_BYTES_MAX: usize = 64 * 1024;

/// Streams of one HTTP/2 connection at once: a client with hundreds of chats under way needs one connection.
pub(crate) const HTTP2_STREAMS_MAX: u32 = 512;
/// Body bytes a peer may send on one stream before they are taken: a prompt of common size arrives without a pause.
pub(crate) const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same over all streams of a connection; so much a connection may cost while its streams wait.
pub(crate) const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams of one connection to a worker at once; beyond it another connection is made.
pub(crate) const HTTP2_WORKER_STREAMS_MAX: usize = 256;
/// HTTP/2 connections of a shard to one worker; beyond them streams share, and wait for each other.
pub(crate) const HTTP2_WORKER_CONNECTIONS_MAX: usize = 4;
/// Answer bytes a worker may send on one stream before its client has taken them.
pub(crate) const HTTP2_WORKER_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// The same over all streams of a connection: as much as they may have each, so that clients which do not read never
/// stop the streams of others.
pub(crate) const HTTP2_WORKER_CONNECTION_WINDOW_BYTES: u32 =
    HTTP2_WORKER_STREAMS_MAX as u32 * HTTP2_WORKER_STREAM_WINDOW_BYTES;
/// Answer bytes of a stream handed over and not yet sent.
pub(crate) const HTTP2_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes between a stream and its exchange, in each direction.
pub(crate) const HTTP2_PIPE_BYTES_MAX: usize = 64 * 1024;
/// Room set aside for a head in the form of HTTP/1.1; it grows beyond.
pub(crate) const HTTP2_HEAD_BYTES: usize = 512;
/// Streams that were reset and are remembered, so that frames still on their way are no error.
pub(crate) const HTTP2_RESET_STREAMS_MAX: usize = 64;
/// Streams that a client opened and reset before they were looked at: more is a flood (CVE-2023-44487).
pub(crate) const HTTP2_PENDING_RESETS_MAX: usize = 32;
/// Streams of one connection that may be reset for a client's errors: more is a flood (CVE-2025-8671).
pub(crate) const HTTP2_STREAM_ERRORS_MAX: usize = 256;

/// Pause before a piece of a file is asked for again when its service has no room.
pub(crate) const PIECE_PAUSE: Duration = Duration::from_millis(10);

/// Time a request body has before its rate counts.
pub(crate) const BODY_RATE_GRACE: Duration = Duration::from_secs(5);

/// Longest value of a header that routing takes for a key.
pub(crate) const ROUTING_KEY_BYTES_MAX: usize = 4096;
/// Leading bytes of an answer in which its id is looked for.
pub(crate) const ANSWER_ID_SEARCH_BYTES_MAX: usize = 4096;
/// Longest id of an answer that is remembered.
pub(crate) const ANSWER_ID_BYTES_MAX: usize = 128;

const _: () = assert!(BUFFER_BYTES <= BUFFER_KEPT_BYTES_MAX && BODY_COPIED_BYTES_MAX < BUFFER_BYTES);
const _: () = assert!(HEAD_BYTES_MAX <= RESPONSE_HELD_BYTES_MAX);

/// Looks at the fleet for a request that nobody was found for, where a whole fleet may be replaced by another.
pub(crate) const LOOKS_AGAIN_MAX: u32 = 3;
/// Pause before each: a few publications.
pub(crate) const LOOK_AGAIN_PAUSE: Duration = Duration::from_millis(2);
