//! What the data plane needs of the machine: the ring, sockets, waiting, CPUs.

pub mod cpu;
pub mod driver;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod wait;
