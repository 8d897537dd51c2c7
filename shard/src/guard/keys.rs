//! Keys as digests, with what each of them stands for.

use std::fmt;

use fleet::secret::Secret;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConditionallySelectable;
use subtle::ConstantTimeEq;

/// A SHA-256 digest as words, which are compared faster than bytes.
type Words = [u64; 4];

/// No entry of a table.
const NONE: u32 = u32::MAX;

/// Keys and what they stand for. The keys themselves are not kept.
pub(crate) struct KeyTable<T> {
    digests: Vec<Words>,
    values: Vec<T>,
}

impl<T> KeyTable<T> {
    pub(crate) fn new(keys: impl IntoIterator<Item = (T, Secret)>) -> Self {
        let (values, digests) = keys.into_iter().map(|(value, key)| (value, digest(key.as_bytes()))).unzip();
        Self { digests, values }
    }

    /// What `key` stands for. Takes the same time whichever entry it is, or none.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&T> {
        let wanted = digest(key);
        let mut found = NONE;
        for (at, digest) in self.digests.iter().enumerate() {
            found.conditional_assign(&(at as u32), digest[..].ct_eq(&wanted[..]));
        }
        (found != NONE).then(|| &self.values[found as usize])
    }
}

impl<T: fmt::Debug> fmt::Debug for KeyTable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeyTable").field(&self.values).finish()
    }
}

fn digest(key: &[u8]) -> Words {
    let mut words = Words::default();
    for (word, bytes) in words.iter_mut().zip(Sha256::digest(key).chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_its_own_entry() {
        let table = KeyTable::new((0..50).map(|at| (at, Secret::from(format!("key-{at}")))));
        for at in 0..50 {
            assert_eq!(table.find(format!("key-{at}").as_bytes()), Some(&at));
        }
        for stranger in ["", "key-", "key-50", "key-00", "KEY-1"] {
            assert_eq!(table.find(stranger.as_bytes()), None, "{stranger}");
        }
        assert_eq!(KeyTable::<u8>::new([]).find(b"key-1"), None);
    }

    #[test]
    fn digests_are_sha_256_and_are_not_shown() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest(b"abc")[0], 0xba78_16bf_8f01_cfea);
        assert_eq!(format!("{:?}", KeyTable::new([("name", Secret::from("k"))])), r#"KeyTable(["name"])"#);
    }
}
