//! The I/O driver of a shard: an io_uring set up for one thread, or epoll where the host refuses io_uring.

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;

use monoio::IoUringDriver;
use monoio::LegacyDriver;
use monoio::RuntimeBuilder;

/// Submission queue entries of a ring. Completions are twice as many; more pending operations than that only make
/// the kernel keep them in a list.
const RING_ENTRIES: u32 = 2048;

/// Which driver to use (`--io-driver`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl FromStr for IoDriver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            other => Err(format!("unknown I/O driver `{other}`: use auto, uring or epoll")),
        }
    }
}

impl fmt::Display for IoDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Ring flags in the order tried: single issuer with deferred task running (Linux 6.1) is a third less CPU than the
/// plain ring, since completions are only handled when the shard asks for them; older kernels get the plain ring.
fn ring_builders() -> [io_uring::Builder; 2] {
    let mut deferred = io_uring::IoUring::builder();
    deferred.setup_single_issuer().setup_defer_taskrun();
    [deferred, io_uring::IoUring::builder()]
}

/// Whether a ring such as a shard's can be made here, and with what error if not.
///
/// # Errors
/// The kernel's refusal: seccomp (`EPERM`), `kernel.io_uring_disabled` (`EPERM`), no support (`ENOSYS`) or too
/// little locked memory (`ENOMEM`).
pub fn probe_uring() -> io::Result<()> {
    let mut refusal = None;
    for builder in ring_builders() {
        match builder.build(RING_ENTRIES) {
            Ok(_) => return Ok(()),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

/// Resolves [`IoDriver::Auto`] to what this host allows; the error says why io_uring was refused.
pub fn resolve(driver: IoDriver) -> (IoDriver, Option<io::Error>) {
    match driver {
        IoDriver::Epoll => (IoDriver::Epoll, None),
        IoDriver::Uring => (IoDriver::Uring, probe_uring().err()),
        IoDriver::Auto => match probe_uring() {
            Ok(()) => (IoDriver::Uring, None),
            Err(error) => (IoDriver::Epoll, Some(error)),
        },
    }
}

/// Runs `make()` to its end on a runtime of the given kind, on this thread.
///
/// # Errors
/// When neither kind of ring, or no epoll, can be made.
pub(crate) fn block_on<F: Future<Output = ()>>(driver: IoDriver, make: impl FnOnce() -> F) -> io::Result<()> {
    if driver == IoDriver::Epoll {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        runtime.block_on(make());
        return Ok(());
    }
    let [deferred, plain] = ring_builders();
    let build = |ring| {
        RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(ring)
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()
    };
    let mut runtime = build(deferred).or_else(|_| build(plain))?;
    runtime.block_on(make());
    Ok(())
}
