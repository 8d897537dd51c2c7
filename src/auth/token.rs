//! One token: which key it claims, whether that signed it, and who it says its bearer is.

use std::fmt;

use fleet::access::Principal;
use fleet::access::Role;
use jsonwebtoken::Algorithm;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde_json::Map;
use serde_json::Value;

use crate::auth::AuthConfig;
use crate::auth::keys::Key;

/// How far clocks may differ, in seconds.
const LEEWAY_S: f64 = 30.0;
/// Claims that name the bearer, the best first.
const SUBJECT_CLAIMS: [&str; 3] = ["sub", "email", "preferred_username"];
/// Longest name of a bearer, in characters.
const SUBJECT_CHARACTERS_MAX: usize = 256;

/// Why a token is not accepted: what comes behind `Invalid JWT: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenFault {
    Malformed,
    Critical,
    Algorithm,
    NoKeyId,
    UnknownKey,
    OtherAlgorithm,
    Signature,
    Issuer,
    Audience,
    NoExpiry,
    Expired,
    TooEarly,
    NoSubject,
}

// === impl TokenFault ===

impl TokenFault {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Malformed => "it cannot be read",
            Self::Critical => "it has critical extensions, which are not understood",
            Self::Algorithm => "its algorithm is not one of RS256, RS384, RS512, ES256, ES384",
            Self::NoKeyId => "it names no key (`kid`)",
            Self::UnknownKey => "its key is not one of the issuer's",
            Self::OtherAlgorithm => "its algorithm is not its key's",
            Self::Signature => "its signature is not valid",
            Self::Issuer => "its issuer is another one",
            Self::Audience => "it is for another audience",
            Self::NoExpiry => "it says not when it expires (`exp`)",
            Self::Expired => "it has expired",
            Self::TooEarly => "it is not valid yet",
            Self::NoSubject => "it names no subject",
        }
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.message())
    }
}

/// What an unverified head claims.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) key_id: String,
    pub(crate) algorithm: Algorithm,
}

/// Reads which key a token says it was signed by.
pub(crate) fn claimed(token: &str) -> Result<Claimed, TokenFault> {
    let head = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // An algorithm the library does not know, `none` among them, is a word it cannot read.
        ErrorKind::Json(error) if error.to_string().contains("unknown variant") => TokenFault::Algorithm,
        _ => TokenFault::Malformed,
    })?;
    let is_allowed = matches!(
        head.alg,
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::ES256 | Algorithm::ES384
    );
    if !is_allowed {
        return Err(TokenFault::Algorithm);
    }
    if head.crit.is_some() {
        return Err(TokenFault::Critical);
    }
    let key_id = head.kid.filter(|id| !id.is_empty()).ok_or(TokenFault::NoKeyId)?;
    Ok(Claimed { key_id, algorithm: head.alg })
}

/// Verifies a token by the key it claims, at a time in seconds since 1970. Takes some 100 µs.
pub(crate) fn verify(
    config: &AuthConfig,
    token: &str,
    key: &Key,
    now_unix_s: u64,
) -> Result<Principal, TokenFault> {
    let Claimed { algorithm, .. } = claimed(token)?;
    if !key.allows(algorithm) {
        return Err(TokenFault::OtherAlgorithm);
    }
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&[&config.audience]);
    validation.set_required_spec_claims(&["iss", "aud"]);
    // The times are checked below, by the clock that is passed in.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenFault::Signature,
            ErrorKind::InvalidIssuer => TokenFault::Issuer,
            ErrorKind::InvalidAudience => TokenFault::Audience,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                if claim == "aud" { TokenFault::Audience } else { TokenFault::Issuer }
            }
            _ => TokenFault::Malformed,
        })?
        .claims;
    check_times(&claims, now_unix_s as f64)?;
    let name: String = SUBJECT_CLAIMS
        .iter()
        .find_map(|claim| claims.get(*claim)?.as_str().filter(|name| !name.is_empty()))
        .ok_or(TokenFault::NoSubject)?
        .chars()
        .take(SUBJECT_CHARACTERS_MAX)
        .collect();
    let method = format!("jwt:{}", config.issuer);
    Ok(Principal { name: name.into(), method: method.into(), role: role(config, &claims) })
}

fn check_times(claims: &Map<String, Value>, now_s: f64) -> Result<(), TokenFault> {
    let expires = claims.get("exp").and_then(Value::as_f64).ok_or(TokenFault::NoExpiry)?;
    if expires + LEEWAY_S <= now_s {
        return Err(TokenFault::Expired);
    }
    match claims.get("nbf").map(Value::as_f64) {
        None => Ok(()),
        Some(Some(begins)) if begins <= now_s + LEEWAY_S => Ok(()),
        Some(Some(_)) => Err(TokenFault::TooEarly),
        Some(None) => Err(TokenFault::Malformed),
    }
}

/// The best role that a token's claims come to; without any, its bearer is only known.
fn role(config: &AuthConfig, claims: &Map<String, Value>) -> Role {
    let of = |value: &Value| {
        let name = value.as_str()?;
        config.role_mapping.get(name).copied().or_else(|| Role::parse(name))
    };
    let claim = config.role_claims.iter().find_map(|name| claims.get(name));
    let Some(claim) = claim else { return Role::User };
    let best = match claim {
        Value::Array(values) => values.iter().filter_map(of).max(),
        value => of(value),
    };
    best.unwrap_or(Role::User)
}

#[cfg(test)]
mod tests;
