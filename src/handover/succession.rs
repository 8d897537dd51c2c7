//! One process's place in the row of them: what it has from the one before, and its readiness for the next.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;
use fleet::cell::Lifecycle;
use shard::listen::Listener;
use tracing::error;

use super::give::Door;
use super::give::Giver;
use super::take;
use super::take::Inheritance;
use crate::Failure;
use crate::control::event::Event;
use crate::sockets::Sockets;

/// A process that others come before and after.
#[derive(Debug)]
pub(crate) struct Succession {
    before: Option<Inheritance>,
    door: Door,
    /// Copies of every listening socket, for the next process.
    sockets: Option<Sockets>,
}

impl Succession {
    /// Takes what the process that listens at `path` tells, if there is one, and prepares to listen there instead.
    ///
    /// # Errors
    /// When nobody could take over from this process, or it cannot take over itself.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        // First, so that a process which nobody could follow does not ask the one before.
        let door = Door::bind(path)?;
        Ok(Self { before: take::find(path)?, door, sockets: None })
    }

    /// What the process before left, if there was one.
    pub(crate) fn before(&mut self) -> Option<&mut Inheritance> {
        self.before.as_mut()
    }

    /// Keeps copies of the sockets for the next process.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(crate) fn keep(&mut self, sockets: &Sockets) -> Result<(), Failure> {
        let copies = sockets.try_clone();
        let copies =
            copies.map_err(|error| Failure::runtime(format!("cannot copy the listeners: {error}")))?;
        self.sockets = Some(copies);
        Ok(())
    }

    /// Says to the process before that this one serves, whereupon it serves nobody new, and listens for the next.
    /// Returns the id of the process before, if there was one.
    ///
    /// # Errors
    /// When the process before goes on itself; or, for the first one, when there is no thread to listen.
    pub(crate) fn serve(
        self,
        lifecycle: &Arc<Lifecycle>,
        control: Sender<Event>,
    ) -> Result<Option<u32>, Failure> {
        let Self { before, door, sockets } = self;
        let after = before.as_ref().map(Inheritance::pid);
        if let Some(before) = before {
            before.serving(door.path())?;
        }
        let Some(sockets) = sockets else { return Ok(after) };
        // Whatever a process before this one did to its sockets as it ended.
        sockets.main.iter().for_each(Listener::welcome_newcomers);
        let at = door.path().display().to_string();
        let giver = Giver { sockets, lifecycle: Arc::clone(lifecycle), control };
        match giver.spawn(door) {
            Ok(()) => {}
            Err(error) if after.is_none() => {
                return Err(Failure::usage(format!("--handover-socket {at}: {error}")));
            }
            // The process before serves no more: better to serve without a successor than not at all.
            Err(error) => {
                error!(%error, "--handover-socket {at}: nobody can take over from this process")
            }
        }
        Ok(after)
    }
}
