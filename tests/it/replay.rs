//! What the gateway captures of its decisions is a trace: replayed, every choice is made again.

use std::process::Command;

use fleet::rules::Policy;
use testkit::worker::Worker;

use crate::setup::binary;
use crate::setup::chat;

/// Requests asked under each policy.
const REQUESTS: usize = 30;

/// The end of what a replay of `lines` prints.
fn replayed(policy: &str, lines: &str) -> String {
    let file = std::env::temp_dir().join(format!("ringway-it-{policy}-{}.jsonl", std::process::id()));
    std::fs::write(&file, lines).expect("a temporary file");
    let replay = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["replay", "--policy", "cache_aware,oracle"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    std::fs::remove_file(&file).expect("its own file");
    assert!(replay.status.success(), "{policy}: {}", String::from_utf8_lossy(&replay.stderr));
    String::from_utf8_lossy(&replay.stdout).into_owned()
}

#[test]
fn a_capture_replayed_makes_every_choice_again() {
    let workers: Vec<Worker> = (0..3).map(|_| Worker::answering()).collect();
    for policy in Policy::NAMES {
        let launch = binary().flag("--policy", policy).flag("--session-key", "x-session-id");
        let launch = workers.iter().fold(launch, |launch, worker| launch.worker(worker.url()));
        let gateway = launch.start();
        for n in 0..REQUESTS {
            let text = format!("{} and then {n}", "what is said again ".repeat(10 + n % 3 * 20));
            let session = format!("session {}", n % 4);
            assert_eq!(gateway.ask(&chat(&text).header("X-Session-ID", &session)).status, 200);
        }
        let lines = gateway.get("/debug/decisions?format=jsonl&limit=4096").text();
        let told = replayed(policy, &lines);
        let expect = format!("reproduced {REQUESTS} of {REQUESTS} choices\n");
        assert!(told.ends_with(&expect), "{policy}: {told}");
    }
}
