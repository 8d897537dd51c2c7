//! Keys for tests, made when they are asked for: nothing here opens anything.

use std::sync::LazyLock;

use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;

/// What stands before the number in a private key of a curve (PKCS #8, RFC 5208, with RFC 5915 within).
const P256_BEGIN: &[u8] = b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20";
const P384_BEGIN: &[u8] = b"\x30\x4e\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x04\x37\x30\x35\x02\x01\x01\x04\x30";

pub(crate) fn p256() -> EncodingKey {
    EncodingKey::from_ec_der(&[P256_BEGIN, &[7; 32]].concat())
}

pub(crate) fn p384() -> EncodingKey {
    EncodingKey::from_ec_der(&[P384_BEGIN, &[7; 48]].concat())
}

pub(crate) fn rsa() -> EncodingKey {
    static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("the system has randomness");
        key.to_pkcs1_der().expect("a key").as_bytes().to_vec()
    });
    EncodingKey::from_rsa_der(&KEY)
}

/// The public halves as an issuer shows them: `p256`, `p384`, and `rsa`, which says no algorithm.
pub(crate) fn set() -> String {
    let shown = |id: &str, key: &EncodingKey, algorithm| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).expect("a key of that kind");
        jwk.common.key_id = Some(id.to_owned());
        if id == "rsa" {
            jwk.common.key_algorithm = None;
        }
        serde_json::to_value(jwk).expect("texts")
    };
    let keys = [
        shown("p256", &p256(), Algorithm::ES256),
        shown("p384", &p384(), Algorithm::ES384),
        shown("rsa", &rsa(), Algorithm::RS256),
    ];
    serde_json::json!({ "keys": keys }).to_string()
}
