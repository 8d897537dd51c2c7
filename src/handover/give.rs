//! The side that runs: waits for another process, tells it everything, and lets go when that one serves.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use fleet::cell::Lifecycle;
use fleet::cell::Phase;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::Mode;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;
use tracing::info;
use tracing::warn;

use super::Hello;
use super::PROTOCOL;
use super::Role;
use super::SocketRecord;
use super::Welcome;
use super::wire::FRAME_BYTES;
use super::wire::Kind;
use super::wire::Wire;
use super::wire::WireError;
use super::wire::json;
use crate::Failure;
use crate::control::event::Event;
use crate::sockets::Sockets;
use crate::systemd;

/// Pause between two looks whether the process ends.
const LOOK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Longest wait for the other side within the conversation, and for control.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait until it serves: it has its whole state to build.
const SERVING_PATIENCE: Duration = Duration::from_secs(60);

/// The socket at which the next process asks: bound from the start, so that there is none of whose place nobody knows
/// too late, and at its path once this process serves.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is until then.
    aside: PathBuf,
}

/// What is needed to hand over.
#[derive(Debug)]
pub(super) struct Giver {
    /// Copies of every listening socket, closed here when the process ends or has handed over.
    pub(super) sockets: Sockets,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) control: Sender<Event>,
}

impl Giver {
    /// Waits behind `door` for the next process, on a thread of its own.
    ///
    /// # Errors
    /// When the door cannot be put in its place, or there is no thread.
    pub(super) fn spawn(self, door: Door) -> io::Result<()> {
        let name = "handover".to_owned();
        let (path, listener) = door.open()?;
        std::thread::Builder::new().name(name).spawn(move || self.run(&path, &listener))?;
        Ok(())
    }

    fn run(self, path: &Path, listener: &UnixListener) {
        while self.lifecycle.phase() == Phase::Running {
            let mut waiting = [PollFd::new(listener, PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut waiting, Some(&LOOK_PAUSE)), Ok(1..)) {
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            match self.hand_over(stream) {
                Ok(pid) => return info!(pid, "handed over"),
                Err(error) => {
                    // Control ends later than this thread does.
                    let _ = self.control.send(Event::NotHandedOver);
                    warn!(%error, "no handover: this process goes on");
                }
            }
        }
        // Whoever is started now finds nobody to take over from.
        let _ = std::fs::remove_file(path);
    }

    fn hand_over(&self, stream: UnixStream) -> Result<u32, WireError> {
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(WireError::Nonsense("another user asked for it"));
        }
        let mut wire = Wire::new(stream, PATIENCE)?;
        let hello: Hello = json(&wire.expect(Kind::Hello)?)?;
        if hello.protocol != PROTOCOL {
            let ours = Hello::ours().version;
            let why = format!("its version {ours} hands over otherwise than {} takes over", hello.version);
            wire.send_json(Kind::Refused, &why)?;
            return Err(WireError::Nonsense("the new process speaks another version"));
        }
        info!(pid = hello.pid, version = hello.version, "another process takes over");
        self.tell(&mut wire)?;
        wire.set_patience(SERVING_PATIENCE)?;
        wire.expect(Kind::Serving)?;
        // From here on it is the other one's turn, whatever becomes of the words that are left.
        self.lifecycle.advance(Phase::HandedOver);
        let _ = self.control.send(Event::HandedOver);
        systemd::notify(&format!("MAINPID={}", hello.pid));
        let _ = wire.send(Kind::Goodbye, b"");
        Ok(hello.pid)
    }

    fn tell(&self, wire: &mut Wire) -> Result<(), WireError> {
        let (to, export) = crossbeam_channel::bounded(1);
        let busy = |_| WireError::Nonsense("control does not answer");
        self.control.send_timeout(Event::Export(to), PATIENCE).map_err(|_| busy(()))?;
        let export = export.recv_timeout(PATIENCE).map_err(|_| busy(()))?;
        wire.send_json(
            Kind::Welcome,
            &Welcome {
                pid: std::process::id(),
                now_us: export.now.as_micros() as u64,
                block_seed: export.block_seed,
                started_unix_s: export.started_unix_s,
            },
        )?;
        let Sockets { main, admin, metrics } = &self.sockets;
        let main = main.iter().map(|socket| (Role::Main, socket));
        let admin = admin.iter().map(|socket| (Role::Admin, socket));
        for (role, listener) in main.chain(admin).chain(metrics.iter().map(|socket| (Role::Metrics, socket)))
        {
            let record = SocketRecord { role, is_shared: listener.is_shared };
            wire.send_descriptor(Kind::Listener, &record, listener.socket.as_fd())?;
        }
        for worker in &export.workers {
            wire.send_json(Kind::Worker, worker)?;
        }
        let mut frame = Vec::with_capacity(2 * FRAME_BYTES);
        for node in export.tree.nodes() {
            if !frame.is_empty() && frame.len() + node.written_bytes() > FRAME_BYTES {
                wire.send(Kind::Tree, &frame)?;
                frame.clear();
            }
            node.write(&mut frame);
        }
        wire.send(Kind::Tree, &frame)?;
        frame.clear();
        for key in export.keys() {
            frame.extend(key);
            if frame.len() >= FRAME_BYTES {
                wire.send(Kind::Keys, &frame)?;
                frame.clear();
            }
        }
        wire.send(Kind::Keys, &frame)?;
        wire.send(Kind::End, b"")
    }
}

impl Door {
    /// Binds a socket beside `path`, which only this user may open.
    ///
    /// # Errors
    /// When there cannot be a socket there.
    pub(super) fn bind(path: &Path) -> Result<Self, Failure> {
        // Two processes that want to take over at once do not meet here.
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let listener = listen(&aside)
            .map_err(|error| Failure::usage(format!("--handover-socket {}: {error}", path.display())))?;
        Ok(Self { listener, path: path.to_owned(), aside })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the socket at its path, in place of whoever listened there.
    fn open(self) -> io::Result<(PathBuf, UnixListener)> {
        std::fs::rename(&self.aside, &self.path)?;
        Ok((self.path.clone(), self.listener.try_clone()?))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Gone, if it was opened.
        let _ = std::fs::remove_file(&self.aside);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // A process that had this one's id may have left it.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode of the socket becomes the mode of its file, so that there is no moment in which it is another.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(1)?;
    socket.set_nonblocking(true)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}
