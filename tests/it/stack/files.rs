//! Files and batches of this front end, and the key that engines are shown by the router itself.

use serde_json::Value;
use serde_json::json;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use super::chat;
use super::launch;
use super::wait_idle;

const FORM: &str = "multipart/form-data; boundary=b";

fn upload(gateway: &Gateway, field: &str, content: &str) -> Value {
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"in.jsonl\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    gateway.ask(&Request::new("POST", "/v1/files").header("content-type", FORM).body(body)).json()
}

#[test]
fn a_batch_is_really_made() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let folder = place::temporary("files");
    let gateway = launch(&[(&a, "m"), (&b, "m")], "roundrobin")
        .flag("--static-aliases", "gpt:m")
        .switch("--enable-batch-api")
        .flag("--file-storage-class", "local_file")
        .flag("--file-storage-path", folder.display())
        .flag("--batch-processor", "local")
        .start_listening();
    let line = |at: usize| {
        json!({ "custom_id": at.to_string(), "method": "POST", "url": "/v1/completions",
                "body": { "model": "gpt", "prompt": "hi" } })
    };
    let input: String = (0..6).map(|at| format!("{}\n", line(at))).collect();
    let file = upload(&gateway, "file", &input);
    assert_eq!((&file["purpose"], &file["bytes"]), (&json!("unknown"), &json!(input.len())));
    let id = file["id"].as_str().expect("an id");
    assert!(id.starts_with("file-"), "{id}");
    assert_eq!(gateway.get(&format!("/v1/files/{id}/content")).text(), input);

    let wish = json!({ "input_file_id": id, "endpoint": "/v1/completions", "completion_window": "5m" });
    let batch = gateway.ask(&Request::json("/v1/batches", wish.to_string())).json();
    let of = |id: &Value| format!("/v1/batches/{}", id.as_str().expect("an id"));
    let path = of(&batch["id"]);
    wait::until("it is done", || gateway.get(&path).json()["status"] == "completed");
    let done = gateway.get(&path).json();
    assert_eq!(done["request_counts"], json!({ "total": 6, "completed": 6, "failed": 0 }));
    let output = done["output_file_id"].as_str().expect("an output");
    let output = gateway.get(&format!("/v1/files/{output}/content")).text();
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 6);
    for line in &lines {
        let answered = line["response"]["body"]["worker"].as_str().expect("an engine");
        assert!([a.url(), b.url()].contains(&answered.to_owned()), "{line}");
    }
    let asked: Vec<_> = a.received().into_iter().chain(b.received()).collect();
    assert_eq!(asked.len(), 6);
    for request in asked {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body["model"], "m", "another name is the model's, as in any request");
    }
    let listed = gateway.get("/v1/batches").json();
    assert_eq!((&listed["first_id"], &listed["has_more"]), (&batch["id"], &json!(false)));
    let deleted = gateway.ask(&Request::new("DELETE", &path));
    assert_eq!((deleted.status, gateway.get(&path).status), (200, 404));
    wait_idle(&gateway);
    drop(gateway);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn their_errors_have_the_words_of_the_original() {
    let (worker, folder) = (Worker::answering(), place::temporary("files"));
    let gateway = launch(&[(&worker, "m")], "roundrobin")
        .switch("--enable-batch-api")
        .flag("--file-storage-path", folder.display())
        .start_listening();
    let missing = gateway.get("/v1/files/file-000000");
    assert_eq!((missing.status, missing.json()), (404, json!({ "error": "File file-000000 not found" })));
    assert_eq!(upload(&gateway, "other", ""), json!({ "error": "Missing required parameter 'file'" }));
    let wish = json!({ "input_file_id": "file-000000" });
    let refused = gateway.ask(&Request::json("/v1/batches", wish.to_string()));
    let told = json!({ "error": "Missing required parameter 'endpoint'" });
    assert_eq!((refused.status, refused.json()), (400, told));
    assert_eq!(gateway.get("/v1/batches/batch_000000").status, 404, "not 500");
    drop(gateway);
    let _ = std::fs::remove_dir_all(folder);
    let without = launch(&[(&worker, "m")], "roundrobin").start_listening().get("/v1/files");
    assert_eq!((without.status, without.json()), (404, json!({ "detail": "Not Found" })));
}

#[test]
fn engines_are_shown_the_routers_key_by_its_checks_and_the_clients_by_requests() {
    let worker = Worker::answering();
    let gateway = launch(&[(&worker, "m")], "roundrobin")
        .env("VLLM_API_KEY", "sk-checks")
        .switch("--static-backend-health-checks")
        .flag("--static-model-types", "completion")
        .start_listening();
    wait::until("it is asked", || !worker.received().is_empty());
    let shown = |line: &str| {
        let received = worker.received().into_iter().rfind(|received| received.line == line);
        received.expect("it was asked").headers.get("authorization").map(str::to_owned)
    };
    assert_eq!(shown("POST /v1/completions").as_deref(), Some("Bearer sk-checks"));
    let line = "POST /v1/chat/completions";
    assert_eq!(gateway.ask(&chat("m").header("authorization", "Bearer sk-mine")).status, 200);
    assert_eq!(shown(line).as_deref(), Some("Bearer sk-mine"));
    assert_eq!(gateway.ask(&chat("m")).status, 200);
    assert_eq!(shown(line), None);
    let ended = launch(&[(&worker, "m")], "roundrobin").env("VLLM_API_KEY", "two words").run_to_end();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr[0].contains("VLLM_API_KEY must be printable"), "{ended:?}");
}
