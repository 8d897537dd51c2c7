//! What workers say about themselves, read from the bytes of their answers.
//!
//! Nothing here fails: an answer of an unexpected shape yields less knowledge, never an error.

pub mod incarnation;
pub mod load;
pub mod metadata;
pub mod metrics;
