//! Members added to a JSON object on its way to a worker, without a copy of it.
//!
//! They are added at its end: where a client has sent a member of the same name, engines go by the last (RFC 8259 §4
//! leaves it to them; the parsers of Python, which they use, all do).

/// What of `body` goes out as it is, with `tail` behind it, so that the object has `members` as well, written as
/// `"name":value` with commas between. None if the body does not end as an object does.
pub(crate) fn append<'a>(body: &'a [u8], members: &[u8], tail: &mut Vec<u8>) -> Option<&'a [u8]> {
    let kept = body.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let is_empty = kept.last()? == &b'{';
    if !is_empty {
        tail.push(b',');
    }
    tail.extend_from_slice(members);
    tail.push(b'}');
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expect: Option<&str>) {
        let mut tail = Vec::new();
        let whole = append(body.as_bytes(), br#""rank":3,"room":7"#, &mut tail)
            .map(|kept| String::from_utf8([kept, &tail].concat()).expect("text"));
        assert_eq!(whole.as_deref(), expect, "{body}");
        if let Some(whole) = whole {
            let object: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
            assert_eq!((&object["rank"], &object["room"]), (&3.into(), &7.into()), "the last counts");
        }
    }

    #[test]
    fn members_come_last() {
        check(r#"{"a":1}"#, Some(r#"{"a":1,"rank":3,"room":7}"#));
        check("{\"a\":{}\n }\r\n ", Some(r#"{"a":{},"rank":3,"room":7}"#));
        check("{}", Some(r#"{"rank":3,"room":7}"#));
        check(" { } ", Some(r#" {"rank":3,"room":7}"#));
        check(r#"{"rank":1,"a":"}"}"#, Some(r#"{"rank":1,"a":"}","rank":3,"room":7}"#));
    }

    #[test]
    fn what_does_not_end_as_an_object_is_left_alone() {
        for body in ["", "}", " ", "[]", "{\"a\":1", "{\"a\":1}]", "null"] {
            check(body, None);
        }
    }
}
