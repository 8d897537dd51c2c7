//! The engines that the flags of the production-stack's router name.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::snapshot::Role;
use fleet::stack::Pairs;

use super::asks;
use crate::cli::stack::Discovery;
use crate::cli::stack::Logic;
use crate::cli::stack::StackFlags;
use crate::config::PodsConfig;
use crate::control::Fixed;
use crate::control::FixedWorker;
use crate::control::url::WorkerUrl;
use crate::control::url::shown;
use crate::discovery::WATCH_SECONDS_MAX;
use crate::discovery::kubernetes::Selector;

/// What the flags name.
#[derive(Debug)]
pub(super) struct Engines {
    /// Ordered by URL, so that turns are taken in that order.
    pub(super) workers: Vec<FixedWorker>,
    /// Where more of them are looked for.
    pub(super) pods: Option<PodsConfig>,
    /// Models by their other names.
    pub(super) aliases: Vec<(String, String)>,
}

/// One engine with what it serves.
#[derive(Debug)]
struct Engine {
    models: Vec<String>,
    types: Vec<String>,
    label: String,
}

/// Reads them.
///
/// # Errors
/// What cannot be used, in one line that names the flag.
pub(super) fn read(flags: &StackFlags) -> Result<Engines, String> {
    let aliases = aliases(flags.static_aliases.as_deref())?;
    if flags.service_discovery == Some(Discovery::K8s) {
        return Ok(Engines { workers: Vec::new(), pods: Some(pods(flags)?), aliases });
    }
    let urls = required("--static-backends", flags.static_backends.as_deref())?;
    let models = required("--static-models", flags.static_models.as_deref())?;
    same_length("--static-models", models.len(), urls.len())?;
    let labels = optional("--static-model-labels", flags.static_model_labels.as_deref(), urls.len())?;
    let types = optional("--static-model-types", flags.static_model_types.as_deref(), urls.len())?;
    if let Some(other) = types.iter().flatten().find(|kind| asks::of(kind, "").is_none()) {
        return Err(format!("--static-model-types: `{other}` is not one of {}", asks::TYPES.join(", ")));
    }
    if flags.static_backend_health_checks && types.is_none() {
        return Err("--static-backend-health-checks needs --static-model-types".to_owned());
    }
    let mut engines: BTreeMap<Box<str>, Engine> = BTreeMap::new();
    for (at, given) in urls.iter().enumerate() {
        let url = WorkerUrl::parse(given)
            .map_err(|error| format!("--static-backends: {}: {error}", shown(given)))?;
        let label = labels.as_ref().map_or("default", |labels| labels[at]);
        let new = || Engine { models: Vec::new(), types: Vec::new(), label: label.to_owned() };
        let engine = engines.entry(url.text).or_insert_with(new);
        if engine.label != label {
            return Err(format!("--static-model-labels: {given} has both {} and {label}", engine.label));
        }
        if engine.models.iter().any(|model| model == models[at]) {
            return Err(format!("--static-backends: {given} is given twice with the model {}", models[at]));
        }
        engine.models.push(models[at].to_owned());
        engine.types.push(types.as_ref().map_or("", |types| types[at]).to_owned());
    }
    let (pairs, [prefill, decode]) = halves(flags)?;
    let role = |label: &str| match pairs {
        Some(_) if prefill.contains(&label) => Role::Prefill,
        Some(_) if decode.contains(&label) => Role::Decode,
        _ => Role::Regular,
    };
    let has_checks = flags.static_backend_health_checks;
    let workers = engines.into_iter().map(|(url, Engine { models, types, label })| FixedWorker {
        url: url.into(),
        role: role(&label),
        connector: pairs.map(connector),
        fixed: Arc::new(Fixed {
            asks: models
                .iter()
                .zip(&types)
                .filter(|_| has_checks)
                .filter_map(|(model, kind)| asks::of(kind, model))
                .collect(),
            models,
            addresses: Vec::new(),
        }),
    });
    Ok(Engines { workers: workers.collect(), pods: None, aliases })
}

/// The pods that are engines. A label of theirs tells prefill and decode engines apart.
fn pods(flags: &StackFlags) -> Result<PodsConfig, String> {
    let (pairs, [prefill, decode]) = halves(flags)?;
    let of_all = flags.k8s_label_selector.trim();
    let selector = |role, connector, label: Option<&str>| Selector {
        role,
        connector,
        labels: match label {
            Some(label) if of_all.is_empty() => format!("model={label}"),
            Some(label) => format!("{of_all},model={label}"),
            None => of_all.to_owned(),
        },
    };
    let selectors = match pairs {
        None => vec![selector(Role::Regular, None, None)],
        Some(pairs) => {
            let of = |labels: Vec<&str>, role| {
                labels
                    .into_iter()
                    .map(|label| selector(role, Some(connector(pairs)), Some(label)))
                    .collect::<Vec<_>>()
            };
            [of(prefill, Role::Prefill), of(decode, Role::Decode)].concat()
        }
    };
    if flags.k8s_port == 0 {
        return Err("--k8s-port must be above 0".to_owned());
    }
    let watch_s = match flags.k8s_watcher_timeout_seconds {
        0 => WATCH_SECONDS_MAX,
        seconds => seconds.min(WATCH_SECONDS_MAX),
    };
    Ok(PodsConfig { namespace: Some(flags.k8s_namespace.clone()), port: flags.k8s_port, selectors, watch_s })
}

/// Whether requests are shared, and the labels of the engines of each half.
fn halves(flags: &StackFlags) -> Result<(Option<Pairs>, [Vec<&str>; 2]), String> {
    let labels =
        [&flags.prefill_model_labels, &flags.decode_model_labels].map(|list| labels_of(list.as_deref()));
    let pairs = super::pairs(flags.routing_logic);
    if pairs.is_some() && labels.iter().any(Vec::is_empty) {
        let logic = flags.routing_logic.map_or("", Logic::name);
        return Err(format!(
            "--routing-logic {logic} needs --prefill-model-labels and --decode-model-labels"
        ));
    }
    Ok((pairs, labels))
}

/// What the prefill engine's connector is called elsewhere.
fn connector(pairs: Pairs) -> &'static str {
    match pairs {
        Pairs::Shared => "shared",
        Pairs::Orchestrated => "nixl",
    }
}

fn split(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn required<'a>(flag: &str, list: Option<&'a str>) -> Result<Vec<&'a str>, String> {
    let list = split(list.ok_or_else(|| format!("--service-discovery static needs {flag}"))?);
    if list.is_empty() { Err(format!("{flag} is empty")) } else { Ok(list) }
}

/// A list that has as many parts as there are engines, if it is given.
fn optional<'a>(flag: &str, list: Option<&'a str>, engines: usize) -> Result<Option<Vec<&'a str>>, String> {
    let Some(list) = list.map(split).filter(|list| !list.is_empty()) else { return Ok(None) };
    same_length(flag, list.len(), engines)?;
    Ok(Some(list))
}

fn same_length(flag: &str, length: usize, engines: usize) -> Result<(), String> {
    if length == engines {
        return Ok(());
    }
    Err(format!("{flag} and --static-backends must have the same length: they have {length} and {engines}"))
}

fn labels_of(list: Option<&str>) -> Vec<&str> {
    list.map(split).unwrap_or_default()
}

fn aliases(list: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let pair = |part: &str| match part.split_once(':') {
        Some((alias, model)) if !model.contains(':') && !alias.is_empty() && !model.is_empty() => {
            Ok((alias.to_owned(), model.to_owned()))
        }
        _ => Err(format!("--static-aliases: `{part}` is not alias:model")),
    };
    list.map(split).unwrap_or_default().into_iter().map(pair).collect()
}
