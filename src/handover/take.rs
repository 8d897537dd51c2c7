//! The side that comes: finds the process that runs, takes what it tells, and says when it serves.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use shard::listen::Listener;

use super::Hello;
use super::Role;
use super::SocketRecord;
use super::Welcome;
use super::wire::Kind;
use super::wire::Wire;
use super::wire::WireError;
use super::wire::json;
use crate::Failure;
use crate::control::State;
use crate::control::record::WorkerRecord;

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sockets that one process hands over: as many as it may have shards, and two.
const SOCKETS_MAX: usize = 2048;
/// Workers that one process tells of: as many as may be registered.
const WORKERS_MAX: usize = crate::control::limits::WORKERS_MAX;

/// What the process before left.
#[derive(Debug)]
pub(crate) struct Inheritance {
    wire: Wire,
    welcome: Welcome,
    /// When it counted its time.
    at: Instant,
    /// The first frame behind the workers.
    next: Option<(Kind, Vec<u8>)>,
    pub(crate) main: Vec<Listener>,
    pub(crate) admin: Option<Listener>,
    pub(crate) metrics: Option<Listener>,
    pub(crate) workers: Vec<WorkerRecord>,
}

/// The process that listens at `path`, with what it has to give; none if there is no such process.
///
/// # Errors
/// When there is one and it does not hand over: then it still runs, and this one must not.
pub(super) fn find(path: &Path) -> Result<Option<Inheritance>, Failure> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return match std::fs::symlink_metadata(path) {
                Ok(found) if !found.file_type().is_socket() => {
                    Err(Failure::usage(format!("--handover-socket {}: it is no socket", path.display())))
                }
                Ok(_) | Err(_) => Ok(None),
            };
        }
        Err(error) => {
            return Err(Failure::usage(format!("--handover-socket {}: {error}", path.display())));
        }
    };
    // Whoever else listens there would be given the traffic of this one.
    let peer = rustix::net::sockopt::socket_peercred(&stream)
        .map_err(|error| Failure::usage(format!("--handover-socket {}: {error}", path.display())))?;
    if peer.uid != rustix::process::geteuid() {
        return Err(Failure::usage(format!(
            "--handover-socket {}: another user's process listens there",
            path.display()
        )));
    }
    receive(stream).map(Some).map_err(failure)
}

fn failure(error: WireError) -> Failure {
    Failure::usage(format!("--handover-socket: the gateway that runs does not hand over: {error}"))
}

fn receive(stream: UnixStream) -> Result<Inheritance, WireError> {
    let mut wire = Wire::new(stream, PATIENCE)?;
    wire.send_json(Kind::Hello, &Hello::ours())?;
    let welcome: Welcome = match wire.receive()? {
        (Kind::Welcome, body) => json(&body)?,
        (Kind::Refused, body) => {
            let why: String = json(&body)?;
            return Err(WireError::Io(io::Error::other(why)));
        }
        _ => return Err(WireError::Nonsense("it sends another frame than was to come")),
    };
    let at = Instant::now();
    let (mut main, mut admin, mut metrics, mut workers) = (Vec::new(), None, None, Vec::new());
    let next = loop {
        match wire.receive()? {
            (Kind::Listener, body) => {
                let SocketRecord { role, is_shared } = json(&body)?;
                let socket = TcpListener::from(wire.take_descriptor()?);
                socket.set_nonblocking(true)?;
                // What is no TCP socket has no such address.
                socket.local_addr()?;
                let listener = Listener { socket, is_shared };
                match role {
                    Role::Main if main.len() < SOCKETS_MAX => main.push(listener),
                    Role::Main => return Err(WireError::Nonsense("it sends too many sockets")),
                    Role::Admin => admin = Some(listener),
                    Role::Metrics => metrics = Some(listener),
                }
            }
            (Kind::Worker, body) if workers.len() < WORKERS_MAX => workers.push(json(&body)?),
            (Kind::Worker, _) => return Err(WireError::Nonsense("it tells of too many workers")),
            other => break Some(other),
        }
    };
    Ok(Inheritance { wire, welcome, at, next, main, admin, metrics, workers })
}

impl Inheritance {
    /// The moment from which both processes count their time.
    pub(crate) fn start(&self) -> Instant {
        let since = Duration::from_micros(self.welcome.now_us);
        self.at.checked_sub(since).unwrap_or(self.at)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.welcome.pid
    }

    /// Whether one of its workers is reached by TLS.
    pub(crate) fn has_tls_workers(&self) -> bool {
        self.workers.iter().any(|worker| worker.url.starts_with("https:"))
    }

    pub(crate) fn block_seed(&self) -> u64 {
        self.welcome.block_seed
    }

    pub(crate) fn started_unix_s(&self) -> u64 {
        self.welcome.started_unix_s
    }

    /// Brings what is left, the prefix tree and the keys, into `state`, which was made with the workers.
    ///
    /// # Errors
    /// When the process before says something that cannot be understood, or nothing.
    pub(crate) fn fill(&mut self, state: &mut State) -> Result<(), Failure> {
        self.try_fill(state).map_err(failure)
    }

    fn try_fill(&mut self, state: &mut State) -> Result<(), WireError> {
        let Self { wire, next, .. } = self;
        state.take_tree(|| {
            let frame = next.take().map_or_else(|| wire.receive(), Ok)?;
            if frame.0 == Kind::Tree {
                return Ok(Some(frame.1));
            }
            *next = Some(frame);
            Ok::<_, WireError>(None)
        })?;
        loop {
            match next.take().map_or_else(|| wire.receive(), Ok)? {
                (Kind::Keys, keys) => state.take_keys(&keys)?,
                (Kind::End, _) => return Ok(()),
                _ => return Err(WireError::Nonsense("it sends another frame than was to come")),
            }
        }
    }

    /// Says that this process serves, and waits until the other one serves nobody new.
    ///
    /// # Errors
    /// When the other one has given this one up and goes on itself.
    pub(crate) fn serving(mut self, path: &Path) -> Result<(), Failure> {
        let Err(error) = self.try_serving() else { return Ok(()) };
        // If nobody is there any more, it ended meanwhile, and all is ours.
        if UnixStream::connect(path).is_ok() { Err(failure(error)) } else { Ok(()) }
    }

    fn try_serving(&mut self) -> Result<(), WireError> {
        self.wire.send(Kind::Serving, b"")?;
        self.wire.expect(Kind::Goodbye).map(drop)
    }
}
