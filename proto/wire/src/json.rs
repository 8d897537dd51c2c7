//! JSON over a complete buffer: scanning it strictly without allocation, and splicing a member in (RFC 8259).
//!
//! Two things are the caller's: that the buffer is valid UTF-8 (checked once for a whole body, at memory
//! speed, where it is received), and what a repeated key means.

mod scan;
mod skip;
mod splice;
mod string;

mod error;

pub use error::{JsonError, JsonErrorKind};
pub use scan::{Kind, Scanner, Span};
pub use splice::{Splice, insert_member};
pub use string::{Key, RawStr};
