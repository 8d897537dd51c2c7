//! Keys as digests, with what each of them stands for.

use std::collections::HashMap;
use std::fmt;

use fleet::secret::Secret;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A SHA-256 digest, as big-endian words.
type KeyDigest = [u64; 4];

/// Keys and what they stand for. The keys themselves are not kept.
///
/// Finding one costs a digest and a look, however many there are, and its time tells nothing of a key that is not known
/// already: an entry is found by the first word of its digest, as a whole, in a table whose order is drawn at random,
/// and its digest is then compared in constant time.
pub(crate) struct KeyTable<T> {
    by_word: HashMap<u64, usize>,
    entries: Vec<(KeyDigest, T)>,
}

impl<T> KeyTable<T> {
    pub(crate) fn new(keys: impl IntoIterator<Item = (T, Secret)>) -> Self {
        let entries: Vec<_> = keys.into_iter().map(|(value, key)| (digest(key.as_bytes()), value)).collect();
        let by_word = entries.iter().enumerate().map(|(at, (digest, _))| (digest[0], at)).collect();
        Self { by_word, entries }
    }

    /// What `key` stands for.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&T> {
        let wanted = digest(key);
        let (digest, value) = &self.entries[*self.by_word.get(&wanted[0])?];
        bool::from(digest.ct_eq(&wanted)).then_some(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for KeyTable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.entries.iter().map(|(_, value)| value)).finish()
    }
}

fn digest(key: &[u8]) -> KeyDigest {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let words = digest.as_chunks::<8>().0;
    std::array::from_fn(|at| u64::from_be_bytes(words[at]))
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
        let expected =
            [0xba78_16bf_8f01_cfea, 0x4141_40de_5dae_2223, 0xb003_61a3_9617_7a9c, 0xb410_ff61_f200_15ad];
        assert_eq!(digest(b"abc"), expected);
        assert_eq!(format!("{:?}", KeyTable::new([("name", Secret::from("k"))])), r#"["name"]"#);
    }
}
