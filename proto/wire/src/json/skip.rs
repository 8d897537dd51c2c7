//! Skipping a JSON value: the loop that validates all of it without calling itself.

use crate::{
    json::{
        error::{JsonError, JsonErrorKind},
        scan::{Scanner, Span},
    },
    limits::JSON_DEPTH_MAX,
};

// === impl Scanner ===

impl Scanner<'_> {
    /// Reads a value of any kind, validates all of it, and says where it stood.
    ///
    /// # Errors
    ///
    /// The first defect in it.
    pub fn skip(&mut self) -> Result<Span, JsonError> {
        let mut open = Open { kinds: 0, depth: self.depth };
        let first = self.next_visible();
        let start = self.at;
        let mut next = first;
        loop {
            match next {
                Some(b'"') => {
                    self.string_body()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number_body()?,
                Some(byte @ (b'{' | b'[')) => {
                    next = self.enter(byte, &mut open)?;
                    if next.is_some() {
                        continue;
                    }
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.defect(JsonErrorKind::ExpectedValue)),
            }
            if !self.leave(&mut open)? {
                return Ok(Span { start, end: self.at });
            }
            next = self.next_visible();
        }
    }

    /// After the opening byte: the first byte of the first value inside, its key read; `None` if the
    /// container is empty and thereby already read.
    #[inline]
    fn enter(&mut self, byte: u8, open: &mut Open) -> Result<Option<u8>, JsonError> {
        open.push(byte == b'{').map_err(|kind| JsonError::new(self.at, kind))?;
        self.at += 1;
        match (byte, self.next_visible()) {
            (b'{', Some(b'}')) | (b'[', Some(b']')) => {
                self.at += 1;
                open.pop();
                Ok(None)
            }
            (b'{', Some(b'"')) => {
                self.key()?;
                self.value_start()
            }
            (b'{', _) => Err(self.defect(JsonErrorKind::ExpectedKeyOrEnd)),
            _ => self.value_start(),
        }
    }

    /// After a value: whether another stands next, its key read; the containers that end here are closed.
    #[inline]
    fn leave(&mut self, open: &mut Open) -> Result<bool, JsonError> {
        while open.depth > self.depth {
            match (self.next_visible(), open.is_object()) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    open.pop();
                }
                (_, true) => return Err(self.defect(JsonErrorKind::ExpectedCommaOrBrace)),
                (_, false) => return Err(self.defect(JsonErrorKind::ExpectedCommaOrBracket)),
            }
        }
        Ok(false)
    }

    fn value_start(&mut self) -> Result<Option<u8>, JsonError> {
        match self.next_visible() {
            None => Err(self.defect(JsonErrorKind::ExpectedValue)),
            byte => Ok(byte),
        }
    }
}

/// The containers open inside a skipped value, on top of those its caller has begun.
struct Open {
    /// One bit each, the innermost lowest: 1 for an object.
    kinds: u128,
    depth: u32,
}

// === impl Open ===

impl Open {
    fn push(&mut self, is_object: bool) -> Result<(), JsonErrorKind> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(JsonErrorKind::TooDeep);
        }
        self.kinds = self.kinds << 1 | u128::from(is_object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
    }

    fn is_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}
