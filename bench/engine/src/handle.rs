//! An engine's thread: listens, accepts, and closes everything at once when told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use monoio::{FusionDriver, RuntimeBuilder};

use crate::config::EngineConfig;
use crate::connection::{first, serve};
use crate::engine::{Engine, Shared};
use crate::fault::FaultPlan;
use crate::stats::EngineStats;
use crate::watch::{CloseWatch, set_reset_on_close};

/// Entries of the engine's submission ring: connections share them, and locked memory is scarce.
const RING_ENTRIES: u32 = 256;

/// A running engine. Dropped, it is stopped.
#[derive(Debug)]
pub struct EngineHandle {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Our end of the pair whose closing stops the engine.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Connections now open, so that a stop can close them.
#[derive(Debug, Default)]
struct Connections {
    open: RefCell<HashMap<u64, Rc<CloseWatch>>>,
    next: Cell<u64>,
}

/// Starts an engine in a thread of its own; returns once it listens.
pub fn spawn(config: EngineConfig) -> io::Result<EngineHandle> {
    let listener = TcpListener::bind((config.host, config.port))?;
    let addr = listener.local_addr()?;
    let shared = Arc::new(Shared::default());
    shared.faults.store(Arc::new(config.faults.clone()));
    let (stop, stopped) = UnixStream::pair()?;
    let engine_shared = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name(format!("engine-{}", addr.port()))
        .spawn(move || run_until(config, listener, engine_shared, stopped))?;
    Ok(EngineHandle { addr, shared, stop: Some(stop), thread: Some(thread) })
}

/// Runs an engine in this thread; returns only when it fails.
pub fn run(config: EngineConfig) -> io::Result<()> {
    let listener = TcpListener::bind((config.host, config.port))?;
    let shared = Arc::new(Shared::default());
    shared.faults.store(Arc::new(config.faults.clone()));
    let (_stop, stopped) = UnixStream::pair()?;
    run_until(config, listener, shared, stopped)
}

// === impl EngineHandle ===

impl EngineHandle {
    /// Where the engine listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://HOST:PORT`, without a final slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The counters now.
    pub fn stats(&self) -> EngineStats {
        self.shared.stats.load()
    }

    /// Replaces the standing faults; requests that are being answered keep theirs.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.shared.faults.store(Arc::new(faults));
    }

    /// Closes the listener and every connection at once, like a kill, and waits for the thread.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the engine's thread has been printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn run_until(
    config: EngineConfig,
    listener: TcpListener,
    shared: Arc<Shared>,
    stopped: UnixStream,
) -> io::Result<()> {
    let mut runtime =
        RuntimeBuilder::<FusionDriver>::new().enable_timer().with_entries(RING_ENTRIES).build()?;
    runtime.block_on(async move {
        let port = listener.local_addr()?.port();
        let engine = Rc::new(Engine::new(config, port, shared));
        let connections = Rc::new(Connections::default());
        stopped.set_nonblocking(true)?;
        let stopped = monoio::net::UnixStream::from_std(stopped)?;
        let accepting = accept_all(&engine, &listener, &connections);
        // Nothing is ever written to the pair: it becomes readable when the other end closes.
        let ended = first(accepting, async { drop(stopped.readable(false).await) }).await;
        // A listening socket that is shut down refuses at once, whoever still holds it.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        for connection in connections.open.borrow().values() {
            connection.shut();
        }
        ended.unwrap_or(Ok(()))
    })
}

async fn accept_all(
    engine: &Rc<Engine>,
    listener: &TcpListener,
    connections: &Rc<Connections>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let waited = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
    // io_uring waits in the kernel and wants blocking sockets, epoll wants the others.
    let is_nonblocking = !monoio::utils::detect_uring();
    loop {
        waited.readable(false).await?;
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The client was gone before it was accepted, or descriptors are short.
                Err(_) => break,
            };
            if engine.shared.faults.load().refuse {
                set_reset_on_close(&stream);
                continue;
            }
            // A connection that cannot be set up is closed; the others go on.
            let _ = open(engine, stream, is_nonblocking, connections);
        }
    }
}

fn open(
    engine: &Rc<Engine>,
    stream: TcpStream,
    is_nonblocking: bool,
    connections: &Rc<Connections>,
) -> io::Result<()> {
    stream.set_nonblocking(is_nonblocking)?;
    stream.set_nodelay(true)?;
    let watch = Rc::new(CloseWatch::of(&stream)?);
    let stream = monoio::net::TcpStream::from_std(stream)?;
    let id = connections.next.get();
    connections.next.set(id + 1);
    connections.open.borrow_mut().insert(id, Rc::clone(&watch));
    let (engine, connections) = (Rc::clone(engine), Rc::clone(connections));
    monoio::spawn(async move {
        serve(engine, stream, watch).await;
        connections.open.borrow_mut().remove(&id);
    });
    Ok(())
}
