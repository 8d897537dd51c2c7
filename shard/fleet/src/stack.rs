//! Settings of the front end of vLLM's production-stack router, published with the workers that they are about: a
//! request sees both of one moment.

use bytes::Bytes;

/// How a prefill engine hands over what it has computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// By a store that both share (`disaggregated_prefill`).
    Shared,
    /// By telling where it is (`disaggregated_prefill_orchestrated`).
    Orchestrated,
}

/// Settings of this front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Header, lower case, or field of the body, that names a session.
    pub session_key: Option<Box<str>>,
    /// How prefill engines hand over to those that decode, if requests are shared so.
    pub pairs: Option<Pairs>,
    /// Answer of `/health`.
    pub health: Bytes,
}
