//! The scanner: verdicts against serde_json over every short text, defects with their places, pulled values.

use super::*;

/// Whether the whole of `text` is one value, by skipping it.
fn check(text: &[u8]) -> Result<Span, JsonError> {
    let mut scanner = Scanner::new(text);
    let span = scanner.skip()?;
    scanner.finish()?;
    Ok(span)
}

/// The same by the typed calls, recursively.
fn check_by_pulling(text: &[u8]) -> Result<(), JsonError> {
    fn pull(scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.peek()? {
            Kind::Object => {
                scanner.begin_object()?;
                while scanner.next_key()?.is_some() {
                    pull(scanner)?;
                }
            }
            Kind::Array => {
                scanner.begin_array()?;
                while scanner.next_element()? {
                    pull(scanner)?;
                }
            }
            Kind::String => drop(scanner.string()?),
            Kind::Number => drop(scanner.number()?),
            Kind::True | Kind::False => drop(scanner.bool()?),
            Kind::Null => scanner.null()?,
        }
        Ok(())
    }
    let mut scanner = Scanner::new(text);
    pull(&mut scanner)?;
    scanner.finish()
}

fn check_against_serde(text: &str) {
    let expected = serde_json::from_str::<&serde_json::value::RawValue>(text);
    let ours = check(text.as_bytes());
    assert_eq!(ours.is_ok(), expected.is_ok(), "{text:?}: {ours:?}, serde_json {expected:?}");
    let pulled = check_by_pulling(text.as_bytes());
    assert_eq!(pulled.err().map(|error| error.offset), ours.err().map(|error| error.offset), "{text:?}");
    if let (Ok(span), Ok(expected)) = (ours, expected) {
        assert_eq!(span.of(text.as_bytes()), expected.get().as_bytes(), "{text:?}");
    }
}

/// Calls `visit` with every text of up to `len_max` of the `tokens`.
fn every_text(tokens: &[&str], len_max: usize, text: &mut String, visit: &mut dyn FnMut(&str)) {
    visit(text);
    if len_max == 0 {
        return;
    }
    for token in tokens {
        let len = text.len();
        text.push_str(token);
        every_text(tokens, len_max - 1, text, visit);
        text.truncate(len);
    }
}

#[test]
fn every_short_text_is_judged_as_serde_json_does() {
    for (tokens, len_max) in [
        // Structure, from whole tokens.
        (["{", "}", "[", "]", ",", ":", "\"a\"", "1", " "].as_slice(), 7),
        // Numbers and literals, byte by byte.
        (&["-", "+", "0", "1", ".", "e", "E"], 7),
        (&["true", "t", "rue", "null", "nul", "false", "f", "[", "]", ","], 4),
        // Strings and escapes, byte by byte.
        (&["\"", "\\", "u", "0", "d8", "n", "\u{1f}", "é", "x"], 5),
        (&["\"", "\\u", "00", "dF", "/", " "], 6),
        // Everything at once.
        (
            &[
                "{", "}", "[", "]", "\"", ",", ":", "\\", "u", "0", " ", "1", "e", "-", ".", "t", "f", "n",
                "\n",
            ],
            4,
        ),
    ] {
        every_text(tokens, len_max, &mut String::new(), &mut |text| check_against_serde(text));
    }
}

const FIXTURES: &[&str] = &[
    r#"{"model":"m","messages":[{"role":"user","content":"h\u00e9llo \"x\"\\n"}],"stream":true,"n":1,"stop":null}"#,
    " [ -0.5e+10 , {\"a\" : { } , \"b\" : [ ] } , [ [ [ ] ] ] , \"a string of more than forty bytes, for the blocks\\t\" ] ",
];

#[test]
fn mutated_fixtures_are_judged_as_serde_json_does() {
    let bytes = ["{", "}", "[", "]", "\"", ",", ":", "\\", "u", "0", " ", "e", "-", ".", "t", "\u{1f}", "\t"];
    for fixture in FIXTURES {
        assert!(check(fixture.as_bytes()).is_ok());
        for at in (0..fixture.len()).filter(|&at| fixture.is_char_boundary(at)) {
            let (before, after) = fixture.split_at(at);
            check_against_serde(before);
            let mut behind = after.chars();
            behind.next();
            check_against_serde(&format!("{before}{}", behind.as_str()));
            for byte in bytes {
                check_against_serde(&format!("{before}{byte}{after}"));
                check_against_serde(&format!("{before}{byte}{}", behind.as_str()));
            }
        }
    }
}

#[test]
fn defects_tell_what_was_expected_and_where() {
    for (text, message) in [
        ("", "unexpected end at byte 0"),
        ("  ", "unexpected end at byte 2"),
        (r#"{"a":1 "b":2}"#, "expected `,` or `}` at byte 7"),
        (r#"{"a":1,}"#, "expected a key at byte 7"),
        (r#"{,}"#, "expected a key or `}` at byte 1"),
        (r#"{"a" 1}"#, "expected `:` at byte 5"),
        (r#"{"a":}"#, "expected a value at byte 5"),
        (r#"[1 2]"#, "expected `,` or `]` at byte 3"),
        (r#"[1,]"#, "expected a value at byte 3"),
        (r#"[1}"#, "expected `,` or `]` at byte 2"),
        (r#"[1"#, "unexpected end at byte 2"),
        ("1 1", "unexpected bytes after the value at byte 2"),
        ("01", "unexpected bytes after the value at byte 1"),
        ("-x", "invalid number at byte 1"),
        ("1.e", "invalid number at byte 2"),
        ("trux", "expected `true`, `false` or `null` at byte 3"),
        ("tru", "unexpected end at byte 3"),
        ("\"a\x01\"", "unescaped control character in a string at byte 2"),
        (r#""a\q""#, "invalid escape in a string at byte 3"),
    ] {
        let error = check(text.as_bytes()).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
    }
}

#[test]
fn nesting_is_bounded_by_skipping_and_by_pulling() {
    let max = JSON_DEPTH_MAX as usize;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(check(nested(max).as_bytes()).is_ok());
        assert!(check_by_pulling(nested(max).as_bytes()).is_ok());
        let too_deep = JsonError::new(open.len() * max, JsonErrorKind::TooDeep);
        assert_eq!(check(nested(max + 1).as_bytes()), Err(too_deep));
        assert_eq!(check_by_pulling(nested(max + 1).as_bytes()), Err(too_deep));
    }
    // What is pulled counts for what is skipped inside.
    let nested = format!("{}1{}", "[".repeat(max + 1), "]".repeat(max + 1));
    let mut scanner = Scanner::new(nested.as_bytes());
    scanner.begin_array().expect("an array");
    assert!(scanner.next_element().expect("an element"));
    assert_eq!(scanner.skip(), Err(JsonError::new(max, JsonErrorKind::TooDeep)));
}

#[test]
fn values_are_pulled_with_their_places() {
    let text = br#" {"s": "a\n", "n": -1.5e3, "t": true, "f": false, "z": null, "l": [1, {"x": []}]} "#;
    let mut scanner = Scanner::new(text);
    scanner.begin_object().expect("an object");
    let mut seen = Vec::new();
    while let Some(key) = scanner.next_key().expect("a key") {
        seen.push(key.unescape().expect("a name").into_owned());
        match key.raw {
            b"s" => {
                let string = scanner.string().expect("a string");
                assert_eq!((string.raw, string.offset, string.has_escapes), (br"a\n".as_slice(), 8, true));
            }
            b"n" => assert_eq!(scanner.number(), Ok(b"-1.5e3".as_slice())),
            b"t" | b"f" => assert_eq!(scanner.bool(), Ok(key.raw == b"t")),
            b"z" => assert_eq!(scanner.null(), Ok(())),
            _ => {
                assert_eq!(scanner.peek(), Ok(Kind::Array));
                assert_eq!(scanner.skip().expect("a value").of(text), br#"[1, {"x": []}]"#);
            }
        }
    }
    assert_eq!(seen, ["s", "n", "t", "f", "z", "l"]);
    assert_eq!(scanner.finish(), Ok(()));
    assert_eq!(scanner.offset(), text.len());
}

#[test]
fn a_value_of_another_kind_is_refused() {
    let kinds = |text: &'static [u8]| {
        let scanner = || Scanner::new(text);
        [
            scanner().begin_object().err(),
            scanner().begin_array().err(),
            scanner().string().err(),
            scanner().number().err(),
            scanner().bool().err(),
            scanner().null().err(),
        ]
        .map(|error| error.map(|error| error.kind))
    };
    use JsonErrorKind::{
        ExpectedArray, ExpectedBool, ExpectedNull, ExpectedNumber, ExpectedObject, ExpectedString,
    };
    let all =
        [ExpectedObject, ExpectedArray, ExpectedString, ExpectedNumber, ExpectedBool, ExpectedNull].map(Some);
    for (fits, text) in [b"{".as_slice(), b"[", b"\"\"", b"1", b"true", b"null"].into_iter().enumerate() {
        let mut expected = all;
        expected[fits] = None;
        assert_eq!(kinds(text), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn an_open_container_is_no_finish() {
    let mut scanner = Scanner::new(b"[");
    scanner.begin_array().expect("an array");
    assert_eq!(scanner.finish(), Err(JsonError::new(1, JsonErrorKind::UnexpectedEnd)));
}
