//! JSON strings: finding their end at memory speed, and resolving their escapes when asked.

use std::borrow::Cow;

use crate::json::error::{JsonError, JsonErrorKind};

/// A string as it stands in the text, checked but with its escapes unresolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawStr<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Offset of the first byte after the opening quote.
    pub offset: usize,
    /// Whether `raw` holds an escape; if not, `raw` is the string itself.
    pub has_escapes: bool,
}

/// A key is a string.
pub type Key<'a> = RawStr<'a>;

// === impl RawStr ===

impl<'a> RawStr<'a> {
    /// Whether the string is `text`, its escapes resolved.
    #[expect(
        clippy::should_implement_trait,
        reason = "the call reads as the comparison it is, and `str` is no RawStr"
    )]
    pub fn eq(&self, text: &str) -> bool {
        if !self.has_escapes {
            return self.raw == text.as_bytes();
        }
        // `\u0041` is the longest a byte of text can get, so a long string is no reason to resolve anything.
        let bounds = text.len()..=text.len() * 6;
        bounds.contains(&self.raw.len()) && self.unescape().is_ok_and(|unescaped| unescaped == text)
    }

    /// The string with its escapes resolved; borrowed if it has none.
    ///
    /// # Errors
    ///
    /// The string is not UTF-8, or holds half of a surrogate pair, which is JSON but no text.
    pub fn unescape(&self) -> Result<Cow<'a, str>, JsonError> {
        let text = std::str::from_utf8(self.raw)
            .map_err(|error| JsonError::new(self.offset + error.valid_up_to(), JsonErrorKind::InvalidUtf8))?;
        if !self.has_escapes {
            return Ok(Cow::Borrowed(text));
        }
        let mut unescaped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((plain, escape)) = rest.split_once('\\') {
            unescaped.push_str(plain);
            let offset = self.offset + text.len() - escape.len() - 1;
            let (c, len) = resolve(escape).ok_or(JsonError::new(offset, JsonErrorKind::LoneSurrogate))?;
            unescaped.push(c);
            rest = &escape[len..];
        }
        unescaped.push_str(rest);
        Ok(Cow::Owned(unescaped))
    }
}

/// The character of a checked escape, given what follows its backslash, and how long that is.
/// `None` for half of a surrogate pair.
fn resolve(escape: &str) -> Option<(char, usize)> {
    let c = match escape.as_bytes().first()? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return resolve_unicode(escape),
        &other => char::from(other),
    };
    Some((c, 1))
}

fn resolve_unicode(escape: &str) -> Option<(char, usize)> {
    let unit = |escape: &str| u32::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok();
    let first = unit(escape)?;
    if !(0xd800..0xdc00).contains(&first) {
        // The second half of a pair alone is no `char`.
        return char::from_u32(first).map(|c| (c, 5));
    }
    let second = unit(escape.get(5..)?.strip_prefix('\\')?)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|c| (c, 11))
}

/// Reads a string whose first byte after the quote is at `start`.
#[inline]
pub(crate) fn scan_string(bytes: &[u8], start: usize) -> Result<RawStr<'_>, JsonError> {
    let mut at = start;
    let mut has_escapes = false;
    loop {
        at = find_special(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok(RawStr { raw: &bytes[start..at], offset: start, has_escapes }),
            Some(b'\\') => {
                has_escapes = true;
                at += escape_len(bytes, at)?;
            }
            Some(_) => return Err(JsonError::new(at, JsonErrorKind::ControlInString)),
            None => return Err(JsonError::new(bytes.len(), JsonErrorKind::UnexpectedEnd)),
        }
    }
}

/// The length of the escape whose backslash is at `at` (RFC 8259 §7).
#[inline]
fn escape_len(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let invalid = |offset: usize| {
        let kind =
            if offset < bytes.len() { JsonErrorKind::InvalidEscape } else { JsonErrorKind::UnexpectedEnd };
        JsonError::new(offset, kind)
    };
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => {
            let digits = bytes[at + 2..].iter().take(4).take_while(|b| b.is_ascii_hexdigit()).count();
            // Half of a surrogate pair is grammatical; `unescape` refuses it.
            if digits == 4 { Ok(6) } else { Err(invalid(at + 2 + digits)) }
        }
        _ => Err(invalid(at + 1)),
    }
}

/// Bytes looked at together before long runs are worth a block: keys and roles are shorter.
const WORD_BYTES: usize = 8;
/// Words tried before blocks.
const WORDS_FIRST: usize = 2;
/// Bytes of a block: two 16-byte vectors or one of 32, whatever the target has.
const BLOCK_BYTES: usize = 32;

/// Offset of the first quote, backslash or control byte at or after `from`; the length of the text if there
/// is none.
///
/// Short strings end within two words. Long runs go by blocks, whose loop has no branch inside, so that the
/// compiler makes vector instructions of it; the block that holds the byte is then searched by words.
#[inline]
fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from.min(bytes.len());
    for _ in 0..WORDS_FIRST {
        let Some(word) = bytes[at..].first_chunk::<WORD_BYTES>() else { return find_in_tail(bytes, at) };
        if let Some(index) = special_in_word(word) {
            return at + index;
        }
        at += WORD_BYTES;
    }
    let (blocks, _) = bytes[at..].as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        if has_special(block) {
            break;
        }
        at += BLOCK_BYTES;
    }
    while let Some(word) = bytes[at..].first_chunk::<WORD_BYTES>() {
        if let Some(index) = special_in_word(word) {
            return at + index;
        }
        at += WORD_BYTES;
    }
    find_in_tail(bytes, at)
}

/// The last bytes of the text, fewer than a word.
#[cold]
fn find_in_tail(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().position(|&b| is_special(b)).unwrap_or(bytes.len() - at)
}

#[inline]
fn is_special(b: u8) -> bool {
    b < 0x20 || b == b'"' || b == b'\\'
}

#[inline]
fn has_special(block: &[u8; BLOCK_BYTES]) -> bool {
    block.iter().fold(false, |found, &b| found | is_special(b))
}

/// Index of the first special byte of a word.
///
/// `word - 0x01…` borrows out of a byte that is zero, which is how each term finds its byte in the top bits;
/// a borrow can also set a false bit, but only above a true one, and the lowest is asked for. Bytes of 0x80
/// and more are masked out.
#[inline]
fn special_in_word(word: &[u8; WORD_BYTES]) -> Option<usize> {
    const fn repeat(b: u8) -> u64 {
        u64::from_ne_bytes([b; WORD_BYTES])
    }
    let word = u64::from_le_bytes(*word);
    let quote = (word ^ repeat(b'"')).wrapping_sub(repeat(1));
    let backslash = (word ^ repeat(b'\\')).wrapping_sub(repeat(1));
    let control = word.wrapping_sub(repeat(0x20));
    let found = (quote | backslash | control) & !word & repeat(0x80);
    (found != 0).then_some(found.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests;
