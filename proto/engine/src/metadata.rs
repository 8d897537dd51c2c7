//! Which models a worker serves and which engine it is, from its information endpoints.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

/// Models taken over from one worker: a base model and its adapters.
pub const MODELS_PER_WORKER_MAX: usize = 64;
/// Data-parallel ranks believed of one address; more are an accident.
pub const RANKS_MAX: u16 = 512;
/// Longest name taken over; a longer one is no name but an accident.
pub const NAME_BYTES_MAX: usize = 512;

/// The engine's manner of speaking, as far as it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// SGLang: native endpoints, `/server_info`.
    Sglang,
    /// vLLM: `/version`, `/reset_prefix_cache`.
    Vllm,
    /// llama.cpp's server.
    LlamaCpp,
    /// Anything else behind the OpenAI endpoints.
    #[default]
    OpenAi,
}

impl Dialect {
    /// Whether chat requests may begin the answer (`continue_final_message`).
    pub fn can_continue(self) -> bool {
        matches!(self, Self::Sglang | Self::Vllm)
    }

    /// Its name in admin answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sglang => "sglang",
            Self::Vllm => "vllm",
            Self::LlamaCpp => "llamacpp",
            Self::OpenAi => "external",
        }
    }
}

/// One entry of `/v1/models`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name that requests use.
    pub id: String,
    /// Who says it owns the model; engines put their own name here.
    pub owned_by: Option<String>,
    /// The model that an adapter or alias stands on.
    pub root: Option<String>,
    /// The base model of an adapter.
    pub parent: Option<String>,
    /// Context length in tokens.
    pub max_model_len: Option<u64>,
}

/// Bodies of the information endpoints that answered 2xx.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers<'a> {
    /// `/v1/models`.
    pub models: Option<&'a [u8]>,
    /// `/server_info` or `/get_server_info`.
    pub server_info: Option<&'a [u8]>,
    /// `/model_info` or `/get_model_info`.
    pub model_info: Option<&'a [u8]>,
    /// `/version`.
    pub version: Option<&'a [u8]>,
}

/// What is known of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The engine.
    pub dialect: Dialect,
    /// Its version.
    pub version: Option<String>,
    /// Models served, the base model first.
    pub models: Vec<Model>,
    /// Path or repository the model was loaded from.
    pub model_path: Option<String>,
    /// Name the engine was told to serve it under.
    pub served_model_name: Option<String>,
    /// Path or repository of the tokenizer.
    pub tokenizer_path: Option<String>,
    /// Whether the model generates; embedding and reward models do not.
    pub is_generation: Option<bool>,
    /// Whether it answers HTTP/2 with prior knowledge.
    pub speaks_http2: bool,
    /// Further facts, shown as labels of the worker.
    pub labels: Vec<(&'static str, String)>,
}

impl Metadata {
    /// Reads what there is.
    pub fn read(answers: &Answers<'_>) -> Self {
        let server_info = answers.server_info.and_then(object);
        let model_info = answers.model_info.and_then(object);
        let sources: Vec<&Map<String, Value>> = [&model_info, &server_info].into_iter().flatten().collect();
        let models = answers.models.map(models).unwrap_or_default();
        let version = answers.version.and_then(object);
        Self {
            dialect: dialect(&models, server_info.is_some(), version.is_some()),
            version: [&server_info, &version].into_iter().flatten().find_map(|info| text(info, "version")),
            model_path: first(&sources, "model_path"),
            served_model_name: first(&sources, "served_model_name"),
            tokenizer_path: first(&sources, "tokenizer_path"),
            is_generation: sources.iter().find_map(|info| info.get("is_generation")?.as_bool()),
            speaks_http2: server_info
                .as_ref()
                .and_then(|info| info.get("enable_http2"))
                .is_some_and(|flag| flag.as_bool() == Some(true)),
            labels: labels(&sources),
            models,
        }
    }

    /// Data-parallel ranks behind its address that requests may name (SGLang's `dp_size`); 1 unless it says otherwise.
    pub fn ranks(&self) -> u16 {
        let said = self.labels.iter().find(|(name, _)| *name == "dp_size");
        let ranks = said.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
        if self.dialect == Dialect::Sglang { ranks.clamp(1, RANKS_MAX) } else { 1 }
    }

    /// Names this worker's model goes by, the main one first: as the engine was told, as it lists, as it loaded.
    pub fn model_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let listed = self.models.iter().map(|model| model.id.as_str());
        for name in self.served_model_name.as_deref().into_iter().chain(listed) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.extend(self.model_path.as_deref());
        }
        names
    }
}

const SHOWN: [&str; 10] = [
    "model_path",
    "served_model_name",
    "tokenizer_path",
    "tp_size",
    "dp_size",
    "load_balance_method",
    "disaggregation_mode",
    "model_type",
    "architectures",
    "weight_version",
];

/// The fact of [`Metadata::labels`] that has this name.
pub fn label_name(name: &str) -> Option<&'static str> {
    SHOWN.into_iter().find(|shown| *shown == name)
}

/// Facts that are shown as they are. Numbers and lists are shown as their JSON text.
fn labels(sources: &[&Map<String, Value>]) -> Vec<(&'static str, String)> {
    let shown =
        |key: &'static str| sources.iter().find_map(|info| label(info.get(key)?)).map(|value| (key, value));
    SHOWN.into_iter().filter_map(shown).collect()
}

fn label(value: &Value) -> Option<String> {
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) | Value::Array(_) => value.to_string(),
        Value::Null | Value::Object(_) => return None,
    };
    is_name(&shown).then_some(shown)
}

fn dialect(models: &[Model], has_server_info: bool, has_version: bool) -> Dialect {
    let owner = models.iter().find_map(|model| model.owned_by.as_deref());
    match owner {
        Some("sglang") => Dialect::Sglang,
        Some("vllm") => Dialect::Vllm,
        Some("llamacpp") => Dialect::LlamaCpp,
        _ if has_server_info => Dialect::Sglang,
        _ if has_version => Dialect::Vllm,
        _ => Dialect::OpenAi,
    }
}

fn models(body: &[u8]) -> Vec<Model> {
    let listed = object(body);
    let Some(listed) = listed.as_ref().and_then(|list| list.get("data")?.as_array()) else {
        return Vec::new();
    };
    listed.iter().filter_map(model).take(MODELS_PER_WORKER_MAX).collect()
}

fn model(entry: &Value) -> Option<Model> {
    let entry = entry.as_object()?;
    // llama.cpp tells its context length apart from the other facts.
    let meta = || entry.get("meta")?.as_object();
    let meta_len = |key| meta()?.get(key)?.as_u64();
    Some(Model {
        id: text(entry, "id")?,
        owned_by: text(entry, "owned_by"),
        root: text(entry, "root"),
        parent: text(entry, "parent"),
        max_model_len: entry
            .get("max_model_len")
            .and_then(Value::as_u64)
            .or_else(|| meta_len("n_ctx"))
            .or_else(|| meta_len("n_ctx_train")),
    })
}

fn object(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

fn first(sources: &[&Map<String, Value>], key: &str) -> Option<String> {
    sources.iter().find_map(|info| text(info, key))
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key)?.as_str().filter(|text| is_name(text)).map(str::to_owned)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
