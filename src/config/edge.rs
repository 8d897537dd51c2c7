//! The flags of the transport edge, with the files they name.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use fleet::peers::PeerCounts;

use crate::Failure;
use crate::cli::ClientFlags;
use crate::cli::TlsFlags;
use crate::tls;
use crate::tls::Tls;

/// Reads every file, so that one which cannot be used is told before anything starts.
pub(super) fn tls(flags: &TlsFlags) -> Result<Tls, Failure> {
    let server = both("--tls-cert-path", &flags.tls_cert_path, "--tls-key-path", &flags.tls_key_path)?;
    let client =
        both("--client-cert-path", &flags.client_cert_path, "--client-key-path", &flags.client_key_path)?;
    let server = server
        .map(|(cert, key)| tls::Server::load(cert, key))
        .transpose()
        .map_err(|error| Failure::usage(format!("--tls-cert-path, --tls-key-path: {error}")))?;
    let client = tls::client(&flags.ca_cert_paths, client)
        .map_err(|error| Failure::usage(format!("--ca-cert-paths, --client-cert-path: {error}")))?;
    Ok(Tls { server: server.map(Arc::new), client })
}

/// The counts of connections by address, if they have a bound.
pub(super) fn peers(flags: &ClientFlags, seed: u64) -> Option<Arc<PeerCounts>> {
    let connections_max = flags.max_connections_per_address;
    (connections_max > 0).then(|| Arc::new(PeerCounts::new(connections_max, seed)))
}

/// Two files of which neither is any use without the other.
fn both<'a>(
    cert_flag: &str,
    cert: &'a Option<PathBuf>,
    key_flag: &str,
    key: &'a Option<PathBuf>,
) -> Result<Option<(&'a Path, &'a Path)>, Failure> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage(format!("{cert_flag} needs {key_flag}"))),
        (None, Some(_)) => Err(Failure::usage(format!("{key_flag} needs {cert_flag}"))),
    }
}
