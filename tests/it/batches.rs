//! Files and batches: what is uploaded is kept, and every request of a batch is answered once, whatever happens to the
//! process meanwhile.

mod access;
mod input;
mod restart;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use testkit::client::Request;
use testkit::client::Response;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::place;
use testkit::wait;
use testkit::worker::Exchange;
use testkit::worker::Worker;
use testkit::worker::json_answer;

use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::on_every_setup;

on_every_setup! {
    files_come_and_go
    a_batch_is_answered_line_by_line
}

const COMPLETIONS: &str = "/v1/completions";

/// Where a gateway keeps its files. It is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(place::temporary("files"))
    }

    fn given_to(&self, launch: Launch) -> Launch {
        launch.switch("--enable-batch-api").flag("--file-storage-path", self.0.display())
    }

    fn launch(&self, setup: Setup, worker: &Worker) -> Launch {
        self.given_to(setup.launch()).worker(worker.url())
    }

    /// Whether any file below it holds `text`.
    fn holds(&self, text: &str) -> bool {
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a directory").flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if let Ok(content) = std::fs::read(entry.path())
                    && content.windows(text.len()).any(|window| window == text.as_bytes())
                {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Who calls, by the headers that show it.
#[derive(Clone, Copy, Default)]
struct Caller {
    authorization: Option<&'static str>,
}

const ANYBODY: Caller = Caller { authorization: None };

impl Caller {
    #[track_caller]
    fn ask(self, gateway: &Gateway, request: Request) -> Response {
        let request = match self.authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        gateway.ask(&request)
    }

    fn upload(self, gateway: &Gateway, purpose: &str, content: &[u8]) -> Response {
        let head = format!(
            "--bound\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--bound\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\
             Content-Type: application/jsonl\r\n\r\n"
        );
        let body = [head.as_bytes(), content, b"\r\n--bound--\r\n"].concat();
        let request = Request::new("POST", "/v1/files")
            .header("content-type", "multipart/form-data; boundary=bound")
            .body(body);
        self.ask(gateway, request)
    }

    /// Uploads an input, and makes a batch of it.
    #[track_caller]
    fn begin(self, gateway: &Gateway, input: &str, window: &str) -> String {
        let file = self.upload(gateway, "batch", input.as_bytes());
        assert_eq!(file.status, 200, "{file:?}");
        let batch = self.create(gateway, &text(&file.json()["id"]), window);
        assert_eq!(batch.status, 200, "{batch:?}");
        text(&batch.json()["id"])
    }

    fn create(self, gateway: &Gateway, file: &str, window: &str) -> Response {
        let wish = serde_json::json!({
            "input_file_id": file,
            "endpoint": COMPLETIONS,
            "completion_window": window,
            "metadata": { "name": "test" },
        });
        self.ask(gateway, Request::json("/v1/batches", wish.to_string()))
    }

    #[track_caller]
    fn batch(self, gateway: &Gateway, id: &str) -> Value {
        let batch = self.ask(gateway, Request::get(&format!("/v1/batches/{id}")));
        assert_eq!(batch.status, 200, "{batch:?}");
        batch.json()
    }

    fn content(self, gateway: &Gateway, file: &Value) -> Response {
        self.ask(gateway, Request::get(&format!("/v1/files/{}/content", text(file))))
    }

    /// The lines of a file that a batch wrote.
    #[track_caller]
    fn lines(self, gateway: &Gateway, file: &Value) -> Vec<Value> {
        let content = self.content(gateway, file);
        assert_eq!(content.status, 200, "{content:?}");
        let text = content.text();
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// Waits until a batch has this status, while `answer` does the worker's part.
    #[track_caller]
    fn wait_for(
        self,
        gateway: &Gateway,
        id: &str,
        status: &str,
        worker: &Worker,
        answer: impl Fn(Exchange),
    ) -> Value {
        let mut seen = Value::Null;
        let is_there = wait::holds_within(wait::DEADLINE, || {
            while let Some(exchange) = worker.exchange_now() {
                answer(exchange);
            }
            seen = self.batch(gateway, id);
            seen["status"] == status
        });
        let told: Vec<_> = gateway.stdout().into_iter().filter(|line| !line.contains(" access: ")).collect();
        assert!(is_there, "{seen}; {told:?}");
        seen
    }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A line of an input.
fn line(at: usize) -> String {
    format!(
        r#"{{"custom_id":"id-{at}","method":"POST","url":"{COMPLETIONS}","body":{{"model":"mock", "prompt":"n{at}" }}}}"#
    )
}

fn input(lines: usize) -> String {
    (0..lines).map(|at| line(at) + "\n").collect()
}

/// The number of the line that a worker was sent, whose body must be as it was written.
#[track_caller]
fn number(body: &[u8]) -> usize {
    let body = std::str::from_utf8(body).expect("text");
    let number =
        body.strip_prefix(r#"{"model":"mock", "prompt":"n"#).and_then(|rest| rest.strip_suffix(r#"" }"#));
    number.and_then(|number| number.parse().ok()).expect("the body is byte for byte what was in the input")
}

/// Answers with what was asked.
fn echo(exchange: Exchange) {
    let number = number(&exchange.request.body);
    exchange.answer(&format!("{{\n  \"echo\": {number}\n}}"));
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    let ids: BTreeSet<String> = lines.iter().map(|line| text(&line["custom_id"])).collect();
    assert_eq!(ids.len(), lines.len(), "each is told once");
    ids
}

/// That these lines are the echoes of so many requests, each once.
#[track_caller]
fn assert_echoes(lines: &[Value], count: usize) {
    assert_eq!(ids(lines), (0..count).map(|at| format!("id-{at}")).collect());
    for line in lines {
        let number = line["response"]["body"]["echo"].as_u64().expect("an echo");
        assert_eq!(line["custom_id"], format!("id-{number}"), "{line}");
    }
}

fn files_come_and_go(setup: Setup) {
    let worker = Worker::answering();
    let folder = Folder::new();
    let gateway = folder.launch(setup, &worker).start();
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut files = Vec::new();
    for (purpose, content) in [("batch", &b"one\n"[..]), ("user_data", &large), ("batch", b"")] {
        let file = ANYBODY.upload(&gateway, purpose, content);
        assert_eq!(file.status, 200, "{file:?}");
        let file = file.json();
        assert_eq!((&file["object"], &file["purpose"]), (&"file".into(), &purpose.into()));
        assert_eq!((&file["bytes"], &file["filename"]), (&content.len().into(), &"in.jsonl".into()));
        let path = format!("/v1/files/{}", text(&file["id"]));
        assert_eq!(gateway.get(&path).json(), file);
        assert!(ANYBODY.content(&gateway, &file["id"]).body == content, "its content comes back as it was");
        files.push(file);
    }
    // Newest first.
    files.reverse();
    let list = gateway.get("/v1/files").json();
    assert_eq!((&list["data"], &list["has_more"]), (&Value::from(files.clone()), &false.into()));
    let page = gateway.get("/v1/files?limit=1&purpose=batch").json();
    assert_eq!((&page["data"][0], &page["has_more"]), (&files[0], &true.into()));
    let page = gateway.get(&format!("/v1/files?limit=5&after={}", text(&files[0]["id"]))).json();
    assert_eq!(page["data"], Value::from(files[1..].to_vec()));
    for file in &files {
        let id = text(&file["id"]);
        let path = format!("/v1/files/{id}");
        let deleted = gateway.ask(&Request::new("DELETE", &path));
        assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &true.into()));
        for request in
            [Request::get(&path), Request::new("DELETE", &path), Request::get(&format!("{path}/content"))]
        {
            let gone = gateway.ask(&request);
            assert_eq!((gone.status, gone.error_code().as_deref()), (404, Some("file_not_found")));
            assert!(gone.text().contains(&format!("File {id} not found")));
        }
    }
    assert_eq!(gateway.get("/v1/files").json()["data"], Value::Array(Vec::new()));
}

fn a_batch_is_answered_line_by_line(setup: Setup) {
    const COUNT: usize = 60;
    let worker = Worker::manual();
    let folder = Folder::new();
    let gateway = folder.launch(setup, &worker).start();
    let id = ANYBODY.begin(&gateway, &input(COUNT), "24h");
    // Every fifth is refused, and one answer is no JSON.
    let done = ANYBODY.wait_for(&gateway, &id, "completed", &worker, |mut exchange| {
        match number(&exchange.request.body) {
            at if at % 5 == 1 => {
                let refusal = String::from_utf8(json_answer(r#"{"error":"no"}"#)).expect("text");
                exchange.send(refusal.replace("200 OK", "400 Bad Request").as_bytes());
                exchange.keep();
            }
            7 => exchange.answer("no JSON"),
            _ => echo(exchange),
        }
    });
    let counts = serde_json::json!({ "total": COUNT, "completed": COUNT - 12, "failed": 12 });
    assert_eq!(done["request_counts"], counts);
    for moment in ["created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"] {
        assert!(done[moment].is_u64(), "{moment}: {done}");
    }
    assert_eq!((&done["errors"], &done["metadata"]["name"]), (&Value::Null, &"test".into()));
    let output = ANYBODY.lines(&gateway, &done["output_file_id"]);
    let errors = ANYBODY.lines(&gateway, &done["error_file_id"]);
    assert_eq!(ids(&errors), (0..COUNT).filter(|at| at % 5 == 1).map(|at| format!("id-{at}")).collect());
    assert_eq!(ids(&output), (0..COUNT).filter(|at| at % 5 != 1).map(|at| format!("id-{at}")).collect());
    for line in &errors {
        assert_eq!(
            (&line["response"]["status_code"], &line["response"]["body"]["error"]),
            (&400.into(), &"no".into())
        );
    }
    for line in &output {
        let at = text(&line["custom_id"]).trim_start_matches("id-").parse::<usize>().expect("a number");
        let body = if at == 7 { "no JSON".into() } else { serde_json::json!({ "echo": at }) };
        assert_eq!((&line["response"]["body"], &line["error"]), (&body, &Value::Null));
        assert!(text(&line["id"]).starts_with("batch_req_") && line["response"]["request_id"].is_string());
    }
    assert_eq!(worker.received().len(), COUNT, "each was asked once");
    let list = gateway.get("/v1/batches?limit=1").json();
    assert_eq!((&list["data"][0], &list["has_more"]), (&done, &false.into()));
    let file = gateway.get(&format!("/v1/files/{}", text(&done["output_file_id"]))).json();
    assert_eq!(file["purpose"], "batch_output");
    let forgotten = gateway.ask(&Request::new("DELETE", &format!("/v1/batches/{id}")));
    assert_eq!(forgotten.json()["deleted"], true, "it is over");
    assert_eq!(gateway.get(&format!("/v1/batches/{id}")).error_code().as_deref(), Some("batch_not_found"));
    gateway.wait_idle();
}

#[test]
fn a_batch_that_is_cancelled_ends_at_once_and_keeps_what_it_has() {
    for method in ["POST", "DELETE"] {
        let worker = Worker::manual();
        let folder = Folder::new();
        let gateway = folder.launch(PLAIN, &worker).start();
        let id = ANYBODY.begin(&gateway, &input(100), "24h");
        for _ in 0..10 {
            echo(worker.exchange());
        }
        let under_way = worker.exchange();
        let path =
            if method == "POST" { format!("/v1/batches/{id}/cancel") } else { format!("/v1/batches/{id}") };
        let cancelled = gateway.ask(&Request::new(method, &path));
        assert_eq!(
            (cancelled.status, &cancelled.json()["status"]),
            (200, &"cancelling".into()),
            "{cancelled:?}"
        );
        under_way.wait_closed();
        let done = ANYBODY.wait_for(&gateway, &id, "cancelled", &worker, |exchange| exchange.wait_closed());
        assert!(done["cancelling_at"].is_u64() && done["cancelled_at"].is_u64(), "{done}");
        let output = ids(&ANYBODY.lines(&gateway, &done["output_file_id"]));
        let errors = ANYBODY.lines(&gateway, &done["error_file_id"]);
        assert!(errors.iter().all(|line| line["error"]["code"] == "batch_cancelled"));
        assert!(!output.is_empty() && output.len() <= 10, "{output:?}");
        assert_eq!(output.union(&ids(&errors)).count(), 100);
        assert_eq!(done["request_counts"]["completed"], output.len());
        assert!(worker.received().len() < 60, "{}", worker.received().len());
        let again = gateway.ask(&Request::new("POST", &format!("/v1/batches/{id}/cancel")));
        assert_eq!((again.status, again.error_code().as_deref()), (409, Some("batch_is_over")));
    }
}

#[test]
fn a_batch_that_takes_too_long_expires() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let id = ANYBODY.begin(&gateway, &input(40), "2s");
    echo(worker.exchange());
    let done = ANYBODY.wait_for(&gateway, &id, "expired", &worker, std::mem::forget);
    assert!(done["expired_at"].as_u64() >= done["expires_at"].as_u64(), "{done}");
    assert_eq!(ANYBODY.lines(&gateway, &done["output_file_id"]).len(), 1);
    let errors = ANYBODY.lines(&gateway, &done["error_file_id"]);
    assert_eq!(errors.len(), 39);
    assert!(errors.iter().all(|line| line["error"]["code"] == "batch_expired" && line["response"].is_null()));
}

#[test]
fn what_the_gateway_has_no_room_for_is_asked_again() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let launch = folder.launch(PLAIN, &worker).flag("--max-concurrent-requests", 2).flag("--queue-size", 1);
    let gateway = launch.start();
    let id = ANYBODY.begin(&gateway, &input(30), "24h");
    let done = ANYBODY.wait_for(&gateway, &id, "completed", &worker, echo);
    assert_echoes(&ANYBODY.lines(&gateway, &done["output_file_id"]), 30);
    assert_eq!(done["error_file_id"], Value::Null);
}
