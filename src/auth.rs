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
    /// Claim that holds roles.
    pub(crate) role_claim: String,
    /// What values of that claim stand for, besides `admin` and `user`.
    pub(crate) role_mapping: BTreeMap<String, Role>,
}
