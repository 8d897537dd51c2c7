//! Signed tokens (JWT, RFC 7519) that open the control plane: who issues them, and what they must say.
//!
//! Nothing here takes a socket or reads a clock; the services thread fetches the issuer's keys and calls what is here.

pub(crate) mod keys;
pub(crate) mod token;
pub(crate) mod url;

use std::collections::BTreeMap;

use fleet::access::Role;

pub(crate) use crate::auth::url::TokenUrl;

/// How tokens are verified.
#[derive(Clone, Debug)]
pub(crate) struct AuthConfig {
    /// Who must have issued them.
    pub(crate) issuer: String,
    /// Whom they must be for.
    pub(crate) audience: String,
    /// Where the issuer's keys are; none for where its discovery document says.
    pub(crate) jwks_uri: Option<TokenUrl>,
    /// Claims that may hold roles: the first that a token has counts.
    pub(crate) role_claims: Vec<String>,
    /// What values of such a claim stand for, besides `admin` and `user`.
    pub(crate) role_mapping: BTreeMap<String, Role>,
}
