//! Text that must not be shown: keys and whatever is made of them.

use std::fmt;
use std::ops::Deref;

/// A key, a token or a header that holds one. It reads as text and is shown as `***`: there is no `Display`, so that
/// no message takes one in by mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The `Authorization` value that presents this key.
    pub fn bearer(&self) -> Self {
        Self(format!("Bearer {}", self.0).into())
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let key = Secret::from("sk-1");
        assert_eq!(format!("{:?} {:?}", Some(&key), key.bearer()), "Some(***) ***");
        assert_eq!((&*key, &*key.bearer()), ("sk-1", "Bearer sk-1"));
    }
}
