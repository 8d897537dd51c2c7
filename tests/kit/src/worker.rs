//! A worker on plain sockets, whose every byte a test decides.
//!
//! Health and information endpoints answer by themselves, so that the gateway takes the worker in. A request to any
//! other path is an [`Exchange`]: a worker that is [answering](Worker::answering) answers it at once and records
//! it; one that is [manual](Worker::manual) hands it to the test, which then *is* the worker: it sends, holds back,
//! closes and resets as it likes.

mod exchange;
mod serve;

use std::collections::HashMap;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

pub use crate::worker::exchange::Exchange;
pub use crate::worker::exchange::Received;

use crate::wait;
use crate::wait::DEADLINE;

/// Connections the kernel may hold for a worker that does not accept: few, so that tests can fill it.
const BACKLOG: i32 = 64;

/// A running worker. Dropped, it is killed.
#[derive(Debug)]
pub struct Worker {
    addr: SocketAddr,
    shared: Arc<Shared>,
    exchanges: Receiver<Exchange>,
}

/// What a worker does with a request.
#[derive(Clone, Debug)]
enum Mode {
    /// Sends these bytes.
    Answer(Vec<u8>),
    /// Gives it to the test, its body read.
    HandOver,
    /// Gives it to the test, its body unread.
    HandOverUnread,
}

/// What the threads of a worker share.
#[derive(Debug)]
struct Shared {
    model: String,
    mode: Mutex<Mode>,
    health: AtomicU16,
    ranks: AtomicU16,
    metrics: Mutex<Option<String>>,
    received: Mutex<Vec<Received>>,
    asked: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    connections: Mutex<HashMap<usize, TcpStream>>,
    listener: Socket,
    is_stopped: AtomicBool,
}

impl Worker {
    /// A worker that answers every request with 200 and `{"worker":"URL"}`.
    #[track_caller]
    pub fn answering() -> Worker {
        Worker::answering_as("mock")
    }

    /// The same, with a model name of its own.
    #[track_caller]
    pub fn answering_as(model: &str) -> Worker {
        let worker = Worker::start(model, Mode::HandOver, SocketAddr::from(([127, 0, 0, 1], 0)));
        worker.answer_with(&json_answer(&format!("{{\"worker\":\"{}\"}}", worker.url())));
        worker
    }

    /// A worker whose requests the test answers.
    #[track_caller]
    pub fn manual() -> Worker {
        Worker::manual_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same, at a given address: one that was down may come up.
    #[track_caller]
    pub fn manual_at(addr: SocketAddr) -> Worker {
        Worker::start("mock", Mode::HandOver, addr)
    }

    fn start(model: &str, mode: Mode, addr: SocketAddr) -> Worker {
        let listener = listen(addr);
        let addr = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let (hand_over, exchanges) = channel();
        let shared = Arc::new(Shared {
            model: model.to_owned(),
            mode: Mutex::new(mode),
            health: AtomicU16::new(200),
            ranks: AtomicU16::new(1),
            metrics: Mutex::default(),
            received: Mutex::default(),
            asked: Mutex::default(),
            accepted: AtomicUsize::new(0),
            connections: Mutex::default(),
            listener: listener.try_clone().expect("descriptors are left"),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || serve::accept_all(&TcpListener::from(listener), &accepting, &hand_over));
        Worker { addr, shared, exchanges }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers every further request with these bytes.
    pub fn answer_with(&self, bytes: &[u8]) {
        *lock(&self.shared.mode) = Mode::Answer(bytes.to_vec());
    }

    /// Gives every further request to the test.
    pub fn hand_over(&self) {
        *lock(&self.shared.mode) = Mode::HandOver;
    }

    /// Gives every further request to the test before its body is read.
    pub fn hand_over_unread(&self) {
        *lock(&self.shared.mode) = Mode::HandOverUnread;
    }

    /// The next request for the test.
    #[track_caller]
    pub fn exchange(&self) -> Exchange {
        self.exchanges.recv_timeout(DEADLINE).expect("the gateway sends a request")
    }

    /// The next request for the test, if one comes in time.
    pub fn exchange_within(&self, limit: Duration) -> Option<Exchange> {
        self.exchanges.recv_timeout(limit).ok()
    }

    /// The next request for the test, if one came already.
    pub fn exchange_now(&self) -> Option<Exchange> {
        self.exchanges.try_recv().ok()
    }

    /// Requests read so far, health and information not counted.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// How often a health or information endpoint was asked, as `GET /health`.
    pub fn asked(&self, what: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|asked| *asked == what).count()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Says that it has so many data-parallel ranks, when it is asked next.
    pub fn set_ranks(&self, ranks: u16) {
        self.shared.ranks.store(ranks, Ordering::Relaxed);
    }

    /// Shows this metrics page, instead of none.
    pub fn set_metrics(&self, page: &str) {
        *lock(&self.shared.metrics) = Some(page.to_owned());
    }

    /// Answers health checks with this status.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::Relaxed);
    }

    /// Closes every connection that is open, and goes on listening.
    pub fn drop_connections(&self) {
        for (_, connection) in lock(&self.shared.connections).drain() {
            // Gone already, perhaps.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening, and lets connections live: new ones are refused from now on.
    pub fn refuse(&self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        // This wakes the accepting thread too, which then drops the listener.
        let _ = self.shared.listener.shutdown(Shutdown::Both);
        wait::until("connections are refused", || TcpStream::connect(self.addr).is_err());
    }

    /// Ends like a killed process.
    pub fn kill(&self) {
        self.refuse();
        self.drop_connections();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        let _ = self.shared.listener.shutdown(Shutdown::Both);
        self.drop_connections();
    }
}

/// An address to which no connection is ever made: it listens, and its queue is full.
#[derive(Debug)]
pub struct Unreachable {
    addr: SocketAddr,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Unreachable {
    /// Fills the queue of a listener at `addr` that accepts nothing.
    #[track_caller]
    pub fn at(addr: SocketAddr) -> Unreachable {
        let listener = socket(addr);
        listener.listen(0).expect("it is bound");
        let addr = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        // Once a connection does not come about at once, none does.
        let limit = Duration::from_millis(200);
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, limit) {
            waiting.push(stream);
        }
        Unreachable { addr, _listener: listener, _waiting: waiting }
    }

    /// Where connections hang.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A whole answer of JSON over a connection that lives on.
pub fn json_answer(body: &str) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

fn socket(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("descriptors are left");
    // A worker that comes back finds connections of its former life in TIME_WAIT.
    socket.set_reuse_address(true).expect("a socket option");
    socket.bind(&addr.into()).expect("the address is free");
    socket
}

fn listen(addr: SocketAddr) -> Socket {
    let socket = socket(addr);
    socket.listen(BACKLOG).expect("it is bound");
    socket
}

/// A mutex whose holders never panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
