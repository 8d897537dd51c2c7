//! Splices: what is inserted, what is replaced, and that the rest stays byte for byte.

use super::*;
use crate::json::{JsonErrorKind, RawStr};

fn edit(body: &str, key: &str, value: &str) -> String {
    let splice = insert_member(body.as_bytes(), key, value).expect(body);
    let edited = splice.parts(body.as_bytes()).concat();
    assert_eq!(edited.len(), splice.edited_len(body.as_bytes()));
    String::from_utf8(edited).expect("UTF-8")
}

#[test]
fn a_member_is_added_in_front_or_replaced_in_place() {
    for (body, edited) in [
        ("{}", r#"{"k":true}"#),
        (" { } ", r#" {"k":true } "#),
        (r#"{"a":1}"#, r#"{"k":true,"a":1}"#),
        ("{\n  \"a\": 1\n}\n", "{\"k\":true,\n  \"a\": 1\n}\n"),
        (r#"{"a":1, "k" : {"x": [1]} , "b":2}"#, r#"{"a":1, "k" : true , "b":2}"#),
        (r#"{"k":null}"#, r#"{"k":true}"#),
        (r#"{"\u006b":null}"#, r#"{"\u006b":true}"#),
        (r#"{"k":1,"k":2}"#, r#"{"k":1,"k":true}"#),
        (r#"{"a":{"k":1}}"#, r#"{"k":true,"a":{"k":1}}"#),
        (r#"{"a":"} ,\"k\":1"}"#, r#"{"k":true,"a":"} ,\"k\":1"}"#),
    ] {
        assert_eq!(edit(body, "k", "true"), edited, "{body}");
    }
}

#[test]
fn a_spliced_body_parses_to_the_old_one_and_the_member() {
    let bodies = ["{}", r#"{"a":1}"#, r#"{"a":[{"b":"c"}],"stream_options":{"x":1},"d":null}"#];
    let keys = ["stream_options", "a", "quote\"back\\slash", "tab\tand é", ""];
    let values = ["true", r#"{"include_usage":true}"#, "[1,2]", "\"s\"", "-1e9", "null"];
    for body in bodies {
        for key in keys {
            for value in values {
                let mut expected: serde_json::Value = serde_json::from_str(body).expect("a body");
                expected[key] = serde_json::from_str(value).expect("a value");
                let edited: serde_json::Value =
                    serde_json::from_str(&edit(body, key, value)).expect("still JSON");
                assert_eq!(edited, expected, "{body} with {key:?}: {value}");
                assert_eq!(
                    edit(&edit(body, key, "0"), key, value),
                    edit(body, key, value),
                    "the last word holds"
                );
            }
        }
    }
}

#[test]
fn only_one_whole_object_is_edited() {
    for (body, kind) in [
        ("", JsonErrorKind::UnexpectedEnd),
        ("[]", JsonErrorKind::ExpectedObject),
        ("null", JsonErrorKind::ExpectedObject),
        ("{} {}", JsonErrorKind::TrailingBytes),
        (r#"{"a":1"#, JsonErrorKind::UnexpectedEnd),
        (r#"{"a":tru}"#, JsonErrorKind::InvalidLiteral),
        (r#"{"a":1,}"#, JsonErrorKind::ExpectedKey),
    ] {
        assert_eq!(insert_member(body.as_bytes(), "k", "1").map_err(|error| error.kind), Err(kind), "{body}");
    }
}

#[test]
fn a_written_key_reads_back() {
    for text in ["", "k", "a\"b\\c", "\0\u{1f}\n", "é😀\u{7f}"] {
        let mut out = Vec::new();
        write_string(text, &mut out);
        let string: RawStr<'_> = Scanner::new(&out).string().expect("a string");
        assert!(string.eq(text), "{text:?}");
    }
}
