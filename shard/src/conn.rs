//! One client connection: idle until readable, then one exchange after another.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;

use fleet::cell::Phase;
use tracing::debug;

use crate::client::Client;
use crate::client::Next;
use crate::exchange;
use crate::rt::socket::Socket;
use crate::rt::wait::Watch;
use crate::rt::wait::readable;
use crate::state::ConnectionPermit;
use crate::state::Shard;

/// Serves a connection until either side is done with it.
///
/// While it is idle, this future is all it costs: it holds no buffer, and the much larger future of an exchange is
/// boxed and gone between requests.
pub(crate) async fn serve(shard: Rc<Shard>, stream: Socket, peer: IpAddr, permit: ConnectionPermit) {
    let slot = shard.slots.register();
    let mut watch = pin!(Watch::new(|| stream.readable()));
    let mut client = Client::new(&stream, peer, &slot);
    debug!(shard = shard.index, peer = %client.peer, "a client is connected");
    client.door = permit.door;
    loop {
        if client.early.is_empty() {
            slot.idle_until(shard.clock.deadline_ms(shard.config.keep_alive_timeout));
            if readable(&slot, watch.as_mut()).await.is_err() {
                break;
            }
        }
        let next = exchange::boxed(&shard, &mut client, watch.as_mut()).await;
        client.skip_empty_lines();
        if next == Next::Close || shard.lifecycle.phase() != Phase::Running {
            break;
        }
    }
    stream.shutdown_write();
}
