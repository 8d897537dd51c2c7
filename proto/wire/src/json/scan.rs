//! A pull scanner over a complete JSON text: strict, iterative, without allocation (RFC 8259).
//!
//! Invariants
//! - Whatever is skipped is validated in full: a text whose every value was read or skipped, and that
//!   [`Scanner::finish`] accepts, is JSON.
//! - Nesting costs one bit a level in [`Scanner::skip`] and nothing elsewhere; no input recurses.

use crate::{
    json::{
        error::{JsonError, JsonErrorKind},
        string::{Key, RawStr, scan_string},
    },
    limits::JSON_DEPTH_MAX,
};

/// The kind of a value, as its first byte tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// `-` or a digit
    Number,
    /// `t`
    True,
    /// `f`
    False,
    /// `n`
    Null,
}

/// Bytes `start..end` of the scanned text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

/// Reads a JSON text from front to back.
///
/// ```
/// # fn main() -> Result<(), wire::json::JsonError> {
/// let mut scanner = wire::json::Scanner::new(br#"{"model": "m", "messages": [1, 2]}"#);
/// let mut model = None;
/// scanner.begin_object()?;
/// while let Some(key) = scanner.next_key()? {
///     if key.eq("model") {
///         model = Some(scanner.string()?.unescape()?);
///     } else {
///         scanner.skip()?;
///     }
/// }
/// scanner.finish()?;
/// assert_eq!(model.as_deref(), Some("m"));
/// # Ok(())
/// # }
/// ```
///
/// After each key or element exactly one value must be read: by `skip`, by one of the typed calls, or by a
/// `begin_` call and its `next_` calls up to the end. After an error the scanner is good for nothing.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    /// Containers the caller has begun and not ended.
    pub(super) depth: u32,
    /// The container begun last has had no member yet, so that none needs a comma before it.
    is_fresh: bool,
}

// === impl Span ===

impl Span {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it holds no byte and only marks a place.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its bytes in the text it was found in.
    ///
    /// # Panics
    ///
    /// `bytes` is another text and too short.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.end]
    }
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    /// A scanner before the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Scanner { bytes, at: 0, depth: 0, is_fresh: false }
    }

    /// Offset of the next byte to read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The kind of the value that stands next, without reading it.
    ///
    /// # Errors
    ///
    /// No value begins here.
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        match self.next_visible() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.defect(JsonErrorKind::ExpectedValue)),
        }
    }

    /// Enters the object that stands next; [`Scanner::next_key`] reads it.
    ///
    /// # Errors
    ///
    /// No object stands here, or it is nested too deep.
    pub fn begin_object(&mut self) -> Result<(), JsonError> {
        self.begin(b'{', JsonErrorKind::ExpectedObject)
    }

    /// The next key of the object, its colon read too; `None` closes the object.
    ///
    /// # Errors
    ///
    /// Anything but a member or the end of the object.
    pub fn next_key(&mut self) -> Result<Option<Key<'a>>, JsonError> {
        let is_fresh = std::mem::replace(&mut self.is_fresh, false);
        match self.next_visible() {
            Some(b'}') => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                return Ok(None);
            }
            Some(b'"') if is_fresh => {}
            _ if is_fresh => return Err(self.defect(JsonErrorKind::ExpectedKeyOrEnd)),
            Some(b',') => self.at += 1,
            _ => return Err(self.defect(JsonErrorKind::ExpectedCommaOrBrace)),
        }
        self.key().map(Some)
    }

    /// Enters the array that stands next; [`Scanner::next_element`] reads it.
    ///
    /// # Errors
    ///
    /// No array stands here, or it is nested too deep.
    pub fn begin_array(&mut self) -> Result<(), JsonError> {
        self.begin(b'[', JsonErrorKind::ExpectedArray)
    }

    /// Moves to the next element of the array; `false` closes the array.
    ///
    /// # Errors
    ///
    /// Anything but an element or the end of the array.
    pub fn next_element(&mut self) -> Result<bool, JsonError> {
        let is_fresh = std::mem::replace(&mut self.is_fresh, false);
        match self.next_visible() {
            Some(b']') => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                Ok(false)
            }
            // What follows is checked when the element is read.
            Some(_) if is_fresh => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.defect(JsonErrorKind::ExpectedCommaOrBracket)),
        }
    }

    /// Reads a string; its escapes are checked, not resolved.
    ///
    /// # Errors
    ///
    /// No string stands here, or it breaks RFC 8259 §7.
    pub fn string(&mut self) -> Result<RawStr<'a>, JsonError> {
        if self.next_visible() != Some(b'"') {
            return Err(self.defect(JsonErrorKind::ExpectedString));
        }
        self.string_body()
    }

    /// Reads a number and hands back its text.
    ///
    /// # Errors
    ///
    /// No number stands here, or it breaks RFC 8259 §6.
    pub fn number(&mut self) -> Result<&'a [u8], JsonError> {
        if !matches!(self.next_visible(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.defect(JsonErrorKind::ExpectedNumber));
        }
        let start = self.at;
        self.number_body()?;
        Ok(&self.bytes[start..self.at])
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    ///
    /// Neither stands here.
    pub fn bool(&mut self) -> Result<bool, JsonError> {
        match self.next_visible() {
            Some(b't') => self.literal(b"true").map(|()| true),
            Some(b'f') => self.literal(b"false").map(|()| false),
            _ => Err(self.defect(JsonErrorKind::ExpectedBool)),
        }
    }

    /// Reads `null`.
    ///
    /// # Errors
    ///
    /// Something else stands here.
    pub fn null(&mut self) -> Result<(), JsonError> {
        match self.next_visible() {
            Some(b'n') => self.literal(b"null"),
            _ => Err(self.defect(JsonErrorKind::ExpectedNull)),
        }
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    ///
    /// Something is.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.next_visible() {
            None if self.depth == 0 => Ok(()),
            None => Err(self.defect(JsonErrorKind::UnexpectedEnd)),
            Some(_) => Err(self.defect(JsonErrorKind::TrailingBytes)),
        }
    }

    fn begin(&mut self, byte: u8, expected: JsonErrorKind) -> Result<(), JsonError> {
        if self.next_visible() != Some(byte) {
            return Err(self.defect(expected));
        }
        if self.depth == JSON_DEPTH_MAX {
            return Err(self.defect(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        self.depth += 1;
        self.is_fresh = true;
        Ok(())
    }

    /// A key with its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Key<'a>, JsonError> {
        if self.next_visible() != Some(b'"') {
            return Err(self.defect(JsonErrorKind::ExpectedKey));
        }
        let key = self.string_body()?;
        if self.next_visible() != Some(b':') {
            return Err(self.defect(JsonErrorKind::ExpectedColon));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string whose quote stands next.
    #[inline]
    pub(super) fn string_body(&mut self) -> Result<RawStr<'a>, JsonError> {
        let string = scan_string(self.bytes, self.at + 1)?;
        self.at = string.offset + string.raw.len() + 1;
        Ok(string)
    }

    /// A number whose sign or first digit stands next.
    pub(super) fn number_body(&mut self) -> Result<(), JsonError> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        // A leading zero stands alone.
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let len = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return Err(self.defect(JsonErrorKind::InvalidNumber));
        }
        self.at += len;
        Ok(())
    }

    pub(super) fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        let rest = &self.bytes[self.at..];
        if !rest.starts_with(word) {
            let common = rest.iter().zip(word).take_while(|(a, b)| a == b).count();
            self.at += common;
            return Err(self.defect(JsonErrorKind::InvalidLiteral));
        }
        self.at += word.len();
        Ok(())
    }

    /// Skips white space (RFC 8259 §2) and looks at the byte behind it.
    #[inline]
    pub(super) fn next_visible(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            // One comparison passes almost every byte.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// A defect at the next byte; at the end of the text it is always that end.
    #[cold]
    pub(super) fn defect(&self, kind: JsonErrorKind) -> JsonError {
        let kind = if self.at < self.bytes.len() { kind } else { JsonErrorKind::UnexpectedEnd };
        JsonError::new(self.at, kind)
    }
}

#[cfg(test)]
mod tests;
