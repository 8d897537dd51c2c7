//! Frames between the process that goes and the one that comes, over a Unix socket that carries descriptors too.
//!
//! A frame is a kind (32 bits), a length (32 bits, both little-endian) and so many bytes. Whatever is no frame ends the
//! conversation.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fleet::tree::Malformed;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame: the largest node of a prefix tree, which every worker holds, fits twice, and
/// whatever may be registered of a worker.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes collected before a frame of many small things leaves.
pub(super) const FRAME_BYTES: usize = 128 * 1024;
/// Descriptors that came and were not asked for yet; each comes with a frame of its own.
const DESCRIPTORS_MAX: usize = 4;
const HEAD_BYTES: usize = 8;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// New: who it is.
    Hello = 1,
    /// Old: who it is, and from when it counts its time.
    Welcome = 2,
    /// Old: why there is no handover.
    Refused = 3,
    /// Old: a listening socket, with its descriptor.
    Listener = 4,
    /// Old: a worker.
    Worker = 5,
    /// Old: nodes of the prefix tree.
    Tree = 6,
    /// Old: keys with their workers.
    Keys = 7,
    /// Old: that was all.
    End = 8,
    /// New: it serves.
    Serving = 9,
    /// Old: it serves nobody new any more.
    Goodbye = 10,
}

/// Why the two cannot go on.
#[derive(Debug)]
pub(super) enum WireError {
    Io(io::Error),
    /// A frame of no kind, too long, or not what was to come.
    Nonsense(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                f.write_str("it does not answer")
            }
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => f.write_str("it is gone"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Nonsense(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for WireError {
    fn from(Malformed: Malformed) -> Self {
        Self::Nonsense("it sends what cannot be read")
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    descriptors: VecDeque<OwnedFd>,
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Listener,
        Self::Worker,
        Self::Tree,
        Self::Keys,
        Self::End,
        Self::Serving,
        Self::Goodbye,
    ];
}

// === impl Wire ===

impl Wire {
    /// A conversation in which nobody waits longer than `patience` for the other.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, descriptors: VecDeque::new() })
    }

    /// Waits so long for the next frame.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    pub(super) fn send(&mut self, kind: Kind, body: &[u8]) -> Result<(), WireError> {
        let frame = frame(kind, body)?;
        Ok(self.stream.write_all(&frame)?)
    }

    pub(super) fn send_json(&mut self, kind: Kind, body: &impl Serialize) -> Result<(), WireError> {
        let body = serde_json::to_vec(body).map_err(io::Error::other)?;
        self.send(kind, &body)
    }

    /// Sends a frame with a descriptor.
    pub(super) fn send_descriptor(
        &mut self,
        kind: Kind,
        body: &impl Serialize,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), WireError> {
        let frame = frame(kind, &serde_json::to_vec(body).map_err(io::Error::other)?)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(WireError::Nonsense("a descriptor finds no room"));
        }
        let pieces = [IoSlice::new(&frame)];
        let sent = rustix::net::sendmsg(&self.stream, &pieces, &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(io::Error::from)?;
        Ok(self.stream.write_all(&frame[sent..])?)
    }

    /// The next frame.
    pub(super) fn receive(&mut self) -> Result<(Kind, Vec<u8>), WireError> {
        let mut head = [0; HEAD_BYTES];
        self.receive_head(&mut head)?;
        let word = u64::from_le_bytes(head);
        let (kind, len) = (word as u32, (word >> 32) as usize);
        let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind);
        let kind = kind.ok_or(WireError::Nonsense("it sends frames that are not known here"))?;
        if len > FRAME_BYTES_MAX {
            return Err(WireError::Nonsense("it sends a frame that is too long"));
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }

    /// The next frame, which must be of this kind.
    pub(super) fn expect(&mut self, wanted: Kind) -> Result<Vec<u8>, WireError> {
        match self.receive()? {
            (kind, body) if kind == wanted => Ok(body),
            _ => Err(WireError::Nonsense("it sends another frame than was to come")),
        }
    }

    /// The descriptor that came with the latest frame.
    pub(super) fn take_descriptor(&mut self) -> Result<OwnedFd, WireError> {
        self.descriptors.pop_front().ok_or(WireError::Nonsense("a socket comes without its descriptor"))
    }

    /// Reads the head of a frame, and the descriptor that may come with it.
    fn receive_head(&mut self, head: &mut [u8; HEAD_BYTES]) -> Result<(), WireError> {
        let mut filled = 0;
        while filled < HEAD_BYTES {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut pieces = [IoSliceMut::new(&mut head[filled..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(&self.stream, &mut pieces, &mut ancillary, flags);
            let received = match received {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if self.descriptors.len() > DESCRIPTORS_MAX {
                return Err(WireError::Nonsense("it sends descriptors that nobody asked for"));
            }
            if received == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            filled += received;
        }
        Ok(())
    }
}

/// Reads the body of a frame.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|_| WireError::Nonsense("it sends what cannot be read"))
}

fn frame(kind: Kind, body: &[u8]) -> Result<Vec<u8>, WireError> {
    if body.len() > FRAME_BYTES_MAX {
        return Err(WireError::Nonsense("a frame would be too long"));
    }
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend((kind as u32).to_le_bytes());
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(body);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("descriptors are left");
        (Wire::new(ours, Duration::from_secs(5)).expect("a socket"), theirs)
    }

    #[test]
    fn frames_and_descriptors_arrive() {
        let (mut wire, theirs) = pair();
        let mut other = Wire::new(theirs, Duration::from_secs(5)).expect("a socket");
        let file = std::fs::File::open("/dev/null").expect("there is one");
        wire.send(Kind::Tree, b"abc").expect("room");
        wire.send_descriptor(Kind::Listener, &"main", file.as_fd()).expect("room");
        wire.send(Kind::End, b"").expect("room");
        assert_eq!(other.receive().expect("a frame"), (Kind::Tree, b"abc".to_vec()));
        assert_eq!(json::<String>(&other.expect(Kind::Listener).expect("a frame")).expect("JSON"), "main");
        other.take_descriptor().expect("it came along");
        assert!(other.take_descriptor().is_err(), "there was one");
        assert!(other.expect(Kind::Serving).is_err(), "that was the end");
    }

    #[test]
    fn nonsense_ends_the_conversation() {
        let kind = |kind: u32, len: u32| [kind.to_le_bytes(), len.to_le_bytes()].concat();
        for bytes in
            [b"GET / HTTP/1.1\r\n\r\n".to_vec(), kind(0, 1), kind(77, 0), kind(1, u32::MAX), kind(1, 9)]
        {
            let (mut wire, mut theirs) = pair();
            theirs.write_all(&bytes).expect("room");
            drop(theirs);
            assert!(wire.receive().is_err(), "{bytes:?}");
        }
    }
}
