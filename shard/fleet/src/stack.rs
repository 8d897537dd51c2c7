//! Settings of the front end of vLLM's production-stack router, published with the workers that they are about: a
//! request sees both of one moment.

use std::collections::HashMap;

use bytes::Bytes;

use crate::snapshot::Handoff;

/// Settings of this front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Models by their other names.
    pub aliases: HashMap<Box<str>, Box<str>>,
    /// Header, lower case, or field of the body, that names a session.
    pub session_key: Option<Box<str>>,
    /// How prefill engines hand over to those that decode, if requests are shared so.
    pub pairs: Option<Handoff>,
    /// Answer of `/health`.
    pub health: Bytes,
}
