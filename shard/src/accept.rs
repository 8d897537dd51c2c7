//! The accept loop and the shard's tick.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use fleet::cell::Phase;
use monoio::net::TcpStream;
use tracing::error;
use tracing::warn;

use crate::admit;
use crate::client::Origin;
use crate::conn;
use crate::guard::Door;
use crate::limits;
use crate::listen::Listener;
use crate::rt::socket::Socket;
use crate::rt::wait::Interrupt;
use crate::rt::wait::Slot;
use crate::rt::wait::Sweep;
use crate::rt::wait::complete;
use crate::rt::wait::yield_now;
use crate::state::Shard;

/// Serves until the lifecycle ends: accepts while running, lets connections finish while draining.
pub(crate) async fn run(shard: Rc<Shard>, listeners: Vec<Listener>, admin_listener: Option<Listener>) {
    let mains = listeners.into_iter().map(|listener| (listener, Door::Main));
    let admins = admin_listener.into_iter().map(|listener| (listener, Door::Admin));
    let mut slots = Vec::new();
    let mut accepting = Vec::new();
    for (listener, door) in mains.chain(admins) {
        let slot = shard.slots.register();
        slots.push(Rc::clone(&slot));
        accepting.push(monoio::spawn(accept(Rc::clone(&shard), listener, slot, door)));
    }
    tick_until_done(&shard, &slots).await;
    for accepting in accepting {
        accepting.await;
    }
}

/// Accepts whoever comes until the process ends or another one goes on, and then whoever has come already: what the
/// kernel holds for a listener that is closed is reset.
///
/// The loop waits for the listener to be readable and accepts without waiting, so that no accept can be given up while
/// it completes, with its connection.
async fn accept(shard: Rc<Shard>, listener: Listener, slot: Rc<Slot>, door: Door) {
    let watched = match watched(&listener.socket) {
        Ok(watched) => watched,
        Err(error) => {
            error!(shard = shard.index, %error, "cannot listen");
            return;
        }
    };
    while shard.lifecycle.phase() == Phase::Running {
        match complete(&slot, watched.readable(false)).await {
            Ok(Ok(())) => {
                if let Err(error) = take_waiting(&shard, &listener.socket, door).await {
                    // Out of descriptors, most likely: wait a tick, so that connections may end.
                    warn!(shard = shard.index, %error, "cannot accept");
                    monoio::time::sleep(limits::TICK).await;
                }
            }
            Ok(Err(error)) => {
                warn!(shard = shard.index, %error, "cannot wait for connections");
                monoio::time::sleep(limits::TICK).await;
            }
            Err(_) => {}
        }
    }
    let is_left = shard.lifecycle.is_handed_over() || shard.lifecycle.phase() == Phase::Stopping;
    if is_left || listener.is_shared {
        // Another process accepts from the same socket: it stays open there, with all that waits in it.
        return;
    }
    if let Err(error) = listener.refuse_newcomers() {
        warn!(shard = shard.index, %error, "connections made just now may be reset");
    }
    // Who is shaking hands finishes meanwhile.
    monoio::time::sleep(limits::BACKLOG_SETTLE).await;
    if let Err(error) = take_waiting(&shard, &listener.socket, door).await {
        warn!(shard = shard.index, %error, "connections that were waiting are reset");
    }
}

/// A listener as something to wait for: the runtime has no readiness of listeners, and a socket is a socket.
fn watched(listener: &TcpListener) -> io::Result<TcpStream> {
    let socket: std::os::fd::OwnedFd = listener.try_clone()?.into();
    TcpStream::from_std(socket.into())
}

/// Accepts until nobody waits any more.
async fn take_waiting(shard: &Rc<Shard>, listener: &TcpListener, door: Door) -> io::Result<()> {
    for accepted in 1_usize.. {
        match listener.accept() {
            Ok((stream, address)) => {
                welcome(shard, stream, Origin { peer: address.ip().to_canonical(), door });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // It left before it was accepted.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if accepted.is_multiple_of(limits::ACCEPTS_PER_TURN) {
            yield_now().await;
        }
    }
    Ok(())
}

fn welcome(shard: &Rc<Shard>, stream: std::net::TcpStream, origin: Origin) {
    let Some(permit) = shard.admit_connection(origin) else { return };
    // Without it, Nagle's algorithm holds back the small writes of a token stream.
    if let Err(error) = stream.set_nodelay(true) {
        warn!(shard = shard.index, %error, "cannot set TCP_NODELAY");
    }
    match TcpStream::from_std(stream) {
        Ok(stream) => {
            monoio::spawn(conn::serve(Rc::clone(shard), Socket::Tcp(stream), origin, permit));
        }
        Err(error) => warn!(shard = shard.index, %error, "a connection cannot be watched"),
    }
}

/// Housekeeping: time, settings, deadlines, reports, idle worker connections, the lifecycle.
async fn tick_until_done(shard: &Rc<Shard>, accepting: &[Rc<Slot>]) {
    let mut ticks: u64 = 0;
    loop {
        monoio::time::sleep(limits::TICK).await;
        ticks += 1;
        shard.clock.tick();
        shard.stats.ticks_total.add(1);
        shard.take_settings();
        admit::keep_pace(shard);
        shard.ports.flush(&shard.stats);
        shard.ports.flush_spans(&shard.stats);
        // Loading also lets go of the previous snapshot when nothing else does.
        let fleet = shard.fleet();
        let is_registered = |id| fleet.worker(id).is_some();
        shard.full_workers.borrow_mut().let_off(shard.clock.coarse_ms(), is_registered);
        if ticks.is_multiple_of(limits::SWEEP_EVERY_TICKS) {
            let mut upstreams = shard.upstreams.borrow_mut();
            upstreams.sweep(&fleet, shard.clock.coarse_ms());
            shard.stats.upstream_idle.set(upstreams.idle() as u64);
        }
        let (sweep, is_done) = match shard.lifecycle.phase() {
            // Who is connected may go on to ask here until it is told to connect anew.
            Phase::Running | Phase::HandedOver => (Sweep::Expired, false),
            Phase::Draining => (Sweep::Idle, false),
            Phase::Stopping => (Sweep::All, true),
        };
        if shard.lifecycle.phase() != Phase::Running {
            accepting.iter().for_each(|slot| slot.interrupt(Interrupt::Ended));
        }
        shard.slots.sweep(shard.clock.coarse_ms(), sweep);
        if is_done {
            // What the sweep woke still says goodbye.
            monoio::time::sleep(limits::TICK).await;
            shard.ports.flush_spans(&shard.stats);
            return;
        }
    }
}
