//! JSON strings: the search at every offset, escapes resolved and refused.

use super::*;
use crate::json::Scanner;

#[test]
fn the_first_special_byte_is_found_wherever_it_stands() {
    let naive = |bytes: &[u8], from: usize| {
        bytes[from..].iter().position(|&b| is_special(b)).map_or(bytes.len(), |at| from + at)
    };
    for len in 0..100 {
        for at in 0..len {
            for special in [b'"', b'\\', 0, 0x1f] {
                // The bytes next to each kind of special one, and one whose top bit is set.
                for filler in [b'a', 0x20, 0x21, b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xff] {
                    let mut bytes = vec![filler; len];
                    bytes[at] = special;
                    assert_eq!(find_special(&bytes, 0), at, "{special:#x} at {at} of {len} in {filler:#x}");
                    assert_eq!(find_special(&bytes, at + 1), len);
                    bytes[len - 1] = b'"';
                    assert_eq!(find_special(&bytes, at / 2), naive(&bytes, at / 2));
                }
            }
        }
    }
}

fn read(json: &str) -> Result<String, JsonErrorKind> {
    let string = Scanner::new(json.as_bytes()).string().map_err(|error| error.kind)?;
    string.unescape().map(Cow::into_owned).map_err(|error| error.kind)
}

#[test]
fn escapes_are_resolved() {
    for (json, text) in [
        (r#""""#, ""),
        (r#""plain é""#, "plain é"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\uFFFF\u0000""#, "Aé\u{ffff}\0"),
        (r#""x\ud83d\ude00y""#, "x😀y"),
        (r#""\\u0041""#, r"\u0041"),
    ] {
        assert_eq!(read(json).as_deref(), Ok(text), "{json}");
    }
}

#[test]
fn defects_are_named() {
    for (json, kind) in [
        (r#""\x""#, JsonErrorKind::InvalidEscape),
        (r#""\U0041""#, JsonErrorKind::InvalidEscape),
        (r#""\u004""#, JsonErrorKind::InvalidEscape),
        (r#""\u+041""#, JsonErrorKind::InvalidEscape),
        ("\"\u{1f}\"", JsonErrorKind::ControlInString),
        ("\"a\nb\"", JsonErrorKind::ControlInString),
        (r#"""#, JsonErrorKind::UnexpectedEnd),
        (r#""a\""#, JsonErrorKind::UnexpectedEnd),
        (r#""a\"#, JsonErrorKind::UnexpectedEnd),
        (r#""\u00"#, JsonErrorKind::UnexpectedEnd),
        (r#""\ud83d""#, JsonErrorKind::LoneSurrogate),
        (r#""\ud83dx""#, JsonErrorKind::LoneSurrogate),
        (r#""\ud83d\n""#, JsonErrorKind::LoneSurrogate),
        (r#""\ud83d\u0041""#, JsonErrorKind::LoneSurrogate),
        (r#""\ude00""#, JsonErrorKind::LoneSurrogate),
    ] {
        assert_eq!(read(json), Err(kind), "{json}");
    }
}

#[test]
fn half_a_pair_is_json_all_the_same() {
    assert!(Scanner::new(br#""\ud83d""#).skip().is_ok());
}

#[test]
fn defects_of_text_point_at_their_byte() {
    let string = Scanner::new(br#"  "ab\n\ude00""#).string().expect("a string");
    assert_eq!(string.unescape(), Err(JsonError::new(7, JsonErrorKind::LoneSurrogate)));
    let string = Scanner::new(b"\"ab\xff\"").string().expect("bytes above ASCII are not the scanner's");
    assert_eq!(string.unescape(), Err(JsonError::new(3, JsonErrorKind::InvalidUtf8)));
}

#[test]
fn comparison_resolves_escapes_and_nothing_else() {
    let eq =
        |json: &str, text: &str| Scanner::new(json.as_bytes()).string().is_ok_and(|string| string.eq(text));
    assert!(eq(r#""model""#, "model"));
    assert!(eq(r#""m\u006fdel""#, "model"));
    assert!(eq(r#""\u006d\u006f\u0064\u0065\u006c""#, "model"));
    assert!(eq(r#""""#, ""));
    assert!(!eq(r#""Model""#, "model"));
    assert!(!eq(r#""models""#, "model"));
    assert!(!eq(r#""model\u0000""#, "model"));
    assert!(!eq(r#""\ud83d""#, ""));
}
