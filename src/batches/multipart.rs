//! The body of an upload: `multipart/form-data` (RFC 7578), taken apart without a copy.

use std::ops::Range;

use memchr::memmem;

use super::limits;

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    /// The name of the file, if it is one.
    pub(super) filename: Option<String>,
    /// Where its content is.
    pub(super) content: Range<usize>,
}

/// The boundary that a `Content-Type` names, if it is that of a form.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (!boundary.is_empty() && boundary.len() <= 70).then_some(boundary)
}

/// Takes a form apart.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, &'static str> {
    let opening = format!("--{boundary}");
    let delimiter = memmem::Finder::new(&opening);
    let separator = format!("\r\n--{boundary}");
    let separator = memmem::Finder::new(&separator);
    // What stands before the first delimiter is no part of the form.
    let mut at = if body.starts_with(opening.as_bytes()) {
        opening.len()
    } else {
        separator.find(body).ok_or("no part begins with its boundary")? + delimiter.needle().len() + 2
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if !rest[padding..].starts_with(b"\r\n") {
            return Err("a boundary does not end its line");
        }
        if parts.len() == limits::PARTS_MAX {
            return Err("it has too many parts");
        }
        // A head without a line ends at once, so the search begins at the line break before it.
        let head_at = at + padding + 2;
        let searched = &body[head_at - 2..body.len().min(head_at + limits::PART_HEAD_BYTES_MAX)];
        let head_end = memmem::find(searched, b"\r\n\r\n").ok_or("the head of a part does not end")?;
        let head = &searched[2.min(head_end)..head_end];
        let begin = head_at - 2 + head_end + 4;
        let length = separator.find(&body[begin..]).ok_or("the last boundary is missing")?;
        let (name, filename) = disposition(head)?;
        parts.push(Part { name, filename, content: begin..begin + length });
        at = begin + length + separator.needle().len();
    }
}

/// The name of a part, and that of its file.
fn disposition(head: &[u8]) -> Result<(String, Option<String>), &'static str> {
    let head = std::str::from_utf8(head).map_err(|_| "the head of a part is not UTF-8")?;
    let value = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let (kind, parameters) =
        value.and_then(|value| value.split_once(';')).ok_or("a part has no Content-Disposition")?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("a part is no form-data");
    }
    let name = parameter(parameters, "name").ok_or("a part has no name")?;
    Ok((name, parameter(parameters, "filename")))
}

/// The value of a parameter, quoted or not.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, left) = value(after.trim_start());
        if name.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = left;
    }
}

/// A value, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            // Browsers send %22 for a quote; others escape it.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(letters.next().map(|(_, it)| it))
            }
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const FORM: &str = "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B\r\n\
        content-type: x\r\ncontent-disposition: form-data; name=file; filename=\"a \\\"b\\\".jsonl\"\r\n\r\n\
        {\"a\":1}\r\n--\r\n\r\n--B--\r\n";

    #[test]
    fn a_form_is_taken_apart() {
        for form in [FORM.to_owned(), format!("a preamble\r\n{FORM}and more")] {
            let parts = parts(form.as_bytes(), "B").expect("a good form");
            let seen: Vec<_> = parts
                .iter()
                .map(|part| (part.name.as_str(), part.filename.as_deref(), &form[part.content.clone()]))
                .collect();
            let file = "{\"a\":1}\r\n--\r\n";
            assert_eq!(seen, [("purpose", None, "batch"), ("file", Some("a \"b\".jsonl"), file)]);
        }
    }

    #[test]
    fn no_cut_form_is_taken_for_a_whole_one() {
        let whole = FORM.trim_end().len();
        for end in 0..whole {
            assert!(parts(&FORM.as_bytes()[..end], "B").is_err(), "{end}: {:?}", &FORM[..end]);
        }
        assert!(parts(&FORM.as_bytes()[..whole], "B").is_ok());
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for form in [
            "",
            "{}",
            "--Bx\r\n\r\n\r\n--B--",
            "--B\r\n\r\nno head\r\n--B--",
            "--B\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n\r\n--B--",
            "--B\r\nContent-Disposition: form-data\r\n\r\n\r\n--B--",
            "--B\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\n\r\n--B--",
        ] {
            assert!(parts(form.as_bytes(), "B").is_err(), "{form:?}");
        }
        let many =
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n".repeat(limits::PARTS_MAX + 1);
        assert_eq!(parts(format!("{many}--B--").as_bytes(), "B"), Err("it has too many parts"));
        let long = "x".repeat(limits::PART_HEAD_BYTES_MAX);
        assert!(parts(format!("--B\r\na: {long}\r\n\r\n\r\n--B--").as_bytes(), "B").is_err());
    }

    #[test]
    fn no_bytes_lead_out_of_the_body() {
        let mut random = SmallRng::seed_from_u64(7);
        let pieces = [
            "--B",
            "\r\n",
            "--",
            "content-disposition: form-data;",
            " name=\"a\"",
            ";",
            "\"",
            "=",
            "\\",
            "x",
            "é",
            ":",
        ];
        for _ in 0..20_000 {
            let count = random.random_range(0..24);
            let form: String = (0..count).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
            for part in parts(form.as_bytes(), "B").unwrap_or_default() {
                assert!(form.as_bytes().get(part.content).is_some(), "{form:?}");
            }
            let _ = boundary(&form);
            let _ = boundary(&format!("multipart/form-data; {form}"));
        }
    }

    #[test]
    fn boundaries_are_found() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=B", Some("B")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/mixed; boundary=B", None),
            ("application/json", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
    }
}
