//! The service manager: sockets that it opened, and what it is told of the process's life (sd_notify, sd_watchdog).

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use fleet::cell::Lifecycle;
use fleet::cell::Phase;
use fleet::stats::ShardStats;
use listenfd::ListenFd;
use rustix::time::ClockId;
use tracing::debug;
use tracing::warn;

use crate::Failure;
use crate::control::ControlStats;
use crate::control::event::Event;

/// Names of sockets (`FileDescriptorName=`) that are not for clients.
const ADMIN_NAME: &str = "admin";
const METRICS_NAME: &str = "metrics";

/// Sockets that the service manager opened for this process.
#[derive(Debug, Default)]
pub(crate) struct GivenSockets {
    pub(crate) main: Vec<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) metrics: Option<TcpListener>,
}

/// Takes the sockets of `LISTEN_FDS`, if they are for this process. To be called once, before the first thread.
///
/// # Errors
/// When one of them is not a listening TCP socket.
pub(crate) fn sockets() -> Result<GivenSockets, Failure> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut fds = ListenFd::from_env();
    let mut given = GivenSockets::default();
    for at in 0..fds.len() {
        let unusable = |error| Failure::usage(format!("socket {at} of LISTEN_FDS cannot be used: {error}"));
        let Some(socket) = fds.take_tcp_listener(at).map_err(unusable)? else { continue };
        socket.set_nonblocking(true).map_err(unusable)?;
        match names.get(at).copied() {
            Some(ADMIN_NAME) => given.admin = Some(socket),
            Some(METRICS_NAME) => given.metrics = Some(socket),
            _ => given.main.push(socket),
        }
    }
    Ok(given)
}

/// Tells the service manager something, if there is one that wants to hear it.
pub(crate) fn notify(state: &str) {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&to, state) {
        debug!(%error, "the service manager cannot be told");
    }
}

fn send(to: &OsString, state: &str) -> std::io::Result<()> {
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Says that the settings are being read again; `READY=1` ends it.
pub(crate) fn notify_reloading() {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
}

/// What has to move for the process to be alive.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) shards: Vec<Arc<ShardStats>>,
    pub(crate) control: Arc<ControlStats>,
    /// Once another process serves, the watchdog is that one's.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Has control make a turn, which it does not while there is nothing to do.
    pub(crate) wake: Sender<Event>,
}

impl Pulse {
    fn counts(&self) -> Vec<u64> {
        let shards = self.shards.iter().map(|shard| shard.ticks_total.get());
        shards.chain([self.control.turns_total.get()]).collect()
    }
}

/// How often the service manager wants to hear that the process is alive. `is_successor` says whether this process came
/// after the one that the service manager started.
pub(crate) fn watchdog_interval(is_successor: bool) -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let interval_us = number("WATCHDOG_USEC").filter(|_| is_for_us || is_successor)?;
    Some(Duration::from_micros(interval_us / 2)).filter(|interval| !interval.is_zero())
}

/// Says every `interval` that the process is alive, as long as every shard and control are.
pub(crate) async fn feed_watchdog(pulse: Pulse, interval: Duration) {
    let mut before = pulse.counts();
    loop {
        // A full inbox is one that control has not emptied: then it makes turns without being woken, or it is stuck.
        let _ = pulse.wake.try_send(Event::Ping);
        tokio::time::sleep(interval).await;
        if pulse.lifecycle.phase() != Phase::Running {
            return;
        }
        let now = pulse.counts();
        if now.iter().zip(&before).all(|(now, before)| now != before) {
            notify("WATCHDOG=1");
        } else {
            warn!("a shard or control has made no turn: the watchdog is not told that all is well");
        }
        before = now;
    }
}
