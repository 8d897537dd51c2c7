//! Settings in YAML files: read as a tree, and asked field by field, so that whatever is wrong is told by its name.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Map;
use serde_json::Value;

use crate::Failure;
use crate::documents;

/// A file that was read.
#[derive(Debug)]
pub(super) struct Document {
    /// Flag and path, as a complaint begins.
    file: String,
    root: Value,
}

/// Fields of one place in a file. Each is asked for; at the end nothing may be left.
#[derive(Debug)]
pub(super) struct Section<'a> {
    file: &'a str,
    /// Where in the file, with a dot behind unless it is the file itself.
    at: String,
    fields: Option<&'a Map<String, Value>>,
    asked: Vec<&'static str>,
}

impl Document {
    /// Reads the file that `flag` names.
    ///
    /// # Errors
    /// When it cannot be read or is no YAML.
    pub(super) fn read(flag: &str, path: &Path) -> Result<Self, Failure> {
        let file = format!("{flag} {}", path.display());
        let text = documents::read(path).map_err(|error| Failure::usage(format!("{file}: {error}")))?;
        Self::parse(file, &text)
    }

    fn parse(file: String, text: &str) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Ok(Self { file, root: Value::Null });
        }
        match documents::yaml(text) {
            Ok(root) => Ok(Self { file, root }),
            Err(error) => Err(Failure::usage(format!("{file}: {error}"))),
        }
    }

    /// The fields of the file itself.
    pub(super) fn root(&self) -> Result<Section<'_>, Failure> {
        section(&self.file, String::new(), &self.root)
    }
}

fn section<'a>(file: &'a str, at: String, value: &'a Value) -> Result<Section<'a>, Failure> {
    let fields = match value {
        Value::Null => None,
        Value::Object(fields) => Some(fields),
        _ => {
            let place = if at.is_empty() { "it".to_owned() } else { format!("`{at}`") };
            return Err(Failure::usage(format!("{file}: {place} must be a mapping of fields")));
        }
    };
    let at = if at.is_empty() { at } else { format!("{at}.") };
    Ok(Section { file, at, fields, asked: Vec::new() })
}

impl<'a> Section<'a> {
    /// Something wrong with a field.
    pub(super) fn wrong(&self, name: &str, what: &str) -> Failure {
        Failure::usage(format!("{}: `{}{name}` {what}", self.file, self.at))
    }

    fn field(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.push(name);
        self.fields?.get(name).filter(|value| !value.is_null())
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        match value.as_u64().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let what = format!("must be a whole number between {} and {}", bounds.start(), bounds.end());
                Err(self.wrong(name, &what))
            }
        }
    }

    /// A share between 0 and 1.
    pub(super) fn share(&mut self, name: &'static str) -> Result<Option<f64>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        match value.as_f64().filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Some(share)),
            None => Err(self.wrong(name, "must be a number between 0 and 1")),
        }
    }

    /// Yes or no.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, "must be true or false"))
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Failure> {
        let Some(value) = self.field(name) else { return Ok(None) };
        match value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text)),
            None => Err(self.wrong(name, "must be a text, and not empty")),
        }
    }

    /// Fields within this place, none of them if it is not there.
    pub(super) fn section(&mut self, name: &'static str) -> Result<Section<'a>, Failure> {
        let value = self.field(name).unwrap_or(&Value::Null);
        section(self.file, format!("{}{name}", self.at), value)
    }

    /// A list of places with fields, at most so many.
    pub(super) fn list(&mut self, name: &'static str, len_max: usize) -> Result<Vec<Section<'a>>, Failure> {
        let Some(value) = self.field(name) else { return Ok(Vec::new()) };
        let entries = value.as_array().ok_or_else(|| self.wrong(name, "must be a list"))?;
        if entries.len() > len_max {
            return Err(self.wrong(name, &format!("takes {len_max} entries at most")));
        }
        let entry = |(at, value)| section(self.file, format!("{}{name}[{at}]", self.at), value);
        entries.iter().enumerate().map(entry).collect()
    }

    /// Nothing else may stand here.
    pub(super) fn end(self) -> Result<(), Failure> {
        let known = |name: &&String| !self.asked.contains(&name.as_str());
        match self.fields.into_iter().flat_map(Map::keys).find(known) {
            Some(unknown) => Err(self.wrong(unknown, &format!("is no field: use {}", self.asked.join(", ")))),
            None => Ok(()),
        }
    }
}
