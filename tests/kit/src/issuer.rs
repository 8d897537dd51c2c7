//! An issuer of signed tokens: it publishes its keys over HTTP on this machine, and signs what it is told to.
//!
//! Its signatures are made by another implementation than the one that the gateway verifies them with.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::KeyPair;
use serde_json::Value;
use serde_json::json;

/// An issuer that listens as long as the test process lives.
#[derive(Debug)]
pub struct Issuer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A key to sign with.
#[derive(Debug)]
pub struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

#[derive(Debug, Default)]
struct Shared {
    published: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    is_down: AtomicBool,
}

// === impl Key ===

impl Key {
    /// A new key of this id.
    pub fn new(id: &str) -> Key {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let document = document.expect("the system has randomness");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Key { id: id.to_owned(), pair: pair.expect("a key made just now") }
    }

    /// A token of these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let signed = format!(
            "{}.{}",
            base64url(head.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", base64url(signature.expect("the system has randomness").as_ref()))
    }

    fn public(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": base64url(x), "y": base64url(y),
        })
    }
}

// === impl Issuer ===

impl Issuer {
    /// An issuer that publishes these keys.
    #[track_caller]
    pub fn start(keys: &[&Key]) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let issuer = Issuer { addr, shared: Arc::default() };
        issuer.publish(keys);
        let shared = Arc::clone(&issuer.shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The other end may have gone; that is its business.
                let _ = answer(&stream, addr, &shared);
            }
        });
        issuer
    }

    /// What it is called: its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Publishes these keys from now on, and no others.
    pub fn publish(&self, keys: &[&Key]) {
        let published = keys.iter().map(|key| key.public()).collect();
        *self.shared.published.lock().expect("no holder panics") = published;
    }

    /// Answers with errors from now on, or no longer.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::Relaxed);
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Claims of a good token for an hour: this issuer, the audience `ringway`, and who in which role.
    pub fn claims(&self, subject: &str, role: &str) -> Value {
        json!({"iss": self.url(), "aud": "ringway", "sub": subject, "roles": [role], "exp": unix_s() + 3600})
    }
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn answer(mut stream: &TcpStream, addr: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        _ if shared.is_down.load(Ordering::Relaxed) => (503, String::new()),
        "/.well-known/openid-configuration" => {
            let url = format!("http://{addr}");
            (200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string())
        }
        "/keys" => {
            shared.asked.fetch_add(1, Ordering::Relaxed);
            (200, json!({"keys": *shared.published.lock().expect("no holder panics")}).to_string())
        }
        _ => (404, String::new()),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Base64 in the alphabet for URLs, without padding (RFC 4648 §5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().chain([0, 0].iter()).take(3).fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        for at in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_the_standard_has_it() {
        for (text, expect) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64url(text.as_bytes()), expect);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
