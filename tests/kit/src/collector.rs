//! A collector of spans: takes OTLP's calls over gRPC and keeps, or only counts, what it was sent.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use crate::http2::DATA;
use crate::http2::END_HEADERS;
use crate::http2::END_STREAM;
use crate::http2::HEADERS;
use crate::http2::Http2;
use crate::http2::PREFACE;
use crate::http2::SETTINGS;
use crate::http2::WINDOW_UPDATE;
use crate::http2::block;
use crate::http2::frame;

/// What a window is opened to at once, so that a call never waits for leave.
const WINDOW_BYTES: u32 = 1 << 30;

/// A collector that takes everything.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    /// One on a port that is free.
    ///
    /// # Panics
    /// When none is.
    #[expect(clippy::panic, reason = "a test cannot go on without it")]
    pub fn start() -> Self {
        match TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => {
                let calls = Arc::default();
                let kept = Arc::clone(&calls);
                thread::spawn(move || {
                    serve(&listener, move |call| lock(&kept).push(call));
                });
                Self { address, calls }
            }
            Err(error) => panic!("no collector: {error}"),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether some call has carried this text.
    pub fn has(&self, text: &str) -> bool {
        let is_in = |call: &Vec<u8>| call.windows(text.len()).any(|window| window == text.as_bytes());
        lock(&self.calls).iter().any(is_in)
    }
}

fn lock(calls: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers every call on every connection, for as long as connections come, with each call's bytes given to `take`.
pub fn serve(listener: &TcpListener, take: impl Fn(Vec<u8>) + Clone + Send + 'static) {
    for stream in listener.incoming().flatten() {
        let take = take.clone();
        thread::spawn(move || converse(stream, take));
    }
}

/// Serves a connection until its peer has enough.
fn converse(mut stream: TcpStream, take: impl Fn(Vec<u8>)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    io::Read::read_exact(&mut stream, &mut [0; PREFACE.len()])?;
    let mut peer = Http2::silent(stream);
    // SETTINGS_INITIAL_WINDOW_SIZE
    let window = [&4_u16.to_be_bytes()[..], &WINDOW_BYTES.to_be_bytes()].concat();
    peer.send(&frame(SETTINGS, 0, 0, &window))?;
    peer.send(&frame(WINDOW_UPDATE, 0, 0, &WINDOW_BYTES.to_be_bytes()))?;
    // The exporter makes one call at a time.
    let mut call = Vec::new();
    let mut taken: u32 = 0;
    while let Some(found) = peer.frame() {
        if found.kind != DATA {
            continue;
        }
        call.extend_from_slice(&found.payload);
        taken += found.payload.len() as u32;
        if taken > WINDOW_BYTES / 2 {
            peer.send(&frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes()))?;
            taken = 0;
        }
        if found.flags & END_STREAM != 0 {
            take(std::mem::take(&mut call));
            let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
            let answer = [
                frame(HEADERS, END_HEADERS, found.stream, &head),
                frame(DATA, 0, found.stream, &[0; 5]),
                frame(HEADERS, END_HEADERS | END_STREAM, found.stream, &block(&[("grpc-status", "0")])),
            ];
            peer.send(&answer.concat())?;
        }
    }
    Ok(())
}
