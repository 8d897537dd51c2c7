//! What clients and admins say: the endpoint table, the one error shape, and the peek into request bodies.
//!
//! This crate knows JSON shapes of the OpenAI and SGLang APIs; it knows nothing of workers or routing.

pub mod endpoint;
pub mod error;
pub mod peek;
