//! What control has services do: everything that takes a socket.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fleet::id::WorkerId;
use fleet::secret::Secret;

use crate::control::config::Fixed;
use crate::control::event::Event;
use crate::control::event::Failure;
use crate::control::event::Probe;
use crate::control::poll::Endpoints;
use crate::control::poll::Polled;

/// A worker as something to call.
#[derive(Debug)]
pub struct Target {
    /// URL without trailing slash.
    pub url: Box<str>,
    /// Host without brackets, for look-ups.
    pub host: Box<str>,
    /// Port, for look-ups.
    pub port: u16,
    /// Which of the data-parallel ranks there; none for all.
    pub rank: Option<u16>,
    /// `Authorization` value.
    pub authorization: Option<Secret>,
}

/// One thing to do; each is answered by one [`Event`].
#[derive(Debug)]
pub enum Task {
    /// Look up a worker's name and ask for its health.
    Probe {
        /// Who.
        worker: WorkerId,
        /// Where.
        target: Arc<Target>,
        /// What to ask for.
        ask: Ask,
        /// Whether the host is a name that must be looked up.
        lookup: Lookup,
        /// For the whole of it.
        timeout: Duration,
    },
    /// Ask a worker what it serves.
    Describe {
        /// Who.
        worker: WorkerId,
        /// Where.
        target: Arc<Target>,
    },
    /// Ask a worker what it is busy with, and by what its process can be recognised.
    Poll {
        /// Who.
        worker: WorkerId,
        /// Where.
        target: Arc<Target>,
        /// Which endpoints to ask, as far as they are known.
        endpoints: Endpoints,
    },
    /// Ask several workers the same.
    Call {
        /// Names the waiting admin call.
        ticket: u64,
        /// What to ask.
        question: Question,
        /// Whom; answers come in this order.
        targets: Vec<Arc<Target>>,
    },
}

/// What shows that a worker is healthy.
#[derive(Clone, Debug)]
pub enum Ask {
    /// That its name has an address.
    Nothing,
    /// That it answers this path well.
    Path(Arc<str>),
    /// That it answers these requests well, and in JSON.
    Inference(Arc<Fixed>),
}

/// Whether a host must be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is an address.
    Needless,
    /// It is a name.
    Needed,
}

/// What workers are asked on behalf of an admin call. Of several paths the first that is not answered 404 counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Empty your prefix cache.
    FlushCache,
    /// How many tokens are you busy with?
    Load,
    /// What is your model?
    ModelInfo,
    /// Sleep, as deep as this query says.
    Sleep(Box<str>),
    /// Wake up, or what of you this query says.
    WakeUp(Box<str>),
    /// Do you sleep?
    IsSleeping,
}

// === impl Question ===

impl Question {
    /// Paths to try in turn: engines and their versions differ.
    pub fn paths(&self) -> Vec<Cow<'static, str>> {
        let fixed = |paths: &[&'static str]| paths.iter().map(|&path| path.into()).collect();
        let with = |path: &'static str, query: &str| {
            vec![if query.is_empty() { path.into() } else { format!("{path}?{query}").into() }]
        };
        match self {
            Self::FlushCache => fixed(&["/flush_cache", "/reset_prefix_cache"]),
            Self::Load => fixed(&["/get_load", "/v1/loads"]),
            Self::ModelInfo => fixed(&["/get_model_info", "/model_info"]),
            Self::Sleep(query) => with("/sleep", query),
            Self::WakeUp(query) => with("/wake_up", query),
            Self::IsSleeping => fixed(&["/is_sleeping"]),
        }
    }

    /// Whether whoever may ask for inference may have it asked.
    pub(crate) fn is_public(&self) -> bool {
        match self {
            Self::FlushCache | Self::Load | Self::Sleep(_) | Self::WakeUp(_) | Self::IsSleeping => false,
            Self::ModelInfo => true,
        }
    }
}

// === impl Task ===

impl Task {
    /// What became of a task that services had no room for: it failed like one that was tried.
    pub(crate) fn refused(self) -> Event {
        match self {
            Self::Probe { worker, .. } => {
                Event::Probed { worker, probe: Probe { addresses: None, answer: Err(Failure::Busy) } }
            }
            Self::Describe { worker, .. } => Event::Described { worker, metadata: Box::default() },
            Self::Poll { worker, endpoints, .. } => {
                Event::Polled { worker, polled: Box::new(Polled::failed(endpoints)) }
            }
            Self::Call { ticket, targets, .. } => {
                Event::Called { ticket, answers: targets.iter().map(|_| Err(Failure::Busy)).collect() }
            }
        }
    }
}
