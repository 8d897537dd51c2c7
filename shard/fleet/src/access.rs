//! Who may change the fleet, and the road to whoever verifies signed tokens.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use futures_channel::oneshot;

use crate::secret::Secret;

/// Tokens that wait for verification at most; beyond it a shard answers 503.
pub const TOKENS_QUEUED_MAX: usize = 256;

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Be known.
    User,
    /// Everything.
    Admin,
}

impl Role {
    /// The role that a flag or a claim names.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "admin" => Some(Self::Admin),
            "user" => Some(Self::User),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }
}

/// Whoever asks for a change, as far as credentials tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What it is called: the name of a key, or the subject of a token.
    pub name: Arc<str>,
    /// How it showed who it is, such as `api_key:ops` or `jwt:https://issuer`.
    pub method: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// Why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not good, for this reason.
    Invalid(Cow<'static, str>),
    /// Nobody could look at it.
    Unavailable,
}

/// A token with the road back.
#[derive(Debug)]
pub struct TokenCall {
    /// Three parts with dots between, otherwise unchecked.
    pub token: Secret,
    /// Where the answer goes; dropped when the client has left.
    pub reply: oneshot::Sender<Result<Principal, TokenError>>,
}

/// The road to whoever verifies tokens. It is bounded: what it has no room for comes back.
#[derive(Clone)]
pub struct TokenRoad(Arc<dyn Fn(TokenCall) -> bool + Send + Sync>);

impl TokenRoad {
    /// A road that hands calls over by `send`, which says whether it had room.
    pub fn new(send: impl Fn(TokenCall) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Hands a token over; none when there is no room, or nobody at the other end.
    pub fn call(&self, token: Secret) -> Option<oneshot::Receiver<Result<Principal, TokenError>>> {
        let (reply, answer) = oneshot::channel();
        (self.0)(TokenCall { token, reply }).then_some(answer)
    }
}

impl fmt::Debug for TokenRoad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenRoad")
    }
}
