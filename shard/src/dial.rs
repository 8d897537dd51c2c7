//! Making a connection to a worker: TCP, then TLS if its URL says so, then HTTP/2 if both sides speak it.

use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use fleet::snapshot::Transport;
use fleet::snapshot::Worker;
use fleet::stats::UpstreamFailure;
use monoio::net::TcpStream;
use rustls::AlertDescription;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tracing::debug;

use crate::ask::Failure;
use crate::http2;
use crate::http2::Multiplexed;
use crate::limits;
use crate::patience::Patience;
use crate::rt::socket::Socket;
use crate::rt::tls;
use crate::state::Shard;
use crate::upstream::Connection;

/// Why a connection could not be made.
#[derive(Debug)]
enum DialError {
    /// No TCP connection.
    Connect(io::Error),
    /// No TLS on it.
    Tls(io::Error),
    /// It broke before HTTP/2 began.
    Http2,
}

/// What speaks on a new connection.
enum Dialled {
    One(Socket),
    Many(Multiplexed),
}

/// A fresh connection to a worker, at the first of its addresses that takes one.
///
/// # Errors
/// The last address's failure; or what ended the client's side.
pub(crate) async fn connect(
    shard: &Rc<Shard>,
    waiting: &mut impl Patience,
    worker: &Worker,
) -> Result<Connection, Failure> {
    let mut failure = Failure::Upstream(UpstreamFailure::Connect);
    for &address in worker.addresses.iter().take(limits::ADDRESSES_TRIED_MAX) {
        shard.stats.upstream_connects_total.add(1);
        let time = shard.config().connect_timeout;
        match waiting.within(shard, time, dial(shard, worker, address)).await.map_err(Failure::Stop)? {
            Some(Ok(Dialled::One(stream))) => return Ok(Connection { stream, address, is_reused: false }),
            Some(Ok(Dialled::Many(connection))) => {
                let stream = shard.upstreams.borrow_mut().adopt(
                    worker.id,
                    address,
                    connection,
                    shard.clock.coarse_ms(),
                );
                return Ok(Connection { stream, address, is_reused: false });
            }
            Some(Err(error)) => {
                debug!(%address, ?error, "cannot connect");
                failure = error.failure();
            }
            None => failure = Failure::Upstream(UpstreamFailure::ConnectTimeout),
        }
    }
    Err(failure)
}

async fn dial(shard: &Shard, worker: &Worker, address: SocketAddr) -> Result<Dialled, DialError> {
    let stream = TcpStream::connect_addr(address).await.map_err(DialError::Connect)?;
    // Only latency is lost if this fails.
    let _ = stream.set_nodelay(true);
    let (socket, is_http2) = match &worker.transport {
        Transport::Plain => (Socket::Tcp(stream), false),
        Transport::PlainHttp2 => (Socket::Tcp(stream), true),
        Transport::Tls(name) => {
            let name = ServerName::try_from(name.to_string())
                .map_err(|error| DialError::Tls(io::Error::other(error)))?;
            let config = Arc::clone(&shard.config().worker_tls);
            let tls = Box::pin(tls::connect(stream, config, name)).await.map_err(DialError::Tls)?;
            let is_http2 = tls.is_http2();
            (Socket::Tls(Box::new(tls)), is_http2)
        }
    };
    if is_http2 {
        Box::pin(http2::dial(socket)).await.map(Dialled::Many).map_err(|_| DialError::Http2)
    } else {
        Ok(Dialled::One(socket))
    }
}

// === impl DialError ===

impl DialError {
    /// Whose fault it is: the worker's, or our own want of descriptors, ports or memory, which says nothing about the
    /// worker.
    fn failure(&self) -> Failure {
        match self {
            Self::Connect(error) => Failure::Upstream(match error.kind() {
                ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::TimedOut => UpstreamFailure::Connect,
                _ => UpstreamFailure::Local,
            }),
            Self::Tls(error) => Failure::Tls(tls_reason(error)),
            Self::Http2 => Failure::Upstream(UpstreamFailure::Send),
        }
    }
}

/// Why there is no TLS, in words that may be shown to clients.
fn tls_reason(error: &io::Error) -> &'static str {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return "it broke off the TLS handshake";
    };
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::UnknownIssuer => "its certificate is from an authority that is not trusted",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::Revoked => "its certificate is revoked",
            _ => "its certificate is not valid",
        },
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => "it does not accept our certificate",
        Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the TLS handshake failed",
    }
}
