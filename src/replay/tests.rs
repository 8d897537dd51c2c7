//! Whole command lines of `ringway replay`, and the files they write.

use crate::Failure;
use crate::cli;
use crate::cli::Command;

fn replay(line: &str) -> Result<(), Failure> {
    let argv = format!("ringway replay {line}").split_whitespace().map(str::to_owned).collect();
    match cli::parse(argv) {
        Ok(Command::Replay(flags)) => super::run(&flags),
        other => unreachable!("{line}: {other:?}"),
    }
}

#[track_caller]
fn fails(line: &str, expect: &str) {
    assert_eq!(replay(line).expect_err(line).to_string(), expect);
}

#[track_caller]
fn refused(line: &str) {
    let argv = format!("ringway replay {line}").split_whitespace().map(str::to_owned).collect();
    assert!(matches!(cli::parse(argv), Err(cli::Exit::Refused(_))), "{line}");
}

#[test]
fn a_made_trace_is_written_and_replayed_again() {
    let folder = std::env::temp_dir().join(format!("ringway-replay-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let at = |name: &str| folder.join(name).display().to_string();
    let (trace, json, plot) = (at("trace.jsonl"), at("out.json"), at("out.svg"));
    replay(&format!("--synthetic hot_prefix --requests 60 --write {trace} --plot {plot}")).expect("made");
    replay(&format!("{trace} --policy round_robin,oracle --rate 30 --json {json}")).expect("read");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    assert_eq!(json["policies"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["policies"][1]["requests"], 60);
    assert!(std::fs::read_to_string(&plot).expect("written").contains("oracle_ttft"));
    std::fs::remove_dir_all(&folder).expect("its own folder");
}

#[test]
fn thresholds_in_a_list_are_policies_of_their_own() {
    replay("--synthetic multi_turn --requests 20 --policy cache_aware --balance-abs-threshold 1,64")
        .expect("ran");
}

#[test]
fn what_cannot_work_is_refused_in_one_line() {
    fails(
        "--synthetic other",
        "--synthetic: unknown kind of load: use multi_turn, shared_prefix or hot_prefix",
    );
    fails("--synthetic multi_turn --workers 0", "--workers must be between 1 and 1024");
    fails("--synthetic multi_turn --requests 0", "--requests must be between 1 and 2000000");
    fails("--synthetic multi_turn --rate 0", "--rate must be above 0");
    fails("--synthetic multi_turn --speedup NaN", "--speedup must be above 0");
    fails("--synthetic multi_turn --concurrency 0", "--concurrency must be between 1 and 2000000");
    fails("--synthetic multi_turn --cache-threshold 2", "--cache-threshold must be between 0 and 1");
    fails("/dev/null", "the trace has no requests");
    fails("/dev/null --time-unit h", "unknown --time-unit `h`: use ms or s");
    fails("/nowhere", "/nowhere: No such file or directory (os error 2)");
    assert!(replay("--synthetic multi_turn --policy fastest").is_err());
    refused("");
    refused("a.jsonl --synthetic multi_turn");
    refused("a.jsonl --rate 1 --concurrency 1");
}
