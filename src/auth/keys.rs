//! An issuer's keys (JWK set, RFC 7517), and when they are looked at again.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::AlgorithmParameters;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::KeyAlgorithm;
use jsonwebtoken::jwk::PublicKeyUse;
use serde::Deserialize;
use serde_json::Value;

/// How long keys are good without another look.
pub(crate) const KEYS_LIFETIME: Duration = Duration::from_secs(3600);
/// Shortest time between two looks, whatever asks for one: a token with a made-up key id, or keys that could not be
/// fetched.
pub(crate) const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Keys of one issuer: far more than any rotates through.
const KEYS_MAX: usize = 256;
/// Smallest modulus of an RSA key, in bytes (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 256;

/// A public key that may have signed a token.
#[derive(Clone)]
pub(crate) struct Key {
    id: Box<str>,
    algorithms: &'static [Algorithm],
    pub(crate) decoding: DecodingKey,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

/// When keys were looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    /// When they were last fetched.
    pub(crate) fetched: Duration,
    /// When that was last tried since the start.
    pub(crate) tried: Option<Duration>,
}

// === impl Looks ===

impl Looks {
    /// When the next look is due.
    pub(crate) fn due(&self) -> Duration {
        let next = self.tried.map_or(Duration::ZERO, |tried| tried + LOOK_INTERVAL_MIN);
        next.max(self.fetched + KEYS_LIFETIME)
    }

    /// Whether an unknown key id is reason enough to look now.
    pub(crate) fn may_look(&self, now: Duration) -> bool {
        self.tried.is_none_or(|tried| now >= tried + LOOK_INTERVAL_MIN)
    }
}

// === impl Key ===

impl Key {
    /// Whether a token that names this algorithm may be signed by this key.
    pub(crate) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// A key that can be used; none for one of another kind or purpose.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = match &jwk.common.public_key_use {
            None => true,
            Some(purpose) => *purpose == PublicKeyUse::Signature,
        };
        let id = jwk.common.key_id.as_deref().filter(|id| !id.is_empty() && is_for_signatures)?;
        let algorithms = algorithms(&jwk)?;
        Some(Self { id: id.into(), algorithms, decoding: DecodingKey::from_jwk(&jwk).ok()? })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish()
    }
}

/// What a key may be used for: one algorithm if it says so, else those of its kind.
fn algorithms(jwk: &Jwk) -> Option<&'static [Algorithm]> {
    const RS256: &[Algorithm] = &[Algorithm::RS256];
    const RS384: &[Algorithm] = &[Algorithm::RS384];
    const RS512: &[Algorithm] = &[Algorithm::RS512];
    const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
    const ES256: &[Algorithm] = &[Algorithm::ES256];
    const ES384: &[Algorithm] = &[Algorithm::ES384];
    let said = jwk.common.key_algorithm;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.trim_end_matches('=').len() * 6 / 8 >= RSA_BYTES_MIN => {
            match said {
                None => Some(RSA),
                Some(KeyAlgorithm::RS256) => Some(RS256),
                Some(KeyAlgorithm::RS384) => Some(RS384),
                Some(KeyAlgorithm::RS512) => Some(RS512),
                Some(_) => None,
            }
        }
        AlgorithmParameters::EllipticCurve(curve) => match (&curve.curve, said) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Some(ES256),
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Some(ES384),
            _ => None,
        },
        _ => None,
    }
}

// === impl KeySet ===

impl KeySet {
    /// Reads a JWK set. Keys that cannot be used are passed over.
    ///
    /// # Errors
    /// Says what is wrong when there is no set, or no key in it that can be used.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Body {
            keys: Vec<Value>,
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| "the answer is not a JWK set")?;
        if body.keys.len() > KEYS_MAX {
            return Err("the JWK set has too many keys");
        }
        let keys: Vec<Key> = body.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("the JWK set has no RSA or EC key for signatures with a `kid`");
        }
        Ok(Self(keys))
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| *key.id == *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
pub(crate) mod testkeys;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_looked_at_hourly_and_never_all_the_time() {
        let second = Duration::from_secs;
        let new = Looks { fetched: second(0), tried: None };
        assert_eq!(new.due(), second(3600));
        assert!(new.may_look(second(0)));
        let fresh = Looks { fetched: second(100), tried: Some(second(100)) };
        assert_eq!(fresh.due(), second(3700));
        assert!(!fresh.may_look(second(129)) && fresh.may_look(second(130)));
        let failed = Looks { fetched: second(100), tried: Some(second(3700)) };
        assert_eq!(failed.due(), second(3730));
    }

    #[test]
    fn only_keys_that_can_be_used_are_taken() {
        let long = "q".repeat(344);
        let set = |keys: &str| KeySet::parse(format!("{{\"keys\":[{keys}]}}").as_bytes());
        let rsa = |extra: &str| format!(r#"{{"kty":"RSA","e":"AQAB","n":"{long}"{extra}}}"#);
        let good = rsa(r#","kid":"a","use":"sig","alg":"RS384","x5t":"x""#);
        let found = set(&good).expect("usable");
        let key = found.find("a").expect("it is there");
        assert!(key.allows(Algorithm::RS384) && !key.allows(Algorithm::RS256));
        assert!(found.find("b").is_none());
        // Others beside it do no harm.
        let others = [
            rsa(""),
            rsa(r#","kid":"enc","use":"enc""#),
            rsa(r#","kid":"pss","alg":"PS256""#),
            r#"{"kty":"RSA","kid":"short","e":"AQAB","n":"qqqq"}"#.to_owned(),
            r#"{"kty":"oct","kid":"h","k":"AAAA","alg":"HS256"}"#.to_owned(),
            r#"{"kty":"XYZ","kid":"x"}"#.to_owned(),
            "7".to_owned(),
        ];
        assert_eq!(set(&[&others[..], &[good]].concat().join(",")).map(|set| set.len()), Ok(1));
        assert!(set(&others.join(",")).is_err());
        for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let any = set(&rsa(r#","kid":"any""#)).expect("usable");
        assert!(
            any.find("any").is_some_and(|key| key.allows(Algorithm::RS512) && !key.allows(Algorithm::HS256))
        );
    }
}
