//! Answers of real engines, shortened, and what is read from them.

use super::*;

const SGLANG_MODELS: &str = r#"{"object":"list","data":[{"id":"qwen","object":"model","created":1,"owned_by":"sglang","root":"qwen","parent":null,"max_model_len":32768}]}"#;
const SGLANG_SERVER_INFO: &str = r#"{"model_path":"Qwen/Qwen2.5-7B-Instruct","tokenizer_path":"Qwen/Qwen2.5-7B-Instruct","served_model_name":"qwen","tp_size":2,"dp_size":1,"load_balance_method":"round_robin","disaggregation_mode":"null","version":"0.5.6","internal_states":[{}]}"#;
const SGLANG_MODEL_INFO: &str = r#"{"model_path":"Qwen/Qwen2.5-7B-Instruct","tokenizer_path":"Qwen/Qwen2.5-7B-Instruct","is_generation":true,"model_type":"qwen2","architectures":["Qwen2ForCausalLM"]}"#;

#[test]
fn sglang_tells_everything() {
    let metadata = Metadata::read(&Answers {
        models: Some(SGLANG_MODELS.as_bytes()),
        server_info: Some(SGLANG_SERVER_INFO.as_bytes()),
        model_info: Some(SGLANG_MODEL_INFO.as_bytes()),
        version: None,
    });
    assert_eq!(metadata.dialect, Dialect::Sglang);
    assert_eq!(metadata.version.as_deref(), Some("0.5.6"));
    assert_eq!(metadata.model_names(), ["qwen"]);
    assert_eq!(metadata.models[0].max_model_len, Some(32768));
    assert_eq!(metadata.is_generation, Some(true));
    assert!(metadata.labels.contains(&("tp_size", "2".to_owned())));
    assert!(metadata.labels.contains(&("architectures", r#"["Qwen2ForCausalLM"]"#.to_owned())));
}

#[test]
fn vllm_lists_its_adapters() {
    let models = br#"{"object":"list","data":[
        {"id":"llama","object":"model","created":1,"owned_by":"vllm","root":"/models/llama","parent":null,"max_model_len":8192,"permission":[]},
        {"id":"sql","object":"model","created":1,"owned_by":"vllm","root":"/loras/sql","parent":"llama","max_model_len":null}]}"#;
    let version = br#"{"version":"0.11.0"}"#;
    let metadata =
        Metadata::read(&Answers { models: Some(models), version: Some(version), ..Answers::default() });
    assert_eq!(metadata.dialect, Dialect::Vllm);
    assert_eq!(metadata.version.as_deref(), Some("0.11.0"));
    assert_eq!(metadata.model_names(), ["llama", "sql"]);
    assert_eq!(metadata.models[1].parent.as_deref(), Some("llama"));
}

#[test]
fn llama_cpp_hides_its_context_length() {
    let models = br#"{"models":[{"name":"m.gguf"}],"object":"list","data":[{"id":"m.gguf","object":"model","created":1,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_ctx_train":131072}}]}"#;
    let metadata = Metadata::read(&Answers { models: Some(models), ..Answers::default() });
    assert_eq!(metadata.dialect, Dialect::LlamaCpp);
    assert_eq!(metadata.models[0].max_model_len, Some(131_072));
}

#[test]
fn wrong_shapes_are_less_knowledge() {
    let metadata = Metadata::read(&Answers {
        models: Some(
            br#"{"data":[{"id":7},{"id":""},{"id":"a\u0000b"},{"id":"ok","max_model_len":"long"}]}"#,
        ),
        server_info: Some(b"[1]"),
        model_info: Some(br#"{"model_path":{"x":1},"is_generation":"yes","model_type":"t"}"#),
        version: Some(b"not json"),
    });
    assert_eq!(metadata.model_names(), ["ok"]);
    assert_eq!((metadata.models[0].max_model_len, metadata.is_generation), (None, None));
    assert_eq!(metadata.labels, [("model_type", "t".to_owned())]);
    assert_eq!(metadata.dialect, Dialect::OpenAi);
}

#[test]
fn silence_is_an_unknown_worker() {
    let metadata = Metadata::read(&Answers::default());
    assert_eq!(metadata, Metadata::default());
    assert!(metadata.model_names().is_empty());
}

#[test]
fn a_path_names_the_model_when_nothing_else_does() {
    let metadata =
        Metadata::read(&Answers { model_info: Some(SGLANG_MODEL_INFO.as_bytes()), ..Answers::default() });
    assert_eq!(metadata.model_names(), ["Qwen/Qwen2.5-7B-Instruct"]);
}
