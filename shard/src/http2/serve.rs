//! One HTTP/2 connection of a client: takes its streams, and says goodbye in time.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use fleet::cell::Phase;
use h2::Reason;
use h2::RecvStream;
use h2::server::Connection;
use h2::server::SendResponse;
use http::Request;

use crate::client::Origin;
use crate::conn;
use crate::http2::stream;
use crate::limits;
use crate::rt::io::Io;
use crate::rt::socket::Socket;
use crate::rt::wait::Interrupt;
use crate::rt::wait::Slot;
use crate::rt::wait::complete;
use crate::state::Shard;

/// The streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: Cell<usize>,
    /// When the last one ended, in coarse time.
    ended_ms: Cell<u64>,
}

/// Serves a connection, of which `early` has been read, until either side is done with it.
pub(crate) async fn serve(shard: &Rc<Shard>, socket: Socket, early: Vec<u8>, origin: Origin, slot: &Slot) {
    let socket = Rc::new(socket);
    slot.busy_until(shard.clock.deadline_ms(shard.config().head_timeout));
    let handshake = builder().handshake(Io::new(Rc::clone(&socket), early));
    let handshake = async { handshake.await.map_err(io::Error::other) };
    if let Ok(Ok(connection)) = complete(slot, handshake).await {
        take_streams(shard, connection, origin, slot).await;
    }
    socket.shutdown_write();
}

fn builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .initial_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(limits::HTTP2_SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(limits::HTTP2_RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::HTTP2_STREAM_ERRORS_MAX));
    builder
}

async fn take_streams(shard: &Rc<Shard>, mut connection: Connection<Io, Bytes>, origin: Origin, slot: &Slot) {
    let streams = Rc::new(Streams::default());
    streams.ended_ms.set(shard.clock.coarse_ms());
    let mut goodbye_ms = None;
    loop {
        // To the tick the connection itself is always idle, so that draining wakes it; its streams have slots of
        // their own.
        slot.idle_until(match goodbye_ms {
            Some(_) => shard.clock.deadline_ms(limits::LINGER_MAX),
            None if streams.open.get() > 0 => shard.clock.deadline_ms(shard.config().keep_alive_timeout),
            None => streams.ended_ms.get() + keep_alive_ms(shard),
        });
        let next = poll_fn(|cx| connection.poll_accept(cx).map(Ok));
        match complete(slot, next).await {
            Ok(Ok(Some(Ok((request, respond))))) => begin(shard, request, respond, origin, &streams),
            // It is over, or its peer has broken the protocol and has been told so.
            Ok(Ok(Some(Err(_)) | None) | Err(_)) | Err(Interrupt::Broken) => return,
            Err(Interrupt::Deadline | Interrupt::Ended) => {
                let now_ms = shard.clock.coarse_ms();
                if shard.lifecycle.phase() == Phase::Stopping {
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                }
                match goodbye_ms {
                    // A client that does not answer the goodbye is not waited for.
                    Some(said_ms) if streams.open.get() == 0 && now_ms >= said_ms + LINGER_MS => return,
                    Some(_) => {}
                    None if shard.lifecycle.phase() != Phase::Running || is_idle(shard, &streams) => {
                        goodbye_ms = Some(now_ms);
                        connection.graceful_shutdown();
                    }
                    None => {}
                }
            }
        }
    }
}

const LINGER_MS: u64 = limits::LINGER_MAX.as_millis() as u64;

fn is_idle(shard: &Shard, streams: &Streams) -> bool {
    streams.open.get() == 0 && shard.clock.coarse_ms() >= streams.ended_ms.get() + keep_alive_ms(shard)
}

fn keep_alive_ms(shard: &Shard) -> u64 {
    shard.config().keep_alive_timeout.as_millis() as u64
}

fn begin(
    shard: &Rc<Shard>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    origin: Origin,
    streams: &Rc<Streams>,
) {
    let (shard, streams) = (Rc::clone(shard), Rc::clone(streams));
    shard.stats.http2_streams_total.add(1);
    streams.open.set(streams.open.get() + 1);
    monoio::spawn(async move {
        let stall_max = shard.config().body_timeout;
        let serve = |socket| conn::serve_one(Rc::clone(&shard), socket, origin);
        stream::run(request, respond, stall_max, serve).await;
        streams.open.set(streams.open.get() - 1);
        streams.ended_ms.set(shard.clock.coarse_ms());
    });
}
