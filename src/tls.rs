//! Certificates and keys: read from PEM files, turned into what rustls runs by, and read again when they change.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tracing::info;
use tracing::warn;

/// Pause between two looks at the files of the server's certificate.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// What both sides offer, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Sessions that may be resumed without a full handshake, over all workers.
const CLIENT_SESSIONS_MAX: usize = 1024;

/// What the process runs TLS by.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Towards clients, if it is on.
    pub(crate) server: Option<Arc<Server>>,
    /// Towards `https://` workers.
    pub(crate) client: Client,
}

/// TLS towards workers.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) authorities: Arc<Authorities>,
}

/// Why certificates or keys cannot be used.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// A file is missing or is not the PEM it should be.
    File(PathBuf, pem::Error),
    /// A file holds no certificate.
    Empty(PathBuf),
    /// The key is not of a kind that is known, or does not fit the certificate.
    Key(PathBuf, rustls::Error),
    /// An authority's certificate cannot be used.
    Authority(PathBuf, rustls::Error),
    /// rustls refuses the whole.
    Refused(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, pem::Error::Io(error)) => write!(f, "cannot read {}: {error}", path.display()),
            Self::File(path, error) => write!(f, "{} is not usable: {error}", path.display()),
            Self::Empty(path) => write!(f, "{} holds no certificate", path.display()),
            Self::Key(path, error) => write!(f, "the key in {} is not usable: {error}", path.display()),
            Self::Authority(path, error) => write!(f, "an authority in {}: {error}", path.display()),
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

/// TLS towards clients.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: Arc<ServerConfig>,
    identity: Arc<Identity>,
}

/// The certificate shown to clients, with where it is read from.
#[derive(Debug)]
struct Identity {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

// === impl Server ===

impl Server {
    /// Reads a chain and its key.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(certified_key(cert, key)?);
        let identity = Arc::new(Identity { cert: cert.to_owned(), key: key.to_owned(), current });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Refused)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        // Tickets are kept by the client, so a session is resumed on any shard.
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Refused)?;
        Ok(Self { config: Arc::new(config), identity })
    }

    /// Shows the certificate of `other` from now on, which was read from the same files later.
    pub(crate) fn adopt(&self, other: &Self) {
        self.identity.current.store(other.identity.current.load_full());
    }

    /// Reads the files again whenever they change, for as long as it is polled. A pair that cannot be used is told in
    /// the log, and the one before it stays.
    pub(crate) async fn watch(&self) {
        let identity = &self.identity;
        let mut seen = stamp(identity);
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let identity = Arc::clone(identity);
            // Files may lie on a disk that does not answer.
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamp(&identity);
                if now == seen {
                    return now;
                }
                match certified_key(&identity.cert, &identity.key) {
                    Ok(key) => {
                        identity.current.store(Arc::new(key));
                        info!(cert = %identity.cert.display(), "the certificate was read again");
                    }
                    Err(error) => {
                        warn!(%error, "the new certificate is not usable: the one before it stays");
                    }
                }
                now
            });
            match looked.await {
                Ok(now) => seen = now,
                Err(_) => return,
            }
        }
    }
}

/// What tells one state of two files from another; an error is a state too.
type Stamp = [Result<(u64, u64, i64, i64), io::ErrorKind>; 2];

fn stamp(identity: &Identity) -> Stamp {
    [&identity.cert, &identity.key].map(|path| {
        let found = fs::metadata(path).map_err(|error| error.kind())?;
        Ok((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    })
}

/// The authorities that vouch for workers: those in named files, which are read at start, and the system's. These are
/// read when the first worker with TLS is there: it takes some milliseconds, and most gateways have no such worker.
#[derive(Debug)]
pub(crate) struct Authorities {
    named: RootCertStore,
    provider: Arc<CryptoProvider>,
    /// None when there is no authority at all.
    verifier: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

// === impl Authorities ===

impl Authorities {
    /// Reads the system's authorities, if that was not done before. To be called off the shards before they are given
    /// a worker with TLS, so that none of them ever waits for it.
    pub(crate) fn load(&self) {
        self.verifier();
    }

    fn verifier(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        let load = || {
            let mut roots = self.named.clone();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
        };
        self.verifier.get_or_init(load).as_ref()
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = self.verifier().ok_or(CertificateError::UnknownIssuer)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS towards workers: the system's authorities and those in `authorities` are trusted, and `identity` is shown to
/// whoever asks for it.
///
/// # Errors
/// When a named file cannot be used. Authorities of the system that cannot be read are passed over.
pub(crate) fn client(authorities: &[PathBuf], identity: Option<(&Path, &Path)>) -> Result<Client, TlsError> {
    let mut named = RootCertStore::empty();
    for path in authorities {
        for authority in certificates(path)? {
            named.add(authority).map_err(|error| TlsError::Authority(path.clone(), error))?;
        }
    }
    let authorities = Arc::new(Authorities { named, provider: provider(), verifier: OnceLock::new() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        // What it verifies, it has rustls verify.
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&authorities) as Arc<dyn ServerCertVerifier>);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            certified_key(cert, key)?;
            builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| TlsError::Key(key.to_owned(), error))?
        }
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.resumption = rustls::client::Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
    Ok(Client { config: Arc::new(config), authorities })
}

/// Whom the gateway takes for itself: whoever shows its own certificate of this moment, whatever name and authority that
/// has.
#[derive(Debug)]
struct Myself {
    identity: Arc<Identity>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Myself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.identity.current.load().cert.first() {
            Some(own) if own == end_entity => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS of a client of the gateway's own listener, in HTTP/1.1.
///
/// # Errors
/// When rustls refuses it.
pub(crate) fn client_of(server: &Server) -> Result<ClientConfig, TlsError> {
    let myself = Myself { identity: Arc::clone(&server.identity), provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(myself))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certified_key(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert)?;
    CertifiedKey::from_der(chain, private_key(key)?, &provider())
        .map_err(|error| TlsError::Key(key.to_owned(), error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |error| TlsError::File(path.to_owned(), error);
    let chain = CertificateDer::pem_file_iter(path).map_err(file)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(file)?;
    if chain.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_authorities_are_read_when_they_are_needed() {
        let client = client(&[], None).expect("no files");
        assert!(client.authorities.verifier.get().is_none(), "nobody needs them yet");
        client.authorities.load();
        assert!(client.authorities.verifier.get().is_some());
    }
}
