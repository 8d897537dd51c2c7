//! Query strings and path segments: percent-decoding as HTML forms and curl users write them.

/// The decoded value of the first parameter `name`; none when it is absent, empty or not UTF-8.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    decode(value, Plus::IsSpace).filter(|value| !value.is_empty())
}

/// A decoded path segment; none when it is not UTF-8.
pub(crate) fn segment(segment: &str) -> Option<String> {
    decode(segment, Plus::IsPlus)
}

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// Decodes `%XX`. A `%` that begins no escape stands for itself.
fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| escape(tail)).flatten();
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        bytes.push(match (escaped, first) {
            (Some(byte), _) => byte,
            (None, b'+') if plus == Plus::IsSpace => b' ',
            (None, &byte) => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The byte that two hexadecimal digits at the front of `digits` stand for.
fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "url=http%3A%2F%2Fa%3A1&api_key=a+b%2B&flag&bad=%ff&url=second";
        assert_eq!(parameter(query, "url").as_deref(), Some("http://a:1"));
        assert_eq!(parameter(query, "api_key").as_deref(), Some("a b+"));
        assert_eq!(parameter(query, "flag"), None);
        assert_eq!(parameter(query, "bad"), None);
        assert_eq!(parameter("url=http://a:1", "url").as_deref(), Some("http://a:1"));
        assert_eq!(parameter("", "url"), None);
    }

    #[test]
    fn a_lone_percent_stands_for_itself() {
        assert_eq!(segment("100%").as_deref(), Some("100%"));
        assert_eq!(segment("%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(segment("a+b").as_deref(), Some("a+b"));
    }
}
