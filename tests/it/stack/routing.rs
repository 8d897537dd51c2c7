//! How engines are chosen, over as many connections as requests.

use std::collections::BTreeMap;

use testkit::client::Request;
use testkit::metrics::Metrics;
use testkit::wait;
use testkit::worker::Worker;

use super::ask_each_anew;
use super::chat;
use super::choices;
use super::launch;
use super::worker_of;
use crate::setup::CHAT;

#[test]
fn turns_are_strict_over_shards_and_by_model() {
    let engines = [Worker::answering(), Worker::answering(), Worker::answering()];
    let [a, b, c] = &engines;
    let gateway =
        launch(&[(c, "m"), (b, "m"), (a, "m"), (a, "other"), (b, "other")], "roundrobin").start_listening();
    let mut sorted: Vec<String> = engines.iter().map(Worker::url).collect();
    sorted.sort();
    let asked = ask_each_anew(&gateway, &chat("m"), 31);
    for (at, url) in asked.iter().enumerate() {
        assert_eq!(*url, sorted[at % 3], "the {at}th, beginning with the first by URL");
    }
    // Another model's turns begin anew, and disturb nobody's.
    let mut mine = Vec::new();
    let mut others = Vec::new();
    for _ in 0..6 {
        mine.push(worker_of(&gateway.ask(&chat("m"))));
        others.push(worker_of(&gateway.ask(&chat("other"))));
    }
    assert!(
        mine.windows(2).all(|pair| pair[0] != pair[1]) && others.windows(2).all(|pair| pair[0] != pair[1])
    );
    assert_eq!(mine[..3], mine[3..], "{mine:?}");
    let logged: Vec<String> = choices(&gateway, 43).into_iter().map(|(_, _, url)| url).take(31).collect();
    assert_eq!(logged, asked, "the log says the same");
}

#[test]
fn a_session_stays_by_header_before_body() {
    let engines = [Worker::answering(), Worker::answering(), Worker::answering()];
    let named: Vec<(&Worker, &str)> = engines.iter().map(|engine| (engine, "m")).collect();
    let gateway = launch(&named, "session").flag("--session-key", "X-User-Id").start_listening();
    let by_header = |user: &str| chat("m").header("x-user-id", user);
    let by_body = |user: &str| Request::json(CHAT, format!("{{\"model\":\"m\",\"X-User-Id\":\"{user}\"}}"));
    let users: Vec<String> = (0..30).map(|user| format!("user-{user}")).collect();
    let mut homes = BTreeMap::new();
    for user in &users {
        let home = ask_each_anew(&gateway, &by_header(user), 3);
        assert!(home.iter().all(|url| *url == home[0]), "{home:?}");
        assert_eq!(worker_of(&gateway.ask(&by_body(user))), home[0], "a field of the body names it too");
        homes.insert(user, home[0].clone());
    }
    let spread: std::collections::BTreeSet<&String> = homes.values().collect();
    assert_eq!(spread.len(), 3, "everybody has sessions");
    let (one, other) = users
        .iter()
        .find_map(|user| (homes[user] != homes[&users[0]]).then_some((&users[0], user)))
        .expect("two at different engines");
    // Escapes are a matter of who writes the body, not of the session.
    let escaped = by_body("caf\\u00e9 \\ud83d\\ude00");
    let home = worker_of(&gateway.ask(&escaped));
    assert_eq!(worker_of(&gateway.ask(&by_body("caf\u{e9} \u{1f600}"))), home);
    assert_eq!(
        choices(&gateway, 122).pop().map(|(_, session, _)| session).as_deref(),
        Some("caf\u{e9} \u{1f600}")
    );
    worker_of(&gateway.ask(&by_body("a\\nb")));
    let logged = choices(&gateway, 123).pop().map(|(_, session, _)| session);
    assert_eq!(logged.as_deref(), Some("a\u{fffd}b"), "a line stays one");
    let both = by_body(other).header("X-USER-ID", one);
    assert_eq!(worker_of(&gateway.ask(&both)), homes[one], "the header decides");
    let sessions: Vec<String> = choices(&gateway, 124).into_iter().map(|(_, session, _)| session).collect();
    assert_eq!((&*sessions[0], &*sessions[3]), ("user-0", "user-0"));
    // An engine less: only its own sessions move. The ring is the URLs'.
    let (gone, left) = (&engines[0], [(&engines[1], "m"), (&engines[2], "m")]);
    let fewer = launch(&left, "session").flag("--session-key", "x-user-id").start_listening();
    for user in &users {
        let home = worker_of(&fewer.ask(&by_header(user)));
        assert!(homes[user] == gone.url() || homes[user] == home, "{user} moved without need");
    }
    // Without a session nobody gets more than the others.
    let mut counts = BTreeMap::new();
    for url in ask_each_anew(&gateway, &chat("m"), 30) {
        *counts.entry(url).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn a_known_prefix_stays_where_it_is() {
    let engines = [Worker::answering(), Worker::answering(), Worker::answering()];
    let named: Vec<(&Worker, &str)> = engines.iter().map(|engine| (engine, "m")).collect();
    let gateway = launch(&named, "prefixaware").start_listening();
    let prompt =
        |text: String| Request::json("/v1/completions", format!("{{\"model\":\"m\",\"prompt\":\"{text}\"}}"));
    let run = |digit: usize| digit.to_string().repeat(128);
    // Families of prompts, each beginning like the one before. What one shard has placed every shard knows a moment
    // later.
    let mut blocks = 0.0;
    let mut known = |more: f64| {
        blocks += more;
        let page = || Metrics::scrape(gateway.addr());
        wait::until("every shard knows", || page().sum("smg_prefix_tree_blocks", &[]) == blocks);
    };
    for family in 1..=5 {
        let mut text = run(family);
        let home = worker_of(&gateway.ask(&prompt(text.clone())));
        // The first 128 bytes are three blocks.
        known(3.0);
        for next in 6..9 {
            text.push_str(&run(next));
            assert_eq!(worker_of(&gateway.ask(&prompt(text.clone()))), home, "family {family}");
            known(1.0);
            let again = ask_each_anew(&gateway, &prompt(text.clone()), 4);
            assert!(again.iter().all(|url| *url == home), "family {family}: {again:?}");
        }
    }
    // What has no text has no prefix, and is no fault.
    for (path, body) in [
        ("/v1/completions", "{\"model\":\"m\",\"prompt\":[1,2,3]}"),
        ("/v1/completions", "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}"),
        ("/v1/completions", "{\"model\":\"m\"}"),
        ("/v1/embeddings", "{\"model\":\"m\",\"input\":\"a\"}"),
        ("/v1/responses", "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"a\"}]}"),
        ("/v1/rerank", "{\"model\":\"m\",\"query\":\"a\",\"documents\":[\"b\"]}"),
        ("/v1/images/edits", "{\"model\":\"m\"}"),
        (CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":null}]}"),
    ] {
        assert_eq!(gateway.ask(&Request::json(path, body)).status, 200, "{path} {body}");
    }
}

#[test]
fn prefixes_take_no_more_memory_than_they_may() {
    let engine = Worker::answering();
    let gateway = launch(&[(&engine, "m")], "prefixaware").flag("--prefix-memory", "1MiB").start_listening();
    let mut client = gateway.client();
    // Some 4 MiB of distinct blocks.
    for request in 0..400 {
        let text: String = (0..700).map(|word| format!("{request:08}{word:08}")).collect();
        let body = format!("{{\"model\":\"m\",\"prompt\":\"{text}\"}}");
        assert_eq!(client.ask(&Request::json("/v1/completions", body)).status, 200);
    }
    let bytes = Metrics::scrape(gateway.addr()).sum("smg_prefix_tree_bytes", &[]);
    assert!(bytes > 0.0 && bytes <= f64::from(1 << 20), "{bytes}");
}
