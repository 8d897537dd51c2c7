//! A file of settings that changes while requests run.

use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;
use serde_json::json;
use testkit::gateway::Gateway;
use testkit::place;
use testkit::wait;
use testkit::worker::Worker;

use super::bare;
use super::chat;
use super::worker_of;

/// A directory of its own, gone when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = place::temporary("settings");
        std::fs::create_dir(&path).expect("the temporary directory can be written");
        Directory(path)
    }

    /// Replaces a file in one step.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (path, aside) = (self.0.join(name), self.0.join("aside"));
        std::fs::write(&aside, text).expect("written");
        std::fs::rename(&aside, &path).expect("renamed");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(engines: &[&Worker], model: &str, logic: &str) -> Value {
    let urls: Vec<String> = engines.iter().map(|engine| engine.url()).collect();
    let models = vec![model; engines.len()];
    json!({
        "service_discovery": "static",
        "routing_logic": logic,
        "static_backends": urls.join(","),
        "static_models": models.join(","),
    })
}

#[track_caller]
fn start(file: &Path) -> Gateway {
    let flag = if file.extension().is_some_and(|kind| kind == "yaml") { "yaml" } else { "json" };
    bare().flag(&format!("--dynamic-config-{flag}"), file.display()).start_listening()
}

fn health(gateway: &Gateway) -> Value {
    let answer = gateway.get("/health");
    assert_eq!(answer.status, 200);
    answer.json()
}

#[test]
fn a_changed_file_holds_and_health_shows_it() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let directory = Directory::new();
    let file = directory.put("settings.json", &settings(&[&a], "m", "roundrobin").to_string());
    let gateway = start(&file);
    assert_eq!(worker_of(&gateway.ask(&chat("m"))), a.url());
    let shown = health(&gateway)["dynamic_config"].clone();
    let fields = shown.as_object().expect("an object");
    assert_eq!((&shown["static_backends"], &shown["session_key"]), (&a.url().into(), &Value::Null));
    assert_eq!(fields.len(), 17, "every field, also those that say nothing: {fields:?}");
    let mut changed = settings(&[&b], "n", "session");
    changed["session_key"] = "x-user".into();
    changed["static_aliases"] = "gpt:n".into();
    directory.put("settings.json", &changed.to_string());
    wait::until("the change is shown", || health(&gateway)["dynamic_config"]["routing_logic"] == "session");
    wait::until("the new model is served", || gateway.ask(&chat("n")).status == 200);
    assert_eq!(gateway.ask(&chat("m")).status, 404);
    assert_eq!(worker_of(&gateway.ask(&chat("gpt"))), b.url());
    assert_eq!(gateway.get("/v1/models").json()["data"][0]["id"], "n");
    let metrics = super::wait_idle(&gateway);
    assert_eq!(metrics.sum("vllm:healthy_pods_total", &[&format!("server=\"{}\"", a.url())]), 0.0);
    assert!(!metrics.text.contains(&format!("vllm:current_qps{{server=\"{}\"", a.url())), "gone is gone");
    assert_eq!(metrics.sum("vllm:num_incoming_requests_total", &["model=\"m\""]), 1.0, "totals stay");
    // Written in place, as an editor may do it.
    std::fs::write(&file, settings(&[&a, &b], "m", "roundrobin").to_string()).expect("written");
    wait::until("both serve", || gateway.get("/readiness").json()["healthy_workers"] == 2);
    let asked = super::ask_each_anew(&gateway, &chat("m"), 4);
    assert!(asked.windows(2).all(|pair| pair[0] != pair[1]), "turns again: {asked:?}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let directory = Directory::new();
    let good = settings(&[&a], "m", "roundrobin");
    let file = directory.put("settings.json", &good.to_string());
    let gateway = start(&file);
    let with = |key: &str, value: Value| {
        let mut settings = settings(&[&b], "m", "roundrobin");
        settings[key] = value;
        settings.to_string()
    };
    for (text, told) in [
        ("{".to_owned(), "it is not JSON"),
        ("[]".to_owned(), "it is no object"),
        ("{}".to_owned(), "`service_discovery` is missing"),
        (with("nonsense", 1.into()), "`nonsense` is not known"),
        (with("static_models", "m,n".into()), "must have the same length"),
        (with("static_backends", "nonsense".into()), "--static-backends: nonsense"),
        (with("routing_logic", "best".into()), "`routing_logic` must be one of roundrobin"),
        (with("routing_logic", "session".into()), "needs --session-key"),
        (with("routing_logic", "kvaware".into()), "kvaware is not supported"),
        (with("service_discovery", "k8s".into()), "where pods are looked for cannot change"),
        (with("static_backends", 7.into()), "`static_backends` must be text, or a list of texts"),
        (with("static_aliases", "a".into()), "`a` is not alias:model"),
        (with("callbacks", "a.b".into()), "`callbacks` is not supported"),
        (with("k8s_port", 70_000.into()), "`k8s_port` is too large"),
    ] {
        directory.put("settings.json", &text);
        let mut seen = Value::Null;
        wait::until(&format!("{told} is told"), || {
            seen = health(&gateway);
            seen["dynamic_config_error"].as_str().is_some_and(|error| error.contains(told))
        });
        assert_eq!(
            (&seen["status"], &seen["dynamic_config"]["static_backends"]),
            (&"healthy".into(), &a.url().into())
        );
        wait::until("the log says so", || gateway.has_logged(&["WARN", told]));
        assert_eq!(worker_of(&gateway.ask(&chat("m"))), a.url());
    }
    std::fs::remove_file(&file).expect("it is there");
    wait::until("a file that is gone is told", || {
        health(&gateway)["dynamic_config_error"]
            .as_str()
            .is_some_and(|error| error.contains("cannot read it"))
    });
    assert_eq!(worker_of(&gateway.ask(&chat("m"))), a.url());
    directory.put("settings.json", &good.to_string());
    wait::until("nothing is wrong any more", || health(&gateway)["dynamic_config_error"].is_null());
}

#[test]
fn yaml_may_say_it_shorter() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let directory = Directory::new();
    let text = |models: &str| {
        format!(
            "service_discovery: static\nrouting_logic: roundrobin\nstatic_aliases:\n  gpt: m\nstatic_models:\n{models}"
        )
    };
    let model = |name: &str, engine: &Worker| {
        format!("  {name}:\n    static_backends:\n      - {}\n    static_model_type: chat\n", engine.url())
    };
    let file = directory.put("settings.yaml", &text(&model("m", &a)));
    let gateway = start(&file);
    assert_eq!(worker_of(&gateway.ask(&chat("gpt"))), a.url());
    directory.put("settings.yaml", &text(&format!("{}{}", model("m", &a), model("n", &b))));
    wait::until("the other model is served", || gateway.ask(&chat("n")).status == 200);
    let shown = health(&gateway)["dynamic_config"].clone();
    assert_eq!((&shown["static_models"], &shown["static_aliases"]), (&"m,n".into(), &"gpt:m".into()));
    directory.put("settings.yaml", ": :");
    wait::until("what is no YAML is told", || health(&gateway)["dynamic_config_error"].is_string());
}

#[test]
fn a_link_that_is_turned_elsewhere_is_seen() {
    let (a, b) = (Worker::answering(), Worker::answering());
    let directory = Directory::new();
    let version = |name: &str, engine: &Worker| {
        let path = directory.0.join(name);
        std::fs::create_dir(&path).expect("a directory");
        std::fs::write(path.join("settings.json"), settings(&[engine], "m", "roundrobin").to_string())
            .expect("written");
    };
    version("first", &a);
    version("second", &b);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, directory.0.join(name)).expect("a link");
    // As a mounted ConfigMap has it: the file is a link into a directory that is a link.
    link("first", "..data");
    link("..data/settings.json", "settings.json");
    let gateway = start(&directory.0.join("settings.json"));
    assert_eq!(worker_of(&gateway.ask(&chat("m"))), a.url());
    link("second", "..data_tmp");
    std::fs::rename(directory.0.join("..data_tmp"), directory.0.join("..data")).expect("renamed");
    wait::until("the other engine serves", || worker_of(&gateway.ask(&chat("m"))) == b.url());
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_one_line() {
    let directory = Directory::new();
    for (text, told) in
        [("{", "it is not JSON"), ("{\"routing_logic\":\"roundrobin\"}", "`service_discovery` is missing")]
    {
        let file = directory.put("settings.json", text);
        let ended = bare_without_discovery().flag("--dynamic-config-json", file.display()).run_to_end();
        assert_eq!((ended.code, ended.stderr.len()), (Some(1), 1), "{ended:?}");
        assert!(ended.stderr[0].contains("settings.json") && ended.stderr[0].contains(told), "{ended:?}");
    }
    let nowhere = directory.0.join("nowhere.json");
    let ended = bare_without_discovery().flag("--dynamic-config-json", nowhere.display()).run_to_end();
    assert!(ended.code == Some(1) && ended.stderr[0].contains("cannot read it"), "{ended:?}");
}

fn bare_without_discovery() -> testkit::gateway::Launch {
    crate::setup::binary().on_one_port()
}

/// A hundred changes of engines and of how they are chosen, and no request that notices.
#[test]
fn no_request_is_lost_while_settings_change() {
    let engines = [Worker::answering(), Worker::answering(), Worker::answering(), Worker::answering()];
    let [a, b, c, d] = &engines;
    let directory = Directory::new();
    let file = directory.put("settings.json", &settings(&[a, b], "m", "roundrobin").to_string());
    let gateway = start(&file);
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = client.ask(&chat("m"));
                        assert_eq!(answer.status, 200, "{answer:?}");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for change in 0..100 {
            let (pair, logic) = match change % 4 {
                0 => ([c, d], "roundrobin"),
                1 => ([a, c], "prefixaware"),
                2 => ([b, d], "session"),
                _ => ([a, b], "roundrobin"),
            };
            let mut settings = settings(&pair, "m", logic);
            settings["session_key"] = format!("x-{change}").into();
            if change % 8 > 4 {
                // Names are looked up before anybody is asked there.
                let named =
                    settings["static_backends"].as_str().map(|urls| urls.replace("127.0.0.1", "localhost"));
                settings["static_backends"] = named.into();
            }
            directory.put("settings.json", &settings.to_string());
            wait::until("the change holds", || {
                health(&gateway)["dynamic_config"]["session_key"] == settings["session_key"]
            });
            let before = asked.load(Ordering::Relaxed);
            wait::until("requests go on", || {
                asked.load(Ordering::Relaxed) > before + 8
                    || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for engine in &engines {
        assert!(!engine.received().is_empty(), "everybody had a part");
    }
}
