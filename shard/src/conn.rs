//! One client connection: what it speaks, then idle until readable, then one exchange after another.

use std::pin::pin;
use std::rc::Rc;

use fleet::cell::Phase;
use monoio::net::TcpStream;
use tracing::debug;

use crate::client::Client;
use crate::client::Next;
use crate::client::Origin;
use crate::exchange;
use crate::http2;
use crate::rt::socket::Socket;
use crate::rt::tls;
use crate::rt::wait::Slot;
use crate::rt::wait::Watch;
use crate::rt::wait::complete;
use crate::rt::wait::readable;
use crate::state::ConnectionPermit;
use crate::state::Shard;

/// Serves a connection until either side is done with it.
///
/// While it is idle, this future is all it costs: it holds no buffer, and the larger futures of a handshake, an
/// exchange and an HTTP/2 connection are boxed and gone when they are over.
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, origin: Origin, _permit: ConnectionPermit) {
    let slot = shard.slots.register();
    let tls = shard.config().tls.clone();
    let socket = match tls {
        None => Socket::Tcp(stream),
        Some(config) => {
            slot.busy_until(shard.clock.deadline_ms(shard.config().head_timeout));
            let handshake = Box::pin(tls::accept(stream, config));
            match complete(&slot, handshake).await {
                Ok(Ok(tls)) => Socket::Tls(Box::new(tls)),
                Ok(Err(error)) => {
                    debug!(shard = shard.index, peer = %origin.peer, %error, "a TLS handshake failed");
                    return;
                }
                Err(_) => return,
            }
        }
    };
    let is_http2 = matches!(&socket, Socket::Tls(tls) if tls.is_http2());
    let switched = if is_http2 { Some(Vec::new()) } else { requests(&shard, &socket, origin, &slot).await };
    match switched {
        Some(early) => Box::pin(http2::serve(&shard, socket, early, origin, &slot)).await,
        None => socket.shutdown_write(),
    }
}

/// One request after another; what has been read if the client speaks HTTP/2 instead.
async fn requests(shard: &Rc<Shard>, socket: &Socket, origin: Origin, slot: &Slot) -> Option<Vec<u8>> {
    let mut watch = pin!(Watch::new(|| socket.readable()));
    let mut client = Client::new(socket, origin, slot);
    debug!(shard = shard.index, peer = %client.peer, "a client is connected");
    loop {
        if client.early.is_empty() {
            let deadline_ms = shard.clock.deadline_ms(shard.config().keep_alive_timeout);
            // Who has connected is about to ask: draining waits for that, and closes only who has been answered.
            if client.is_fresh {
                slot.busy_until(deadline_ms)
            } else {
                slot.idle_until(deadline_ms)
            }
            if readable(slot, watch.as_mut()).await.is_err() {
                return None;
            }
        }
        let next = exchange::boxed(shard, &mut client, watch.as_mut()).await;
        if next == Next::Http2 {
            return Some(client.early);
        }
        client.skip_empty_lines();
        // Who was told that the connection is kept may ask on; draining closes it once it is idle.
        if next == Next::Close || shard.lifecycle.phase() == Phase::Stopping {
            return None;
        }
    }
}

/// Serves the one request of an HTTP/2 stream.
pub(crate) async fn serve_one(shard: Rc<Shard>, socket: Socket, origin: Origin) {
    let slot = shard.slots.register();
    let mut watch = pin!(Watch::new(|| socket.readable()));
    let mut client = Client::new(&socket, origin, &slot);
    client.is_fresh = false;
    exchange::boxed(&shard, &mut client, watch.as_mut()).await;
}
