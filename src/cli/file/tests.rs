//! Files as users write them.

use std::path::PathBuf;

use super::super::Command;
use super::super::Exit;
use super::super::Launch;
use super::super::parse;

/// A file of this test, with this text.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringway-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).expect("the temporary directory can be written");
    path
}

fn argv(path: &std::path::Path, front: &str, line: &str) -> Vec<String> {
    let words = ["ringway"].into_iter().chain(front.split_whitespace());
    let words =
        words.chain(["--config", path.to_str().expect("a plain path")]).chain(line.split_whitespace());
    words.map(str::to_owned).collect()
}

fn launch(name: &str, text: &str, front: &str, line: &str) -> Launch {
    match parse(argv(&file(name, text), front, line)) {
        Ok(Command::Launch(launch)) => *launch,
        other => unreachable!("{text}: {other:?}"),
    }
}

#[track_caller]
fn refuses(name: &str, text: &str, words: &[&str]) {
    let path = file(name, text);
    match parse(argv(&path, "", "")) {
        Err(Exit::Refused(message)) => {
            assert_eq!(message.lines().count(), 1, "{message}");
            let at = path.display().to_string();
            for word in words.iter().copied().chain([at.as_str()]) {
                assert!(message.contains(word), "{word:?} is not in {message:?}");
            }
        }
        other => unreachable!("{text}: {other:?}"),
    }
}

const FILE: &str = r#"
worker-urls = ["http://a:1", "http://b:2"]
policy = "round_robin"
port = 1234
cache-threshold = 0.5
stream-resume = true
disable-retries = false
affinity-keys = []
eviction-interval-secs = 7
api-key = "sk-1"
"#;

#[test]
fn every_kind_of_value_becomes_what_would_be_typed() {
    for front in ["", "launch", "start"] {
        let launch = launch("kinds", FILE, front, "");
        let flags = &launch.flags;
        assert_eq!(flags.workers.worker_urls, ["http://a:1", "http://b:2"]);
        assert_eq!((flags.routing.policy.as_str(), flags.listen.port), ("round_robin", 1234));
        assert_eq!((flags.routing.cache_threshold, flags.routing.eviction_interval), (0.5, 7));
        assert!(flags.retries.stream_resume && !flags.retries.disable_retries);
        assert!(flags.keys.affinity_keys.is_empty());
        assert!(!format!("{launch:?}").contains("sk-1"), "keys are not shown");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let flags = launch("wins", FILE, "", "--port 99 --worker-urls http://c:3").flags;
    assert_eq!((flags.listen.port, flags.routing.policy.as_str()), (99, "round_robin"));
    assert_eq!(flags.workers.worker_urls, ["http://c:3"]);
}

#[test]
fn what_changed_is_told_by_name() {
    let before = launch("changed", FILE, "", "");
    let after = launch("changed", &FILE.replace("1234", "1235").replace("stream-resume = true", ""), "", "");
    assert_eq!(before.given.changed(&after.given), ["--port", "--stream-resume"]);
    assert!(before.given.changed(&before.given).is_empty());
}

#[test]
fn what_cannot_be_used_is_told_with_file_and_key() {
    refuses("unknown", "no-such-flag = 1", &["`no-such-flag`", "is no flag"]);
    refuses("dashes", "\"--port\" = 1", &["`--port`", "is no flag"]);
    refuses("nested", "config = \"x\"", &["`config`"]);
    refuses("help", "help = true", &["`help`"]);
    refuses("unbuilt", "model-path = \"a\"", &["`model-path`", "not supported yet"]);
    refuses("number", "port = \"http\"", &["`port`", "http"]);
    refuses("range", "port = 70000", &["`port`", "70000"]);
    refuses("list", "port = [1, 2]", &["`port`", "one value"]);
    refuses("switch", "stream-resume = 1", &["`stream-resume`", "true or false"]);
    refuses("flag", "port = true", &["`port`"]);
    refuses("table", "[port]\na = 1", &["`port`"]);
    refuses("syntax", "\nport 1\n", &["line 2"]);
    refuses("twice", "port = 1\nport = 2\n", &["line 2"]);
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let path = std::env::temp_dir().join("ringway-no-such-file.toml");
    assert!(
        matches!(parse(argv(&path, "", "")), Err(Exit::Refused(message)) if message.contains("no-such-file"))
    );
}
