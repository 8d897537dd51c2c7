//! The configuration file: TOML whose keys are flags. It becomes arguments, and goes the way of all arguments.

use std::path::Path;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::parser::ValueSource;
use toml::Table;
use toml::Value;

use super::one_line;
use super::unbuilt;
use crate::documents;

/// The arguments that stand in the file at `path`, without those that `typed` has already. `command` is the one that
/// takes them.
///
/// # Errors
/// What is wrong with the file, as one line with its name and the key.
pub(super) fn arguments(path: &Path, command: &Command, typed: &ArgMatches) -> Result<Vec<String>, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let table = read(path).map_err(wrong)?;
    let mut arguments = Vec::new();
    for (key, value) in &table {
        let about = |what: &str| wrong(format!("`{key}` {what}"));
        let flag = command.get_arguments().find(|arg| is_named(arg, key));
        let Some(flag) = flag else {
            let is_known = unbuilt::find(&format!("--{key}")).is_some();
            return Err(about(if is_known { "is not supported yet" } else { "is no flag" }));
        };
        let written = written(flag, key, value).map_err(about)?;
        check(command, &written).map_err(|complaint| about(&format!("cannot be used: {complaint}")))?;
        if typed.value_source(flag.get_id().as_str()) != Some(ValueSource::CommandLine) {
            arguments.extend(written);
        }
    }
    Ok(arguments)
}

fn read(path: &Path) -> Result<Table, String> {
    let text = documents::read(path)?;
    // Without the line itself, which may hold a secret.
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count()) + 1;
        format!("line {line}: {}", error.message().lines().collect::<Vec<_>>().join(" "))
    })
}

/// Whether a key means this flag. A file that names a file, or asks for help, means nothing.
fn is_named(arg: &Arg, key: &str) -> bool {
    let is_flag = !matches!(arg.get_id().as_str(), "config" | "help" | "version");
    let aliases = arg.get_all_aliases().unwrap_or_default();
    is_flag && (arg.get_long() == Some(key) || aliases.contains(&key))
}

/// A key with its value as one would type it.
fn written(flag: &Arg, key: &str, value: &Value) -> Result<Vec<String>, &'static str> {
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(is_on) if is_switch => Ok(is_on.then(|| format!("--{key}")).into_iter().collect()),
        _ if is_switch => Err("takes true or false"),
        Value::Array(values) if is_list && values.is_empty() => Ok(vec![format!("--{key}")]),
        Value::Array(values) if is_list => values
            .iter()
            .map(|value| scalar(value).map(|value| format!("--{key}={value}")))
            .collect::<Option<_>>()
            .ok_or("takes strings and numbers"),
        Value::Array(_) => Err("takes one value"),
        value => match scalar(value) {
            Some(value) => Ok(vec![format!("--{key}={value}")]),
            None if is_list => Err("takes strings and numbers"),
            None => Err("takes a string or a number"),
        },
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// Whether the parser takes a flag with its value, so that a complaint can be told by key.
fn check(command: &Command, written: &[String]) -> Result<(), String> {
    let argv = std::iter::once("ringway").chain(written.iter().map(String::as_str));
    match command.clone().no_binary_name(false).try_get_matches_from(argv) {
        Ok(_) => Ok(()),
        Err(error) => Err(one_line(&error.render().to_string())),
    }
}

#[cfg(test)]
mod tests;
