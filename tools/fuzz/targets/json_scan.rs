//! JSON texts: serde_json's verdict by skipping and by pulling, and edits that leave JSON behind.

use serde_json::value::RawValue;
use wire::json::{JsonError, JsonErrorKind, Kind, Scanner, insert_member};

/// One input: a request's body.
pub fn fuzz_json_scan(data: &[u8]) {
    let skipped = skip(data);
    let pulled = pull_all(data);
    assert_eq!(pulled.err(), skipped.err(), "pulling and skipping find the same defect");

    // UTF-8 is checked before the scanner is asked; serde_json bounds no depth here, and no number's size.
    if let Ok(text) = std::str::from_utf8(data)
        && !matches!(skipped, Err(JsonError { kind: JsonErrorKind::TooDeep, .. }))
    {
        let theirs = serde_json::from_str::<&RawValue>(text);
        assert_eq!(skipped.is_ok(), theirs.is_ok(), "ours {skipped:?}, serde_json {theirs:?}");
    }

    let splice = insert_member(data, "k", "[1]");
    if skipped.is_err() {
        assert!(splice.is_err(), "what is no JSON is not edited");
    }
    let Ok(splice) = splice else { return };
    let edited = splice.parts(data).concat();
    assert_eq!(edited.len(), splice.edited_len(data));
    assert_eq!(skip(&edited), Ok(()), "an edit leaves JSON behind");
    let again = insert_member(&edited, "k", "[1]").expect("an edited body can be edited");
    assert_eq!(again.parts(&edited).concat(), edited, "the member is there now");
}

fn skip(data: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(data);
    let span = scanner.skip()?;
    assert!(span.start < span.end && span.end <= data.len());
    scanner.finish()
}

fn pull_all(data: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(data);
    pull(&mut scanner)?;
    scanner.finish()
}

/// Reads a value by the typed calls; the scanner's own limit bounds the recursion.
fn pull(scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
    match scanner.peek()? {
        Kind::Object => {
            scanner.begin_object()?;
            while let Some(key) = scanner.next_key()? {
                if let Ok(name) = key.unescape() {
                    assert!(key.eq(&name), "a key is what it unescapes to");
                }
                pull(scanner)?;
            }
        }
        Kind::Array => {
            scanner.begin_array()?;
            while scanner.next_element()? {
                pull(scanner)?;
            }
        }
        Kind::String => {
            let string = scanner.string()?;
            assert_eq!(string.raw.contains(&b'\\'), string.has_escapes);
        }
        Kind::Number => drop(scanner.number()?),
        Kind::True | Kind::False => drop(scanner.bool()?),
        Kind::Null => scanner.null()?,
    }
    Ok(())
}
