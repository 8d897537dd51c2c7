//! Workers of a list in a file that is watched: JSON or YAML, each as in `POST /workers` or by its URL alone.
//!
//! A list is taken over as a whole or not at all: as long as it cannot be read, or something in it cannot be used, the one
//! before it stays.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tracing::info;
use tracing::warn;

use crate::admin::body;
use crate::control::ControlConfig;
use crate::control::limits::WORKERS_MAX;
use crate::control::worker::WorkerSpec;
use crate::discovery::Herald;
use crate::documents;
use crate::watched::Watched;

/// The member of an object that has the list, where the file is not the list itself.
const LIST: &str = "workers";

/// Tells control of the file's workers for as long as the process lives.
pub(crate) async fn run(path: PathBuf, config: Arc<ControlConfig>, herald: Herald) {
    let mut file = Watched::new(path.clone());
    loop {
        file.changed().await;
        let read = file.last().map_err(str::to_owned).and_then(|text| workers(text, &config));
        match read {
            Ok(workers) => {
                info!(file = %path.display(), workers = workers.len(), "the list of workers was read");
                herald.tell(workers.into_iter().map(|spec| herald.own(spec)).collect()).await;
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "the list of workers cannot be used: the one before it stays");
            }
        }
    }
}

/// Looks whether the file can be used.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(path: &Path, config: &ControlConfig) -> Result<(), String> {
    workers(&documents::read(path)?, config).map(drop)
}

/// The workers of a list.
fn workers(text: &str, config: &ControlConfig) -> Result<Vec<WorkerSpec>, String> {
    if text.trim().is_empty() {
        return Err("it is empty; a list without workers is []".to_owned());
    }
    let root = documents::yaml(text)?;
    let entries = match root {
        Value::Array(entries) => entries,
        Value::Object(mut object) if object.len() == 1 && object.contains_key(LIST) => {
            match object.remove(LIST) {
                Some(Value::Array(entries)) => entries,
                _ => return Err(format!("`{LIST}` must be a list")),
            }
        }
        _ => return Err(format!("it must be a list, or an object with nothing but the list `{LIST}`")),
    };
    if entries.len() > WORKERS_MAX {
        return Err(format!("it has more than {WORKERS_MAX} workers"));
    }
    let mut seen = HashSet::new();
    let mut workers = Vec::with_capacity(entries.len());
    for (at, entry) in entries.into_iter().enumerate() {
        let number = at + 1;
        let spec = worker(entry, config).map_err(|what| format!("entry {number}: {what}"))?;
        if !seen.insert(spec.url.key()) {
            return Err(format!("entry {number}: {} is there twice", spec.url.text));
        }
        workers.push(spec);
    }
    Ok(workers)
}

fn worker(entry: Value, config: &ControlConfig) -> Result<WorkerSpec, String> {
    let object = match entry {
        Value::String(url) => serde_json::json!({"url": url}),
        Value::Object(object) => {
            if let Some(unknown) = object.keys().find(|name| !body::is_field(name)) {
                return Err(format!("{unknown:?} is no field of a worker"));
            }
            Value::Object(object)
        }
        _ => return Err("it must be a URL or an object".to_owned()),
    };
    body::new_worker(object.to_string().as_bytes(), config).map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use fleet::snapshot::Role;

    use super::*;
    use crate::control::rig;

    fn read(text: &str) -> Result<Vec<WorkerSpec>, String> {
        workers(text, &rig::config(&[]))
    }

    #[test]
    fn lists_are_json_or_yaml() {
        for text in [
            r#"["http://a:1", {"url": "http://b:2", "worker_type": "decode", "labels": {"tier": "gold"}}]"#,
            "- http://a:1\n- url: http://b:2\n  worker_type: decode\n  labels:\n    tier: gold\n",
            "workers:\n- http://a:1\n- {url: http://b:2, worker_type: decode, labels: {tier: gold}}\n",
        ] {
            let workers = read(text).expect(text);
            let told: Vec<_> = workers.iter().map(|spec| (&*spec.url.text, spec.role)).collect();
            let expect = [("http://a:1", Role::Regular), ("http://b:2", Role::Decode)];
            assert_eq!(told, expect, "{text}");
            assert_eq!(workers[1].labels["tier"], "gold");
        }
        assert!(read("[]").expect("no workers").is_empty());
    }

    #[test]
    fn whatever_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("", "it is empty"),
            ("{", "line 1"),
            ("7", "it must be a list"),
            ("{\"workers\": 1}", "`workers` must be a list"),
            ("{\"workers\": [], \"more\": 1}", "nothing but the list"),
            ("[\"http://a:1\", 7]", "entry 2: it must be a URL or an object"),
            ("[{\"url\": \"http://a:1\", \"colour\": 1}]", "entry 1: \"colour\" is no field"),
            ("[{\"url\": \"http://a:1\", \"priority\": -1}]", "entry 1: priority must be an integer"),
            ("[{}]", "entry 1: url is required"),
            ("[\"ftp://a\"]", "entry 1: url cannot be used"),
            ("[\"http://a:1\", \"http://a:1/\"]", "entry 2: http://a:1 is there twice"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
