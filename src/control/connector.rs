//! How a prefill worker's labels say that its engine hands over what it has computed.

use fleet::snapshot::Handoff;

use crate::control::worker::WorkerSpec;

/// The label that says how a prefill worker's engine hands over what it has computed.
const CONNECTOR_LABEL: &str = "kv_connector";

/// What that label may say. Without it, workers that run vLLM have `nixl` and others `bootstrap`.
const CONNECTORS: &str = "bootstrap, nixl, mooncake, shared";

/// The label that names the engine of a worker whose connector is `mooncake`.
const ENGINE_ID_LABEL: &str = "kv_engine_id";

impl WorkerSpec {
    /// How its labels say that it hands over, if they do.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn handoff(&self) -> Result<Option<Handoff>, String> {
        Ok(match self.labels.get(CONNECTOR_LABEL).map(String::as_str) {
            None => None,
            Some("bootstrap") => Some(Handoff::Bootstrap),
            Some("nixl") => Some(Handoff::Nixl),
            Some("shared") => Some(Handoff::Shared),
            Some("mooncake") => match self.labels.get(ENGINE_ID_LABEL) {
                Some(engine_id) => Some(Handoff::Mooncake { engine_id: engine_id.as_str().into() }),
                None => return Err(format!("name the connector \"mooncake\" and no {ENGINE_ID_LABEL}")),
            },
            Some(other) => return Err(format!("name the unknown connector {other:?}: use {CONNECTORS}")),
        })
    }

    /// Says by which connector it hands over.
    pub(crate) fn set_connector(&mut self, connector: &str) {
        self.labels.insert(CONNECTOR_LABEL.to_owned(), connector.to_owned());
    }
}
