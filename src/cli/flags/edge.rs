//! Flags of the transport edge: TLS on both sides, and what a single client may take.

use std::path::PathBuf;

use clap::Args;

/// Who is shown which certificate, and whose are trusted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsFlags {
    /// Certificate chain to show to clients, a PEM file; read again when it changes; needs --tls-key-path
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_path: Option<PathBuf>,
    /// Its private key, a PEM file; needs --tls-cert-path
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key_path: Option<PathBuf>,
    /// Authorities trusted for https:// workers beside the system's, PEM files
    #[arg(long, num_args = 0.., value_name = "FILE")]
    pub(crate) ca_cert_paths: Vec<PathBuf>,
    /// Certificate chain to show to https:// workers, a PEM file; needs --client-key-path
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert_path: Option<PathBuf>,
    /// Its private key, a PEM file; needs --client-cert-path
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key_path: Option<PathBuf>,
}

/// What one client may take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Hostile and slow clients")]
pub(crate) struct ClientFlags {
    /// Connections of one client address over all shards, more are closed at once; IPv6 counts by /64; 0 for no bound
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) max_connections_per_address: u32,
    /// Least bytes of a request body per second, after five seconds; a slower one is answered 408; 0 for no bound
    #[arg(long, default_value_t = 240, value_name = "BYTES")]
    pub(crate) min_body_rate: u64,
}
