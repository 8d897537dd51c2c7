//! Certificates for tests, and a client's side of TLS.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::place;
use crate::wait::DEADLINE;

/// What a TLS client reads and writes.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A certificate authority with files in a directory of its own, which goes with it.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// Its own certificate.
    pub cert: PathBuf,
    /// The address of the servers it makes certificates for.
    pub ip: Ipv4Addr,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    #[track_caller]
    pub fn generate() -> Authority {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ringway-certs-{}-{count}", process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("test authority {count}"));
        let key = KeyPair::generate().expect("a key");
        let cert = dir.join("ca.pem");
        fs::write(&cert, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        Authority { issuer: Issuer::new(params, key), dir, cert, ip: place::own_ip() }
    }

    /// A certificate for `localhost` and the servers' address, in files of this name; those that are there are
    /// replaced.
    #[track_caller]
    pub fn issue(&self, file: &str) -> Pair {
        self.issue_for(file, &["localhost", &self.ip.to_string()], 2100)
    }

    /// A certificate for these names, good until this year.
    #[track_caller]
    pub fn issue_for(&self, file: &str, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair =
            Pair { cert: self.dir.join(format!("{file}.pem")), key: self.dir.join(format!("{file}.key")) };
        replace(&pair.key, &key.serialize_pem());
        replace(&pair.cert, &cert.pem());
        pair
    }

    /// A client that trusts this authority alone and offers these protocols.
    ///
    /// # Panics
    /// When the server does not listen.
    #[track_caller]
    pub fn connect(&self, addr: SocketAddr, alpn: &[&[u8]]) -> TlsStream {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).expect("a certificate")).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        StreamOwned::new(connection, stream)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left behind is in a directory for such things.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Replaces a file as deployments do: at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, path).expect("renamed");
}
