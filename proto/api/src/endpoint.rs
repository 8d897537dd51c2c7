//! The endpoint table: every path the gateway answers, who answers it, and by which methods.

/// How a relayed request's prompt is found in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptShape {
    /// Chat messages, with tools and system prompt.
    Messages,
    /// `prompt`: text, texts, token ids or lists of these.
    Prompt,
    /// `text` or `input_ids`, as SGLang's native endpoint takes them.
    Generate,
    /// `input`: text, texts, token ids, or Responses items, with `instructions`.
    Input,
    /// `query` and `documents`, or `text_1` and `text_2`.
    Pairs,
    /// No prompt that a prefix cache would know: multipart and media bodies, which are not looked into unless
    /// they are JSON, and then for `model` alone.
    Opaque,
    /// No body at all.
    None,
}

/// Who answers an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A worker, chosen by policy.
    Relay(PromptShape),
    /// The shard itself, from the snapshot.
    Page,
    /// The control thread.
    Admin,
    /// The service of files and batches, where it is on.
    Service,
}

/// Whose matter an endpoint is, and so whose credentials open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody's: probes and what the gateway serves.
    Public,
    /// Whoever may use the workers.
    Inference,
    /// Whoever may look into the fleet and change it.
    Control,
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident $template:literal $methods:literal $handler:expr, $id_prefix:literal;)*) => {
        /// An endpoint of the gateway. Its number indexes the tables of per-endpoint counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Endpoint { $($(#[$doc])* $name,)* }

        impl Endpoint {
            /// Every endpoint, in table order.
            pub const ALL: &[Endpoint] = &[$(Endpoint::$name,)*];

            /// The path as shown in metrics and logs: ids replaced by placeholders, so that labels stay few.
            pub fn template(self) -> &'static str {
                match self { $(Endpoint::$name => $template,)* }
            }

            /// Methods that are answered, as an `Allow` header says them.
            pub fn methods(self) -> &'static str {
                match self { $(Endpoint::$name => $methods,)* }
            }

            /// Who answers.
            pub fn handler(self) -> Handler {
                match self { $(Endpoint::$name => $handler,)* }
            }

            /// What made-up request ids begin with.
            pub fn id_prefix(self) -> &'static str {
                match self { $(Endpoint::$name => $id_prefix,)* }
            }
        }
    };
}

endpoints! {
    /// OpenAI chat.
    ChatCompletions "/v1/chat/completions" "POST" Handler::Relay(PromptShape::Messages), "chatcmpl-";
    /// OpenAI text completion.
    Completions "/v1/completions" "POST" Handler::Relay(PromptShape::Prompt), "cmpl-";
    /// SGLang's native generation.
    Generate "/generate" "POST" Handler::Relay(PromptShape::Generate), "gnt-";
    /// OpenAI embeddings.
    Embeddings "/v1/embeddings" "POST" Handler::Relay(PromptShape::Input), "req-";
    /// Rerank under its OpenAI-like path.
    V1Rerank "/v1/rerank" "POST" Handler::Relay(PromptShape::Pairs), "req-";
    /// Rerank under its plain path.
    Rerank "/rerank" "POST" Handler::Relay(PromptShape::Pairs), "req-";
    /// Cross-encoder scores.
    Score "/v1/score" "POST" Handler::Relay(PromptShape::Pairs), "req-";
    /// Classification.
    Classify "/v1/classify" "POST" Handler::Relay(PromptShape::Input), "req-";
    /// Tokenise on a worker.
    Tokenize "/tokenize" "POST" Handler::Relay(PromptShape::Prompt), "req-";
    /// Detokenise on a worker.
    Detokenize "/detokenize" "POST" Handler::Relay(PromptShape::Opaque), "req-";
    /// OpenAI Responses, answered by the worker.
    Responses "/v1/responses" "POST" Handler::Relay(PromptShape::Input), "resp-";
    /// Anthropic messages, answered by the worker.
    Messages "/v1/messages" "POST" Handler::Relay(PromptShape::Messages), "req-";
    /// Speech and transcription.
    Audio "/v1/audio/*" "POST" Handler::Relay(PromptShape::Opaque), "req-";
    /// Image generation and editing.
    Images "/v1/images/*" "POST" Handler::Relay(PromptShape::Opaque), "req-";
    /// Files for batches, and what batches wrote.
    Files "/v1/files" "GET, POST" Handler::Service, "req-";
    /// One file.
    File "/v1/files/{id}" "GET, DELETE" Handler::Service, "req-";
    /// What is in it.
    FileContent "/v1/files/{id}/content" "GET" Handler::Service, "req-";
    /// Batches of requests.
    Batches "/v1/batches" "GET, POST" Handler::Service, "req-";
    /// One batch.
    Batch "/v1/batches/{id}" "GET, DELETE" Handler::Service, "req-";
    /// Ends a batch early.
    BatchCancel "/v1/batches/{id}/cancel" "POST" Handler::Service, "req-";
    /// The process lives.
    Liveness "/liveness" "GET, HEAD" Handler::Page, "req-";
    /// The process lives, under its usual name.
    Health "/health" "GET, HEAD" Handler::Page, "req-";
    /// A worker can be reached.
    Readiness "/readiness" "GET, HEAD" Handler::Page, "req-";
    /// A worker could generate.
    HealthGenerate "/health_generate" "GET, HEAD" Handler::Page, "req-";
    /// Models served.
    Models "/v1/models" "GET, HEAD" Handler::Page, "req-";
    /// What the model is.
    GetModelInfo "/get_model_info" "GET" Handler::Admin, "req-";
    /// What the gateway and its workers are.
    GetServerInfo "/get_server_info" "GET" Handler::Admin, "req-";
    /// The fleet.
    Workers "/workers" "GET, POST" Handler::Admin, "req-";
    /// One worker, by UUID or URL-encoded URL.
    Worker "/workers/{id}" "GET, PUT, DELETE" Handler::Admin, "req-";
    /// Adds a worker and waits for its health.
    AddWorker "/add_worker" "POST" Handler::Admin, "req-";
    /// Removes a worker.
    RemoveWorker "/remove_worker" "POST" Handler::Admin, "req-";
    /// URLs of the fleet.
    ListWorkers "/list_workers" "GET" Handler::Admin, "req-";
    /// Empties every worker's prefix cache.
    FlushCache "/flush_cache" "POST" Handler::Admin, "req-";
    /// Token load of every worker.
    GetLoads "/get_loads" "GET" Handler::Admin, "req-";
    /// What engines said last about what they are busy with.
    Loads "/loads" "GET" Handler::Admin, "req-";
    /// What was decided lately, and why.
    DebugDecisions "/debug/decisions" "GET" Handler::Admin, "req-";
    /// Speech to text, for clients of vLLM's production-stack, who get errors of their own.
    Transcriptions "/v1/audio/transcriptions" "POST" Handler::Relay(PromptShape::Opaque), "";
    /// Voices of a worker.
    AudioVoices "/v1/audio/voices" "GET" Handler::Relay(PromptShape::Opaque), "";
    /// Engines and the models they serve.
    Engines "/engines" "GET" Handler::Admin, "";
    /// Has an engine sleep.
    Sleep "/sleep" "POST" Handler::Admin, "";
    /// Wakes an engine up.
    WakeUp "/wake_up" "POST" Handler::Admin, "";
    /// Whether an engine sleeps.
    IsSleeping "/is_sleeping" "GET" Handler::Admin, "";
    /// The metrics page, where it has no listener of its own.
    Metrics "/metrics" "GET" Handler::Admin, "";
    /// The gateway's version.
    Version "/version" "GET, HEAD" Handler::Page, "";
    /// Any path that is not in this table.
    Unknown "unknown" "" Handler::Page, "req-";
}

/// Methods as counters tell them apart; whatever else a client sends counts as the last.
pub const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "OTHER"];

/// Position of a method in [`METHODS`].
pub fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

impl Endpoint {
    /// Number of endpoints, [`Endpoint::Unknown`] included.
    pub const COUNT: usize = Self::ALL.len();

    /// Short name of a relayed endpoint in router metrics, as the SGLang gateway labels it.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat",
            Self::V1Rerank => "rerank",
            _ => self.template().trim_start_matches("/v1/").trim_matches(['/', '*']),
        }
    }

    /// Whose matter it is. What SGLang's gateway tells anybody about its models is public here too.
    pub fn access(self) -> Access {
        match (self, self.handler()) {
            (Self::GetModelInfo | Self::GetServerInfo, _) | (_, Handler::Page) => Access::Public,
            (_, Handler::Relay(_) | Handler::Service) => Access::Inference,
            (_, Handler::Admin) => Access::Control,
        }
    }

    /// Position in the table.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The endpoint that answers `path` (without query) for clients of vLLM's production-stack router. The fleet is not
    /// theirs to change.
    pub fn resolve_stack(path: &str) -> Self {
        match path {
            "/v1/audio/transcriptions" => Self::Transcriptions,
            "/v1/audio/voices" => Self::AudioVoices,
            "/score" => Self::Score,
            "/engines" => Self::Engines,
            "/sleep" => Self::Sleep,
            "/wake_up" => Self::WakeUp,
            "/is_sleeping" => Self::IsSleeping,
            "/metrics" => Self::Metrics,
            "/version" => Self::Version,
            _ => match Self::resolve(path) {
                Self::Generate => Self::Unknown,
                endpoint if endpoint.handler() == Handler::Admin => Self::Unknown,
                endpoint => endpoint,
            },
        }
    }

    /// The endpoint that answers `path` (without query).
    pub fn resolve(path: &str) -> Self {
        match path {
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/completions" => Self::Completions,
            "/generate" => Self::Generate,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/rerank" => Self::V1Rerank,
            "/rerank" => Self::Rerank,
            "/v1/score" => Self::Score,
            "/v1/classify" => Self::Classify,
            "/tokenize" => Self::Tokenize,
            "/detokenize" => Self::Detokenize,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            "/v1/files" => Self::Files,
            "/v1/batches" => Self::Batches,
            "/liveness" => Self::Liveness,
            "/health" => Self::Health,
            "/readiness" => Self::Readiness,
            "/health_generate" => Self::HealthGenerate,
            "/v1/models" => Self::Models,
            "/get_model_info" => Self::GetModelInfo,
            "/get_server_info" => Self::GetServerInfo,
            "/workers" => Self::Workers,
            "/add_worker" => Self::AddWorker,
            "/remove_worker" => Self::RemoveWorker,
            "/list_workers" => Self::ListWorkers,
            "/flush_cache" => Self::FlushCache,
            "/debug/decisions" => Self::DebugDecisions,
            "/get_loads" => Self::GetLoads,
            "/loads" => Self::Loads,
            _ => Self::resolve_prefix(path),
        }
    }

    fn resolve_prefix(path: &str) -> Self {
        let rest_of = |prefix: &str| path.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if rest_of("/workers/").is_some() {
            Self::Worker
        } else if let Some(rest) = rest_of("/v1/files/") {
            match rest.split_once('/') {
                None => Self::File,
                Some((id, "content")) if !id.is_empty() => Self::FileContent,
                Some(_) => Self::Unknown,
            }
        } else if let Some(rest) = rest_of("/v1/batches/") {
            match rest.split_once('/') {
                None => Self::Batch,
                Some((id, "cancel")) if !id.is_empty() => Self::BatchCancel,
                Some(_) => Self::Unknown,
            }
        } else if rest_of("/v1/audio/").is_some_and(is_plain) {
            Self::Audio
        } else if rest_of("/v1/images/").is_some_and(is_plain) {
            Self::Images
        } else {
            Self::Unknown
        }
    }

    /// Whether `method` is answered here.
    pub fn allows(self, method: &str) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method)
    }
}

/// Whether the rest of a path leads down only. A worker that resolves dots could otherwise be asked for anything.
fn is_plain(rest: &str) -> bool {
    !rest.contains('%') && rest.split('/').all(|segment| !matches!(segment, "." | ".." | ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plain_template_resolves_to_its_endpoint() {
        for &endpoint in Endpoint::ALL {
            let path = endpoint.template().replace('*', "speech").replace("{id}", "http%3A%2F%2Fa%3A1");
            let resolved = [Endpoint::resolve(&path), Endpoint::resolve_stack(&path)];
            assert!(resolved.contains(&endpoint), "{path}");
        }
    }

    #[test]
    fn clients_of_the_stack_change_no_fleet() {
        for path in ["/workers", "/workers/x", "/add_worker", "/flush_cache", "/get_server_info", "/generate"]
        {
            assert_eq!(Endpoint::resolve_stack(path), Endpoint::Unknown, "{path}");
        }
        assert_eq!(Endpoint::resolve_stack("/v1/audio/speech"), Endpoint::Audio);
        assert_eq!(Endpoint::resolve_stack("/score"), Endpoint::Score);
        for path in ["/engines", "/sleep", "/metrics", "/version"] {
            assert_eq!(Endpoint::resolve(path), Endpoint::Unknown, "{path}");
        }
    }

    #[test]
    fn indices_follow_the_table() {
        for (at, endpoint) in Endpoint::ALL.iter().enumerate() {
            assert_eq!(endpoint.index(), at);
        }
    }

    #[test]
    fn near_misses_are_unknown() {
        for path in [
            "/v1/audio/../../flush_cache",
            "/v1/images/%2e%2e/x",
            "/v1/audio//x",
            "/",
            "",
            "/workers/",
            "/v1/chat/completions/",
            "/v1/audio/",
            "/V1/models",
            "/v1/images",
            "/v1/files/",
            "/v1/files/a/b",
            "/v1/files//content",
            "/v1/files/a/content/",
            "/v1/batches/a/cancel/now",
            "/v1/batches//cancel",
        ] {
            assert_eq!(Endpoint::resolve(path), Endpoint::Unknown, "{path}");
        }
    }

    #[test]
    fn methods_match_whole_words() {
        assert!(Endpoint::Worker.allows("DELETE"));
        assert!(!Endpoint::Worker.allows("POST"));
        assert!(!Endpoint::Workers.allows("GET, POST"));
        assert!(!Endpoint::Unknown.allows("GET"));
    }
}
