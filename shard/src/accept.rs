//! The accept loop and the shard's tick.

use std::net::TcpListener as StdListener;
use std::rc::Rc;

use fleet::cell::Phase;
use monoio::net::TcpListener;
use monoio::net::TcpStream;
use tracing::error;
use tracing::warn;

use crate::client::Origin;
use crate::conn;
use crate::guard::Door;
use crate::limits;
use crate::rt::socket::Socket;
use crate::rt::wait::Slot;
use crate::rt::wait::Sweep;
use crate::rt::wait::complete;
use crate::state::Shard;

/// Serves until the lifecycle ends: accepts while running, lets connections finish while draining.
pub(crate) async fn run(shard: Rc<Shard>, listener: StdListener, admin_listener: Option<StdListener>) {
    let spawn = |listener, door| {
        // The accept loop waits on a slot like any idle connection, so draining wakes it too.
        let slot = shard.slots.register();
        slot.idle_until(0);
        monoio::spawn(accept(Rc::clone(&shard), listener, slot, door))
    };
    let accepting = spawn(listener, Door::Main);
    let accepting_admins = admin_listener.map(|listener| spawn(listener, Door::Admin));
    tick_until_done(&shard).await;
    accepting.await;
    if let Some(accepting) = accepting_admins {
        accepting.await;
    }
}

async fn accept(shard: Rc<Shard>, listener: StdListener, slot: Rc<Slot>, door: Door) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(shard = shard.index, %error, "cannot listen");
            return;
        }
    };
    while shard.lifecycle.phase() == Phase::Running {
        match complete(&slot, listener.accept()).await {
            Ok(Ok((stream, address))) => {
                welcome(&shard, stream, Origin { peer: address.ip().to_canonical(), door })
            }
            Ok(Err(error)) => {
                // Out of descriptors, most likely: wait a tick, so that connections may end.
                warn!(shard = shard.index, %error, "cannot accept");
                monoio::time::sleep(limits::TICK).await;
            }
            Err(_) => {}
        }
    }
}

fn welcome(shard: &Rc<Shard>, stream: TcpStream, origin: Origin) {
    let Some(permit) = shard.admit_connection(origin) else { return };
    // Without it, Nagle's algorithm holds back the small writes of a token stream.
    if let Err(error) = stream.set_nodelay(true) {
        warn!(shard = shard.index, %error, "cannot set TCP_NODELAY");
    }
    monoio::spawn(conn::serve(Rc::clone(shard), Socket::Tcp(stream), origin, permit));
}

/// Housekeeping: time, deadlines, reports, idle worker connections, the lifecycle.
async fn tick_until_done(shard: &Rc<Shard>) {
    let mut ticks: u64 = 0;
    loop {
        monoio::time::sleep(limits::TICK).await;
        ticks += 1;
        shard.clock.tick();
        shard.ports.flush(&shard.stats);
        // Loading also lets go of the previous snapshot when nothing else does.
        let fleet = shard.fleet();
        if ticks.is_multiple_of(limits::SWEEP_EVERY_TICKS) {
            let mut upstreams = shard.upstreams.borrow_mut();
            upstreams.sweep(&fleet, shard.clock.coarse_ms());
            shard.stats.upstream_idle.set(upstreams.idle() as u64);
        }
        let (sweep, is_done) = match shard.lifecycle.phase() {
            Phase::Running => (Sweep::Expired, false),
            Phase::Draining => (Sweep::Idle, shard.connections() == 0),
            Phase::Stopping => (Sweep::All, true),
        };
        shard.slots.sweep(shard.clock.coarse_ms(), sweep);
        if is_done {
            // What the sweep woke still says goodbye.
            monoio::time::sleep(limits::TICK).await;
            return;
        }
    }
}
