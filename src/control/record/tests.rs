//! Whatever may be registered can be handed over.

use engine::metadata::MODELS_PER_WORKER_MAX;
use engine::metadata::NAME_BYTES_MAX;

use super::*;
use crate::control::event::Event;
use crate::control::limits::DECLARED_BYTES_MAX;
use crate::control::limits::KEY_BYTES_MAX;
use crate::control::limits::LABELS_BYTES_MAX;
use crate::control::rig::Rig;
use crate::control::rig::config;
use crate::control::rig::text;
use crate::handover::FRAME_BYTES_MAX;

const A: &str = "http://10.0.0.1:8000";

#[test]
fn what_is_said_of_a_worker_fits_into_a_frame_of_the_handover() {
    let mut rig = Rig::new(config(&[]));
    let labels = |bytes: usize| format!(r#"{{"url":"{A}","labels":{{"a":"{}"}}}}"#, "x".repeat(bytes - 1));
    let declared = |bytes: usize| {
        let (half, rest) = ("x".repeat(bytes / 2), "x".repeat(bytes - bytes / 2));
        format!(r#"{{"url":"{A}","tokenizer_path":"{half}","chat_template":"{rest}"}}"#)
    };
    for (body, param) in
        [(labels(LABELS_BYTES_MAX + 1), "labels"), (declared(DECLARED_BYTES_MAX + 1), "chat_template")]
    {
        let refused = rig.call("POST", "/workers", &body);
        assert_eq!(refused.status, 400);
        let error: serde_json::Value = serde_json::from_slice(&refused.body).expect("JSON");
        assert_eq!(error["error"]["param"], param, "{error}");
        assert!(text(&refused).len() < 1000, "{}", text(&refused));
    }
    // Everything as long as it may be, and of characters that take six bytes where they are escaped.
    let long = |bytes: usize| "\u{1}".repeat(bytes);
    let spec = serde_json::json!({
        "url": format!("http://{}.example:1", "u".repeat(63)),
        "api_key": "\\".repeat(KEY_BYTES_MAX),
        "model_id": long(NAME_BYTES_MAX),
        "labels": {"a": long(LABELS_BYTES_MAX - 1)},
        "tokenizer_path": long(DECLARED_BYTES_MAX),
    });
    assert_eq!(rig.call("POST", "/workers", &spec.to_string()).status, 202);
    let name = || Some("\"".repeat(NAME_BYTES_MAX));
    let model = |at: usize| {
        let id = format!("{at:03}{}", "\"".repeat(NAME_BYTES_MAX - 3));
        Model { id, owned_by: name(), root: name(), parent: name(), max_model_len: Some(u64::MAX) }
    };
    let metadata = Metadata {
        version: name(),
        models: (0..MODELS_PER_WORKER_MAX).map(model).collect(),
        model_path: name(),
        served_model_name: name(),
        tokenizer_path: name(),
        labels: vec![("model_path", "\"".repeat(NAME_BYTES_MAX)); 16],
        ..Metadata::default()
    };
    let worker = rig.state.registry.registered().next().expect("it is registered").id;
    rig.turn([Event::Described { worker, metadata: Box::new(metadata) }]);
    let (to, export) = crossbeam_channel::bounded(1);
    rig.turn([Event::Export(to)]);
    let export = export.try_recv().expect("an order of this turn");
    let record = serde_json::to_vec(&export.workers[0]).expect("JSON");
    assert!(record.len() <= FRAME_BYTES_MAX, "{} bytes", record.len());
    assert!(record.len() > FRAME_BYTES_MAX / 2, "{} bytes", record.len());
}
