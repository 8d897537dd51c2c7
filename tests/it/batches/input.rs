//! Uploads, batches and starts that cannot work: each is refused in one clear line.

use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Launch;
use testkit::worker::Worker;

use super::ANYBODY;
use super::COMPLETIONS;
use super::Folder;
use super::line;
use super::text;
use crate::setup::PLAIN;

fn form(content_type: &str, body: &str) -> Request {
    Request::new("POST", "/v1/files").header("content-type", content_type).body(body)
}

#[test]
fn bad_uploads_are_refused() {
    const FORM: &str = "multipart/form-data; boundary=b";
    let worker = Worker::answering();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let file = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n{}\r\n";
    for (content_type, body, word) in [
        ("application/json", "{}", "multipart/form-data"),
        ("multipart/form-data", "--b--", "boundary"),
        (FORM, "", "boundary"),
        (FORM, "--b--\r\n", "'file'"),
        (FORM, file, "malformed"),
        (FORM, &format!("{file}{file}--b--"), "twice"),
        (
            FORM,
            &format!("{file}--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nfun\r\n--b--"),
            "purpose",
        ),
    ] {
        let answer = gateway.ask(&form(content_type, body));
        assert_eq!(
            (answer.status, answer.error_code().as_deref()),
            (400, Some("invalid_request")),
            "{answer:?}"
        );
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
    }
    // Without a purpose it is unknown, and good for a batch.
    let unknown = gateway.ask(&form(FORM, &format!("{file}--b--")));
    assert_eq!((unknown.status, &unknown.json()["purpose"]), (200, &"unknown".into()));
    assert_eq!(ANYBODY.create(&gateway, &text(&unknown.json()["id"]), "24h").status, 200);
    assert_eq!(
        gateway.get("/v1/files").json()["data"].as_array().map(Vec::len),
        Some(1),
        "nothing else was kept"
    );
    for (request, status) in [
        (Request::get("/v1/files?limit=0"), 400),
        (Request::get("/v1/files?order=up"), 400),
        (Request::get("/v1/files?after=file-1"), 404),
        (Request::get("/v1/files/..%2F..%2Fetc%2Fpasswd/content"), 404),
        (Request::get("/v1/files/file-1"), 404),
        (Request::new("PUT", "/v1/files"), 405),
        (Request::new("POST", "/v1/files/file-1"), 405),
    ] {
        assert_eq!(gateway.ask(&request).status, status, "{request:?}");
    }
}

#[test]
fn an_upload_beyond_the_limits_is_refused_before_it_is_read() {
    let worker = Worker::answering();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let mut client = gateway.client();
    client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 300000000\r\n\r\n");
    assert_eq!(client.response().status, 413);
    let gateway = Folder::new();
    let gateway = gateway.launch(PLAIN, &worker).flag("--max-payload-size", 1000).start();
    assert_eq!(ANYBODY.upload(&gateway, "batch", &[b'x'; 1000]).status, 413);
}

#[test]
fn bad_batches_are_refused() {
    let worker = Worker::answering();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let file = text(&ANYBODY.upload(&gateway, "batch", b"{}").json()["id"]);
    let other = text(&ANYBODY.upload(&gateway, "vision", b"{}").json()["id"]);
    let wish = |input: &str, endpoint: &str, window: &str| {
        serde_json::json!({ "input_file_id": input, "endpoint": endpoint, "completion_window": window })
            .to_string()
    };
    let unknown = "file-00000000000000000000000000000000";
    for (body, status, word) in [
        ("no JSON".to_owned(), 400, "JSON"),
        ("[]".to_owned(), 400, "JSON"),
        ("{}".to_owned(), 400, "input_file_id"),
        (format!("{{\"input_file_id\":\"{file}\"}}"), 400, "endpoint"),
        (wish(unknown, COMPLETIONS, "24h"), 404, unknown),
        (wish("../../etc/passwd", COMPLETIONS, "24h"), 404, "not found"),
        (wish(&file, "/workers", "24h"), 400, "/workers"),
        (wish(&file, COMPLETIONS, "1y"), 400, "1y"),
        (wish(&other, COMPLETIONS, "24h"), 400, "vision"),
    ] {
        let answer = gateway.ask(&Request::json("/v1/batches", body.clone()));
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.error_code().is_some() && answer.text().contains(word), "{word}: {}", answer.text());
    }
    for path in ["/v1/batches/batch_1", "/v1/batches?after=batch_1", "/v1/batches/x%2Fcancel"] {
        assert_eq!(gateway.get(path).status, 404, "{path}");
    }
    assert_eq!(gateway.get("/v1/batches?limit=101").status, 400);
    assert_eq!(gateway.get("/v1/batches").json()["data"], Value::Array(Vec::new()), "none was made");
}

#[test]
fn an_input_with_faults_fails_as_a_whole_and_names_them() {
    let worker = Worker::answering();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let input = format!("{}\n{}\nno JSON\n{}\n", line(1), line(1), line(2).replace("POST", "GET"));
    let id = ANYBODY.begin(&gateway, &input, "24h");
    let done = ANYBODY.wait_for(&gateway, &id, "failed", &worker, drop);
    let faults: Vec<_> = done["errors"]["data"].as_array().expect("a list").iter().collect();
    let told: Vec<_> = faults.iter().map(|fault| (fault["code"].as_str(), fault["line"].as_u64())).collect();
    let expected = [("duplicate_custom_id", 2), ("invalid_json_line", 3), ("invalid_method", 4)];
    assert_eq!(told, expected.map(|(code, line)| (Some(code), Some(line))));
    assert!(worker.received().is_empty(), "no request was made");
    let empty = ANYBODY.begin(&gateway, "\n", "24h");
    let done = ANYBODY.wait_for(&gateway, &empty, "failed", &worker, drop);
    assert_eq!(done["errors"]["data"][0]["code"], "empty_file");
}

#[test]
fn an_input_is_not_deleted_under_its_batch() {
    let worker = Worker::manual();
    let folder = Folder::new();
    let gateway = folder.launch(PLAIN, &worker).start();
    let id = ANYBODY.begin(&gateway, &line(0), "24h");
    let exchange = worker.exchange();
    let path = format!("/v1/files/{}", text(&ANYBODY.batch(&gateway, &id)["input_file_id"]));
    let kept = gateway.ask(&Request::new("DELETE", &path));
    assert_eq!((kept.status, kept.error_code().as_deref()), (409, Some("file_in_use")));
    assert!(kept.text().contains(&id), "{}", kept.text());
    super::echo(exchange);
    ANYBODY.wait_for(&gateway, &id, "completed", &worker, super::echo);
    assert_eq!(gateway.ask(&Request::new("DELETE", &path)).status, 200);
}

#[track_caller]
fn check_refused(launch: &Launch, words: &[&str]) {
    let ended = launch.run_to_end();
    assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
    for word in words {
        assert!(ended.stderr[0].contains(word), "{word:?} is not in {:?}", ended.stderr);
    }
}

#[test]
fn a_start_that_cannot_keep_files_ends_with_one_line() {
    let folder = Folder::new();
    let launch = || folder.given_to(PLAIN.launch());
    check_refused(&launch().flag("--file-storage-class", "s3"), &["--file-storage-class", "s3"]);
    check_refused(&launch().flag("--batch-processor", "remote"), &["--batch-processor", "remote"]);
    std::fs::create_dir_all(&folder.0).expect("a directory");
    let file = folder.0.join("file");
    std::fs::write(&file, "no directory").expect("room");
    let launch = |path: &std::path::Path| {
        PLAIN.launch().switch("--enable-batch-api").flag("--file-storage-path", path.display())
    };
    check_refused(&launch(&file), &["--file-storage-path", "file"]);
    std::fs::write(folder.0.join("batches.db"), "no database, and longer than the head of one")
        .expect("room");
    check_refused(&launch(&folder.0), &["--file-storage-path", "database"]);
}
