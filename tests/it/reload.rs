//! Settings read again (SIGHUP): what changes, what does not, and that nobody notices.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Signal;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::begin_stream;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    workers_come_and_go_and_nobody_notices
    keys_and_limits_change_while_it_runs
}

/// A file of settings.
pub(crate) struct File(PathBuf);

impl File {
    /// A configuration file.
    pub(crate) fn new(text: &str) -> File {
        File::named("ringway.toml", text)
    }

    /// A file whose path ends in `name`.
    pub(crate) fn named(name: &str, text: &str) -> File {
        let file = File(place::temporary(name));
        file.write(text);
        file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("the temporary directory can be written");
    }

    fn start(&self, setup: Setup) -> Gateway {
        setup.launch().flag("--config", self.0.display()).start_listening()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn urls(workers: &[&Worker]) -> String {
    let urls: Vec<String> = workers.iter().map(|worker| format!("{:?}", worker.url())).collect();
    format!("worker-urls = [{}]\n", urls.join(", "))
}

/// Reloads, and waits until it is done or refused.
#[track_caller]
pub(crate) fn reload(gateway: &Gateway, result: &str) {
    let count = || gateway.metrics().sum("ringway_reloads_total", &[&format!("result=\"{result}\"")]);
    let before = count();
    gateway.signal(Signal::HUP);
    wait::until("the settings were read again", || count() > before);
}

fn workers_come_and_go_and_nobody_notices(setup: Setup) {
    let [a, b, c] = [Worker::answering(), Worker::answering(), Worker::answering()];
    let file = File::new(&urls(&[&a, &b]));
    let gateway = file.start(setup);
    gateway.wait_healthy(2);
    // One more that was not named by the settings: it stays whatever they say.
    let own = Worker::answering();
    let body = format!("{{\"url\":{:?}}}", own.url());
    assert_eq!(gateway.ask(&Request::json("/workers", body)).status, 202);
    gateway.wait_healthy(3);

    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (addr, is_over) = (gateway.addr(), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                let mut answers = 0;
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(client.ask(&chat("hello")).status, 200);
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for workers in [[&b, &c], [&c, &a], [&a, &b]] {
        file.write(&urls(&workers));
        reload(&gateway, "done");
        wait::until("the fleet is the one that the file names", || {
            let registered: Vec<String> =
                gateway.workers().iter().map(|worker| worker["url"].to_string()).collect();
            let is_there = |worker: &Worker| registered.contains(&format!("{:?}", worker.url()));
            let is_routable = gateway.workers().iter().all(|worker| worker["is_healthy"] == true);
            is_routable
                && registered.len() == 3
                && is_there(&own)
                && workers.iter().all(|worker| is_there(worker))
        });
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().expect("no request failed") > 0);
    }
    gateway.wait_idle();
}

fn keys_and_limits_change_while_it_runs(setup: Setup) {
    let worker = Worker::answering();
    let settings = |rest: &str| format!("{}{rest}", urls(&[&worker]));
    let file = File::new(&settings("api-key = \"first-key\"\n"));
    let gateway = file.start(setup);
    let with = |key: &str| chat("hello").header("Authorization", &format!("Bearer {key}"));
    wait::until("the worker is healthy", || gateway.ask(&with("first-key")).status == 200);
    assert_eq!(gateway.ask(&with("second-key")).status, 401);

    file.write(&settings("api-key = \"second-key\"\nmax-payload-size = 200\nlog-level = \"debug\"\n"));
    reload(&gateway, "done");
    // Shards take it over with their next tick.
    wait::until("the new key opens", || gateway.ask(&with("second-key")).status == 200);
    wait::until("the old one does not", || gateway.ask(&with("first-key")).status == 401);
    let long = "x".repeat(300);
    let long = chat(&long).header("Authorization", "Bearer second-key");
    wait::until("the limit holds", || gateway.ask(&long).status == 413);
    wait::until("what changed is told", || {
        gateway.has_logged(&["settings were read again", "--api-key", "--log-level", "--max-payload-size"])
    });
    let received = worker.received();
    let last = received.last().expect("requests came");
    assert_eq!(
        last.headers.get("authorization"),
        Some("Bearer second-key"),
        "workers of the file get the new key"
    );
    for line in gateway.stdout() {
        assert!(!line.contains("first-key") && !line.contains("second-key"), "{line}");
    }
}

#[test]
fn other_names_of_models_change_while_it_runs() {
    let worker = Worker::answering();
    let settings =
        |aliases: &str| format!("enable-igw = true\nmodel-alias = [{aliases}]\n{}", urls(&[&worker]));
    let file = File::new(&settings("\"old=mock\""));
    let gateway = file.start(PLAIN);
    gateway.wait_healthy(1);
    let ask = |model: &str| {
        gateway.ask(&Request::json(CHAT, format!("{{\"model\":\"{model}\",\"messages\":[]}}"))).status
    };
    assert_eq!((ask("old"), ask("new")), (200, 404));
    file.write(&settings("\"new=mock\""));
    reload(&gateway, "done");
    wait::until("the new name is known", || ask("new") == 200);
    assert_eq!(ask("old"), 404);
}

#[test]
fn a_reload_that_cannot_be_done_changes_nothing() {
    let worker = Worker::answering();
    let good = format!("{}max-payload-size = 200\n", urls(&[&worker]));
    let file = File::new(&good);
    let gateway = file.start(PLAIN);
    gateway.wait_healthy(1);
    let long = chat(&"x".repeat(300));
    assert_eq!(gateway.ask(&long).status, 413);
    for (bad, words) in [
        ("max-payload-size = 9000\nprefix-memory = \"1MiB\"\n", "--prefix-memory cannot change"),
        ("max-payload-size = 9000\ncache-threshold = 0.9\n", "--cache-threshold cannot change"),
        ("max-payload-size = 9000\nno-such-key = 2\n", "no-such-key"),
        ("max-payload-size = 9000\nlog-level = \"loud\"\n", "loud"),
        ("max-payload-size = 9000\nworker-urls = [\"ftp://x\"]\n", "ftp://x"),
        ("max-payload-size = ", "line 1"),
    ] {
        file.write(bad);
        reload(&gateway, "refused");
        wait::until("the reason is logged", || gateway.has_logged(&["WARN", words]));
        assert_eq!(gateway.ask(&long).status, 413, "{bad}");
        assert_eq!(gateway.workers().len(), 1, "{bad}");
    }
    file.write(&good.replace("200", "9000"));
    reload(&gateway, "done");
    wait::until("good settings hold", || gateway.ask(&long).status == 200);
}

#[test]
fn a_worker_that_the_file_leaves_out_finishes_its_stream() {
    let [leaving, staying] = [Worker::manual(), Worker::answering()];
    let file = File::new(&urls(&[&leaving]));
    let gateway = file.start(PLAIN);
    gateway.wait_healthy(1);
    let mut client = gateway.client();
    let mut exchange = begin_stream(&mut client, &leaving);
    file.write(&urls(&[&staying]));
    reload(&gateway, "done");
    wait::until("the other one serves", || gateway.ask(&chat("hello")).status == 200);
    exchange.event("2");
    assert_eq!(client.event().as_deref(), Some("data: 2"));
    exchange.close_stream();
    assert_eq!(client.events(), ["[DONE]"]);
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_one_line() {
    for (text, words) in [
        ("worker-url = [\"http://a:1\"]", ["worker-url", "is no flag"]),
        ("port = \"x\"", ["port", "ringway.toml"]),
        ("stream-resume = 1", ["stream-resume", "true or false"]),
    ] {
        let file = File::new(text);
        let ended = binary().flag("--config", file.0.display()).run_to_end();
        assert_eq!((ended.code, ended.stderr.len()), (Some(2), 1), "{:?}", ended.stderr);
        assert!(words.iter().all(|word| ended.stderr[0].contains(word)), "{:?}", ended.stderr);
    }
}
