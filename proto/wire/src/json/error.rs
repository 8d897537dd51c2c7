//! Why a JSON text is refused, and where.

use std::fmt;

use crate::limits::JSON_DEPTH_MAX;

/// A defect of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The offset of the first byte that does not fit.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: JsonErrorKind,
}

/// What is wrong with a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonErrorKind {
    /// The text ends too early.
    UnexpectedEnd,
    /// Bytes after the value.
    TrailingBytes,
    /// More than [`JSON_DEPTH_MAX`] containers open.
    TooDeep,
    /// Something else where a value must stand.
    ExpectedValue,
    /// Something else than the object asked for.
    ExpectedObject,
    /// Something else than the array asked for.
    ExpectedArray,
    /// Something else than the string asked for.
    ExpectedString,
    /// Something else than the number asked for.
    ExpectedNumber,
    /// Something else than the `true` or `false` asked for.
    ExpectedBool,
    /// Something else than the `null` asked for.
    ExpectedNull,
    /// No key after `,`.
    ExpectedKey,
    /// No key and no end after `{`.
    ExpectedKeyOrEnd,
    /// No colon after a key.
    ExpectedColon,
    /// Neither a further member nor the end of the object.
    ExpectedCommaOrBrace,
    /// Neither a further element nor the end of the array.
    ExpectedCommaOrBracket,
    /// A number against RFC 8259 §6.
    InvalidNumber,
    /// A word that is not `true`, `false` or `null`.
    InvalidLiteral,
    /// A byte below 0x20 in a string.
    ControlInString,
    /// An escape against RFC 8259 §7.
    InvalidEscape,
    /// A string that is not UTF-8, found when unescaping it.
    InvalidUtf8,
    /// Half of a surrogate pair, found when unescaping: it has no place in a `str`.
    LoneSurrogate,
}

// === impl JsonError ===

impl JsonError {
    pub(crate) fn new(offset: usize, kind: JsonErrorKind) -> Self {
        JsonError { offset, kind }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for JsonError {}

// === impl JsonErrorKind ===

impl fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonErrorKind::UnexpectedEnd => "unexpected end",
            JsonErrorKind::TrailingBytes => "unexpected bytes after the value",
            JsonErrorKind::TooDeep => return write!(f, "more than {JSON_DEPTH_MAX} levels of nesting"),
            JsonErrorKind::ExpectedValue => "expected a value",
            JsonErrorKind::ExpectedObject => "expected an object",
            JsonErrorKind::ExpectedArray => "expected an array",
            JsonErrorKind::ExpectedString => "expected a string",
            JsonErrorKind::ExpectedNumber => "expected a number",
            JsonErrorKind::ExpectedBool => "expected `true` or `false`",
            JsonErrorKind::ExpectedNull => "expected `null`",
            JsonErrorKind::ExpectedKey => "expected a key",
            JsonErrorKind::ExpectedKeyOrEnd => "expected a key or `}`",
            JsonErrorKind::ExpectedColon => "expected `:`",
            JsonErrorKind::ExpectedCommaOrBrace => "expected `,` or `}`",
            JsonErrorKind::ExpectedCommaOrBracket => "expected `,` or `]`",
            JsonErrorKind::InvalidNumber => "invalid number",
            JsonErrorKind::InvalidLiteral => "expected `true`, `false` or `null`",
            JsonErrorKind::ControlInString => "unescaped control character in a string",
            JsonErrorKind::InvalidEscape => "invalid escape in a string",
            JsonErrorKind::InvalidUtf8 => "invalid UTF-8 in a string",
            JsonErrorKind::LoneSurrogate => "half of a surrogate pair in a string",
        })
    }
}
