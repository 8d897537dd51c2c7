//! One client connection: what it speaks, then idle until readable, then one exchange after another.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use fleet::cell::Phase;
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
use crate::state::ConnectionPermit;
use crate::state::Shard;

/// Serves a connection until either side is done with it.
///
/// While it is idle, this future is all it costs: it holds no buffer, and the larger futures of a handshake, an
/// exchange and an HTTP/2 connection are boxed and gone when they are over.
#[expect(clippy::manual_async_fn, reason = "an async function sets room aside for the socket twice")]
pub(crate) fn serve(
    shard: Rc<Shard>,
    mut socket: Socket,
    origin: Origin,
    permit: ConnectionPermit,
) -> impl Future<Output = ()> {
    async move {
        let _permit = &permit;
        let slot = shard.slots.register();
        if shard.config().tls.is_some() {
            match Box::pin(secure(&shard, socket, origin, &slot)).await {
                Some(secured) => socket = secured,
                None => return,
            }
        }
        let is_http2 = matches!(&socket, Socket::Tls(tls) if tls.is_http2());
        let switched = if is_http2 {
            Some(Vec::new())
        } else {
            let watch = pin!(Watch::new(|| socket.readable()));
            let mut client = Client::new(&socket, watch, &origin, &slot);
            debug!(shard = shard.index, peer = %origin.peer, "a client is connected");
            requests(&shard, &mut client).await
        };
        match switched {
            Some(early) => Box::pin(http2::serve(&shard, socket, early, origin, &slot)).await,
            None => socket.shutdown_write(),
        }
    }
}

/// Shakes hands, within the time that a request's head has; none if nothing came of it.
async fn secure(shard: &Shard, socket: Socket, origin: Origin, slot: &Slot) -> Option<Socket> {
    let Socket::Tcp(stream) = socket else { return Some(socket) };
    let config = shard.config().tls.clone()?;
    slot.busy_until(shard.clock.deadline_ms(shard.config().head_timeout));
    match complete(slot, tls::accept(stream, config)).await.ok()? {
        Ok(tls) => Some(Socket::Tls(Box::new(tls))),
        Err(error) => {
            debug!(shard = shard.index, peer = %origin.peer, %error, "a TLS handshake failed");
            None
        }
    }
}

/// One request after another; what has been read if the client speaks HTTP/2 instead.
#[expect(clippy::manual_async_fn, reason = "an async function sets room aside for its arguments twice")]
fn requests(shard: &Rc<Shard>, client: &mut Client<'_>) -> impl Future<Output = Option<Vec<u8>>> {
    async move {
        loop {
            if client.early.is_empty() {
                let deadline_ms = shard.clock.deadline_ms(shard.config().keep_alive_timeout);
                // Who has connected is about to ask: draining waits for that, and closes only who has been answered.
                if client.is_fresh {
                    client.slot.busy_until(deadline_ms)
                } else {
                    client.slot.idle_until(deadline_ms)
                }
                if client.readable().await.is_err() {
                    return None;
                }
            }
            let next = exchange::boxed(shard, client).await;
            if next == Next::Http2 {
                return Some(std::mem::take(&mut client.early));
            }
            client.skip_empty_lines();
            // Who was told that the connection is kept may ask on; draining closes it once it is idle.
            if next == Next::Close || shard.lifecycle.phase() == Phase::Stopping {
                return None;
            }
        }
    }
}

/// Serves the one request of an HTTP/2 stream.
pub(crate) async fn serve_one(shard: Rc<Shard>, socket: Socket, origin: Origin) {
    let slot = shard.slots.register();
    let watch = pin!(Watch::new(|| socket.readable()));
    let mut client = Client::new(&socket, watch, &origin, &slot);
    client.is_fresh = false;
    exchange::boxed(&shard, &mut client).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_half_a_kilobyte() {
        // What the runtime keeps of a task beside its future, on x86-64.
        const TASK_BYTES: usize = 48;
        fn size_of_future<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(serve);
        assert!(size + TASK_BYTES <= 512, "{size} bytes");
    }
}
