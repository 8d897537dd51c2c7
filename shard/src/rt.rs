//! What the data plane needs of the machine: the ring, sockets, waiting, CPUs.

pub mod cpu;
pub mod driver;
pub(crate) mod io;
pub(crate) mod pipe;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod wait;
