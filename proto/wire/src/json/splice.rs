//! Adding a member to a JSON object without writing the rest of it anew.

use crate::json::{
    error::JsonError,
    scan::{Scanner, Span},
};

/// An edit of a body: what goes where. Every other byte stays as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The bytes replaced; empty when a member is added.
    pub at: Span,
    /// What stands there instead, with the comma if one is needed.
    pub insert: Vec<u8>,
}

// === impl Splice ===

impl Splice {
    /// The edited body in order, for a gathering write: before, inserted, after.
    ///
    /// # Panics
    ///
    /// `body` is not the one the edit was made for, and too short.
    pub fn parts<'a>(&'a self, body: &'a [u8]) -> [&'a [u8]; 3] {
        [&body[..self.at.start], &self.insert, &body[self.at.end..]]
    }

    /// The length of the edited body in bytes.
    pub fn edited_len(&self, body: &[u8]) -> usize {
        body.len() - self.at.len() + self.insert.len()
    }
}

/// Sets the member `key` of the top-level object in `body` to `value_json`.
///
/// A member that is there has its value replaced: the last one if the key is repeated, since that is the one
/// every engine's parser goes by. Otherwise the member becomes the first. `value_json` must be one JSON
/// value.
///
/// # Errors
///
/// The body is not one JSON object.
pub fn insert_member(body: &[u8], key: &str, value_json: &str) -> Result<Splice, JsonError> {
    debug_assert!(is_value(value_json), "{value_json:?} is one JSON value");
    let mut scanner = Scanner::new(body);
    scanner.begin_object()?;
    let first = scanner.offset();
    let mut is_empty = true;
    let mut present = None;
    while let Some(name) = scanner.next_key()? {
        is_empty = false;
        let value = scanner.skip()?;
        if name.eq(key) {
            present = Some(value);
        }
    }
    scanner.finish()?;

    if let Some(at) = present {
        return Ok(Splice { at, insert: value_json.into() });
    }
    let mut insert = Vec::with_capacity(key.len() + value_json.len() + b"\"\":,".len());
    write_string(key, &mut insert);
    insert.push(b':');
    insert.extend_from_slice(value_json.as_bytes());
    if !is_empty {
        insert.push(b',');
    }
    Ok(Splice { at: Span { start: first, end: first }, insert })
}

/// Appends `text` as a JSON string.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &b in text.as_bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            0..0x20 => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

fn is_value(json: &str) -> bool {
    let mut scanner = Scanner::new(json.as_bytes());
    scanner.skip().is_ok() && scanner.finish().is_ok()
}

#[cfg(test)]
mod tests;
