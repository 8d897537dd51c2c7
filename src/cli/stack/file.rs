//! The file of settings that change while the router runs: JSON or YAML, whose keys are flags.

use std::path::Path;

use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;

use super::StackFlags;
use crate::documents;

/// Has what the file says hold before the flags.
///
/// # Errors
/// What is wrong with the file, in one line with the key. Then nothing of it holds.
pub(super) fn take_over(path: &Path, is_yaml: bool, flags: &mut StackFlags) -> Result<(), String> {
    let text = documents::read(path)?;
    let mut taken = flags.clone();
    read(&text, is_yaml, &mut taken)?;
    *flags = taken;
    Ok(())
}

/// Reads the text of a file into `flags`.
fn read(text: &str, is_yaml: bool, flags: &mut StackFlags) -> Result<(), String> {
    let value: Value = if is_yaml {
        serde_saphyr::from_str(text).map_err(|error| format!("it is not YAML: {}", first_line(&error)))?
    } else {
        serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?
    };
    let Value::Object(mut fields) = value else { return Err("it is no object".to_owned()) };
    if is_yaml {
        expand(&mut fields)?;
    }
    for (key, value) in &fields {
        set(flags, key, value).map_err(|error| format!("`{key}` {error}"))?;
    }
    let required = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Err(format!("`{key}` is missing")),
        Some(_) => Ok(()),
    };
    required("service_discovery")?;
    required("routing_logic")
}

fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Spells out what YAML may say shorter: models with their engines, and aliases, as maps.
fn expand(fields: &mut Map<String, Value>) -> Result<(), String> {
    if let Some(Value::Object(models)) = fields.get("static_models") {
        let (mut urls, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for (name, model) in models {
            let wrong = |what: &str| format!("`static_models` of {name}: {what}");
            let Value::Object(model) = model else { return Err(wrong("it is no map")) };
            if let Some(key) =
                model.keys().find(|key| !matches!(key.as_str(), "static_backends" | "static_model_type"))
            {
                return Err(wrong(&format!("`{key}` is not known")));
            }
            let Some(Value::Array(backends)) = model.get("static_backends") else {
                return Err(wrong("`static_backends` is no list"));
            };
            for backend in backends {
                urls.push(backend.as_str().ok_or_else(|| wrong("an engine is no text"))?.to_owned());
                names.push(name.clone());
                types.extend(model.get("static_model_type").and_then(Value::as_str).map(str::to_owned));
            }
        }
        if !types.is_empty() && types.len() != urls.len() {
            return Err("`static_models`: either all models have a static_model_type or none".to_owned());
        }
        fields.insert("static_models".to_owned(), names.join(",").into());
        fields.insert("static_backends".to_owned(), urls.join(",").into());
        if !types.is_empty() {
            fields.insert("static_model_types".to_owned(), types.join(",").into());
        }
    }
    if let Some(Value::Object(aliases)) = fields.get("static_aliases") {
        let pair = |(alias, model): (&String, &Value)| Some(format!("{alias}:{}", model.as_str()?));
        let pairs: Option<Vec<String>> = aliases.iter().map(pair).collect();
        let pairs = pairs.ok_or("`static_aliases`: a model is no text")?;
        fields.insert("static_aliases".to_owned(), pairs.join(",").into());
    }
    Ok(())
}

/// Sets one flag.
fn set(flags: &mut StackFlags, key: &str, value: &Value) -> Result<(), String> {
    match key {
        "service_discovery" => flags.service_discovery = choice(value)?,
        "routing_logic" => flags.routing_logic = choice(value)?,
        "static_backends" => flags.static_backends = list(value)?,
        "static_models" => flags.static_models = list(value)?,
        "static_aliases" => flags.static_aliases = list(value)?,
        "static_model_types" => flags.static_model_types = list(value)?,
        "static_model_labels" => flags.static_model_labels = list(value)?,
        "prefill_model_labels" => flags.prefill_model_labels = list(value)?,
        "decode_model_labels" => flags.decode_model_labels = list(value)?,
        "session_key" => flags.session_key = text(value)?,
        "static_backend_health_checks" => {
            flags.static_backend_health_checks = match value {
                Value::Null => false,
                Value::Bool(is_on) => *is_on,
                _ => return Err("must be true or false".to_owned()),
            }
        }
        "static_backend_health_check_interval" => {
            take(&mut flags.static_backend_health_check_interval, number(value)?);
        }
        "static_backend_health_check_timeout_seconds" => {
            take(&mut flags.static_backend_health_check_timeout_seconds, number(value)?);
        }
        "prefix_min_match_length" => {
            take(&mut flags.prefix_min_match_length, narrow(number(value)?)?);
        }
        "max_instance_failover_reroute_attempts" => {
            take(&mut flags.max_instance_failover_reroute_attempts, narrow(number(value)?)?);
        }
        "k8s_port" => take(&mut flags.k8s_port, narrow(number(value)?)?),
        "k8s_namespace" => take(&mut flags.k8s_namespace, text(value)?),
        "k8s_label_selector" => take(&mut flags.k8s_label_selector, text(value)?),
        "callbacks" if value.is_null() => {}
        "callbacks" => return Err("is not supported".to_owned()),
        _ => return Err("is not known".to_owned()),
    }
    Ok(())
}

fn take<T>(flag: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *flag = given;
    }
}

fn choice<T: ValueEnum>(value: &Value) -> Result<Option<T>, String> {
    let names = || {
        let names: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|variant| Some(variant.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("must be one of {}", names.join(", "))
    };
    match value {
        Value::Null => Ok(None),
        Value::String(name) => T::from_str(name, false).map(Some).map_err(|_| names()),
        _ => Err(names()),
    }
}

fn text(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err("must be text".to_owned()),
    }
}

/// Texts with commas between, or a list of them.
fn list(value: &Value) -> Result<Option<String>, String> {
    let no_list = || "must be text, or a list of texts".to_owned();
    let Value::Array(values) = value else { return text(value).map_err(|_| no_list()) };
    let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
    texts.map(|texts| Some(texts.join(","))).ok_or_else(no_list)
}

fn number(value: &Value) -> Result<Option<u64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => number.as_u64().map(Some).ok_or_else(|| "must be a whole number".to_owned()),
        Value::String(text) => text.parse().map(Some).map_err(|_| "must be a whole number".to_owned()),
        _ => Err("must be a whole number".to_owned()),
    }
}

fn narrow<T: TryFrom<u64>>(number: Option<u64>) -> Result<Option<T>, String> {
    number.map(|number| T::try_from(number).map_err(|_| "is too large".to_owned())).transpose()
}
