//! Files that people write: read whole, up to a bound, and as YAML.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// Largest file: some ten thousand workers, several times over.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What is in a file.
///
/// # Errors
/// Why that cannot be told, without the file's name.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// What a text says as YAML, of which JSON is a part.
///
/// # Errors
/// Where it is none, as one line without the text itself, which may hold a secret.
pub(crate) fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet().to_string();
        error.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    })
}
