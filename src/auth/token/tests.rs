//! Tokens signed by keys made here, good ones and every kind of bad one.

use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::json;

use super::*;
use crate::auth::keys::KeySet;
use crate::auth::keys::testkeys;

const NOW: u64 = 1_800_000_000;

fn config() -> AuthConfig {
    AuthConfig {
        issuer: "https://issuer.example".to_owned(),
        audience: "ringway".to_owned(),
        jwks_uri: None,
        role_claims: ["permissions", "role", "groups"].map(str::to_owned).to_vec(),
        role_mapping: [("ops".to_owned(), Role::Admin)].into(),
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "ringway", "sub": "ada", "exp": NOW + 60, "role": "admin"})
}

/// The claims with these changed; null takes one out.
fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn sign(head: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(head, claims, key).expect("signed")
}

fn es256(claims: &Value) -> String {
    sign(&head(Algorithm::ES256), claims, &testkeys::p256())
}

fn head(algorithm: Algorithm) -> Header {
    Header { kid: Some("p256".to_owned()), ..Header::new(algorithm) }
}

fn verified(token: &str) -> Result<Principal, TokenFault> {
    let set = KeySet::parse(testkeys::set().as_bytes()).expect("usable keys");
    let claimed = claimed(token)?;
    verify(&config(), token, set.find(&claimed.key_id).ok_or(TokenFault::UnknownKey)?, NOW)
}

#[test]
fn a_good_token_names_its_bearer() {
    let principal = verified(&es256(&claims())).expect("good");
    assert_eq!((&*principal.name, &*principal.method), ("ada", "jwt:https://issuer.example"));
    assert_eq!(principal.role, Role::Admin);
    let head = Header { kid: Some("p384".to_owned()), ..Header::new(Algorithm::ES384) };
    assert!(verified(&sign(&head, &claims(), &testkeys::p384())).is_ok());
    for algorithm in [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512] {
        let head = Header { kid: Some("rsa".to_owned()), ..Header::new(algorithm) };
        assert!(verified(&sign(&head, &claims(), &testkeys::rsa())).is_ok(), "{algorithm:?}");
    }
    for (changes, name) in [
        (json!({"sub": null, "email": "ada@example.com"}), "ada@example.com"),
        (json!({"sub": "", "preferred_username": "ada.l"}), "ada.l"),
        (json!({"aud": ["other", "ringway"]}), "ada"),
        (json!({"exp": NOW - 29, "nbf": NOW + 29}), "ada"),
        (json!({"exp": (NOW as f64) + 0.5}), "ada"),
    ] {
        let principal = verified(&es256(&claims_with(changes.clone())));
        assert_eq!(principal.map(|principal| principal.name.to_string()), Ok(name.to_owned()), "{changes}");
    }
}

#[test]
fn roles_come_from_the_first_claim_there_is() {
    for (changes, role) in [
        (json!({"role": "user"}), Role::User),
        (json!({"role": "root"}), Role::User),
        (json!({"role": null}), Role::User),
        (json!({"role": ["user", "admin"]}), Role::Admin),
        (json!({"role": "ops"}), Role::Admin),
        (json!({"permissions": "user"}), Role::User),
        (json!({"permissions": ["x", "ops"], "role": "user"}), Role::Admin),
        (json!({"role": null, "roles": ["admin"]}), Role::User),
        (json!({"role": null, "groups": ["a", "ops"]}), Role::Admin),
        (json!({"role": null, "group": "ops"}), Role::User),
        (json!({"role": {"admin": true}}), Role::User),
    ] {
        let principal = verified(&es256(&claims_with(changes.clone())));
        assert_eq!(principal.map(|principal| principal.role), Ok(role), "{changes}");
    }
}

#[test]
fn claims_that_do_not_fit_are_refused() {
    for (changes, fault) in [
        (json!({"iss": "https://other.example"}), TokenFault::Issuer),
        (json!({"iss": null}), TokenFault::Issuer),
        (json!({"aud": "other"}), TokenFault::Audience),
        (json!({"aud": null}), TokenFault::Audience),
        (json!({"aud": []}), TokenFault::Audience),
        (json!({"exp": null}), TokenFault::NoExpiry),
        (json!({"exp": "never"}), TokenFault::NoExpiry),
        (json!({"exp": NOW - 30}), TokenFault::Expired),
        (json!({"nbf": NOW + 31}), TokenFault::TooEarly),
        (json!({"nbf": "now"}), TokenFault::Malformed),
        (json!({"sub": null}), TokenFault::NoSubject),
        (json!({"sub": 7}), TokenFault::NoSubject),
    ] {
        assert_eq!(verified(&es256(&claims_with(changes.clone()))), Err(fault), "{changes}");
    }
}

#[test]
fn keys_and_algorithms_must_fit() {
    let p256 = testkeys::p256();
    let with =
        |kid: Option<&str>, algorithm| Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    let hmac = EncodingKey::from_secret(testkeys::set().as_bytes());
    let es256 = |kid| sign(&with(kid, Algorithm::ES256), &claims(), &p256);
    let p384 = sign(&with(Some("p256"), Algorithm::ES384), &claims(), &testkeys::p384());
    let critical = Header { crit: Some(vec!["x".to_owned()]), ..head(Algorithm::ES256) };
    for (token, fault) in [
        (es256(None), TokenFault::NoKeyId),
        (es256(Some("")), TokenFault::NoKeyId),
        (es256(Some("other")), TokenFault::UnknownKey),
        (es256(Some("p384")), TokenFault::OtherAlgorithm),
        (p384, TokenFault::OtherAlgorithm),
        (sign(&with(Some("p256"), Algorithm::HS256), &claims(), &hmac), TokenFault::Algorithm),
        (sign(&critical, &claims(), &p256), TokenFault::Critical),
        // {"alg":"none","kid":"p256"}
        ("eyJhbGciOiJub25lIiwia2lkIjoicDI1NiJ9.e30.".to_owned(), TokenFault::Algorithm),
        ("a.b.c".to_owned(), TokenFault::Malformed),
        ("..".to_owned(), TokenFault::Malformed),
        (String::new(), TokenFault::Malformed),
    ] {
        assert_eq!(verified(&token), Err(fault), "{token}");
    }
}

#[test]
fn any_changed_character_is_noticed() {
    let token = es256(&claims());
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        if changed != token {
            assert!(verified(&changed).is_err(), "{changed}");
        }
    }
    let (signed, _) = token.rsplit_once('.').expect("parts");
    assert!(verified(&format!("{signed}.")).is_err());
    let other = sign(&head(Algorithm::ES256), &claims_with(json!({"sub": "eve"})), &testkeys::p256());
    let (_, signature) = other.rsplit_once('.').expect("parts");
    assert_eq!(verified(&format!("{signed}.{signature}")), Err(TokenFault::Signature));
}
