//! Workers of settings that are read again while the process runs: looked up before they serve.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use crate::control::Destinations;
use crate::control::FixedWorker;
use crate::control::url::WorkerUrl;

/// Looks up the names of workers that were not there before, so that they serve from the moment others stop. Who is not
/// found is looked for later.
pub(crate) fn look_up(workers: &mut [FixedWorker], before: &[FixedWorker], destinations: Destinations) {
    let known: std::collections::HashSet<&str> = before.iter().map(|worker| &*worker.url).collect();
    for worker in workers.iter_mut().filter(|worker| !known.contains(&*worker.url)) {
        let Ok(url) = WorkerUrl::parse(&worker.url) else { continue };
        if url.literal_address().is_some() {
            continue;
        }
        let found = (&*url.host, url.port).to_socket_addrs();
        let is_allowed = |address: &std::net::SocketAddr| destinations.allows(address.ip());
        Arc::make_mut(&mut worker.fixed).addresses = found.into_iter().flatten().filter(is_allowed).collect();
    }
}

/// Whether some worker is spoken to over TLS.
pub(crate) fn has_tls(workers: &[FixedWorker]) -> bool {
    workers.iter().any(|worker| worker.url.starts_with("https:"))
}
