//! Every listening socket of the process: taken over from the one before, given by the service manager, or bound.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;

use shard::listen::Listener;

use crate::Failure;
use crate::config::Config;
use crate::handover::Inheritance;
use crate::systemd;

/// The sockets of a process.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For clients; at least one for each shard.
    pub(crate) main: Vec<Listener>,
    /// The control plane's own, if it has one.
    pub(crate) admin: Option<Listener>,
    /// For whoever scrapes, unless that is served where clients are.
    pub(crate) metrics: Option<Listener>,
}

impl Sockets {
    /// Gathers them. Where clients connect must be where the process before listened.
    ///
    /// # Errors
    /// When an address cannot be listened at, or is another one than before.
    pub(crate) fn open(config: &Config, inheritance: Option<&mut Inheritance>) -> Result<Self, Failure> {
        let given = systemd::sockets()?;
        if given.admin.is_some() && config.security.admin.is_none() {
            let why = "a socket named admin is given, and --admin-port does not say that there is a listener for it";
            return Err(Failure::usage(why));
        }
        let shared = |socket| Listener { socket, is_shared: true };
        let (mut main, mut admin, metrics) = match inheritance {
            Some(before) => (std::mem::take(&mut before.main), before.admin.take(), before.metrics.take()),
            None => (
                given.main.into_iter().map(shared).collect(),
                given.admin.map(shared),
                given.metrics.map(shared),
            ),
        };
        let shards = config.cpus.len();
        if main.is_empty() {
            main = bind(config.listen, shards)?;
        }
        let here = main[0].socket.local_addr().unwrap_or(config.listen);
        let is_bound = |listener: &Listener, wanted: SocketAddr| {
            listener.is_shared || listener.socket.local_addr().is_ok_and(|address| address == wanted)
        };
        if let Some(elsewhere) = main.iter().find(|listener| !is_bound(listener, config.listen)) {
            let at = elsewhere.socket.local_addr().unwrap_or(here);
            let wanted = config.listen;
            return Err(Failure::usage(format!(
                "--handover-socket: the gateway that runs listens at {at}, and --host and --port say {wanted}"
            )));
        }
        admin = admin.filter(|admin| config.security.admin.is_some_and(|wanted| is_bound(admin, wanted)));
        if let (None, Some(address)) = (&admin, config.security.admin) {
            admin = bind(address, 1)?.pop();
        }
        let mut metrics =
            metrics.filter(|metrics| config.metrics.is_some_and(|wanted| is_bound(metrics, wanted)));
        if let (None, Some(address)) = (&metrics, config.metrics) {
            metrics = bind(address, 1)?.pop();
        }
        let no_descriptor = |error| Failure::runtime(format!("cannot listen on {here}: {error}"));
        fill_up(&mut main, shards).map_err(no_descriptor)?;
        Ok(Self { main, admin, metrics })
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            main: self.main.iter().map(Listener::try_clone).collect::<io::Result<_>>()?,
            admin: self.admin.as_ref().map(Listener::try_clone).transpose()?,
            metrics: self.metrics.as_ref().map(Listener::try_clone).transpose()?,
        })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.main.first()?.socket.local_addr().ok()
    }
}

/// Gives every shard its part: each socket belongs to one, and each shard has at least one.
pub(crate) fn spread(sockets: Vec<Listener>, shards: usize) -> Vec<Vec<Listener>> {
    let mut parts: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    for (at, socket) in sockets.into_iter().enumerate() {
        parts[at % shards].push(socket);
    }
    parts
}

/// Has at least as many sockets as there are shards: further ones at the same address, or, of a socket that the service
/// manager opened and nobody may bind beside, the same one several times.
fn fill_up(main: &mut Vec<Listener>, shards: usize) -> io::Result<()> {
    let missing = shards.saturating_sub(main.len());
    if missing == 0 {
        return Ok(());
    }
    if main.iter().any(|listener| listener.is_shared) {
        for at in 0..missing {
            let again = main[at].try_clone()?;
            main.push(again);
        }
        return Ok(());
    }
    let address = main[0].socket.local_addr()?;
    main.extend(shard::listen::join(address, missing)?.into_iter().map(own));
    Ok(())
}

fn bind(address: SocketAddr, count: usize) -> Result<Vec<Listener>, Failure> {
    shard::listen::bind(address, count)
        .map(|sockets| sockets.into_iter().map(own).collect())
        .map_err(|error| Failure::usage(format!("cannot listen on {address}: {error}")))
}

fn own(socket: TcpListener) -> Listener {
    Listener { socket, is_shared: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(count: usize, is_shared: bool) -> Vec<Listener> {
        let bound = shard::listen::bind(([127, 0, 0, 1], 0).into(), count).expect("a free port");
        bound.into_iter().map(|socket| Listener { socket, is_shared }).collect()
    }

    #[test]
    fn every_shard_has_a_socket_and_every_socket_a_shard() {
        for is_shared in [false, true] {
            for (sockets, shards) in [(1, 1), (1, 4), (2, 3), (3, 2), (5, 2)] {
                let mut main = listeners(sockets, is_shared);
                let address = main[0].socket.local_addr().expect("bound");
                fill_up(&mut main, shards).expect("descriptors are left");
                let count = main.len();
                let parts = spread(main, shards);
                assert_eq!((parts.len(), count), (shards, sockets.max(shards)));
                assert!(parts.iter().all(|part| !part.is_empty()));
                assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), count);
                let mut all = parts.iter().flatten();
                assert!(all.all(|listener| listener.socket.local_addr().expect("bound") == address));
            }
        }
    }
}
