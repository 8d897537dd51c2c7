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
    replay("--synthetic multi_turn --requests 20 --policy cache_aware --balance-abs-threshold 1,64 --affinity-load-factor 0,1.25")
        .expect("ran");
}

#[test]
fn policies_by_key_are_left_out_without_keys() {
    let names = |line: &str, has_keys| {
        let argv = format!("ringway replay {line}").split_whitespace().map(str::to_owned).collect();
        let Ok(Command::Replay(flags)) = cli::parse(argv) else { unreachable!("{line}") };
        let contenders = super::contenders(&flags, has_keys).expect("good");
        contenders.into_iter().map(|contender| contender.name).collect::<Vec<_>>()
    };
    let all = names("a.jsonl", true);
    assert_eq!(all.len(), policy::Policy::NAMES.len() + 2);
    assert_eq!(names("a.jsonl", false).len(), all.len() - 3);
    assert_eq!(names("a.jsonl --policy session", false), ["session"]);
    let line = "a.jsonl --policy cache_aware,oracle --affinity-load-factor 1.25,1.5";
    assert_eq!(names(line, false), ["cache_aware factor=1.25", "cache_aware factor=1.50", "oracle"]);
}

#[test]
fn captured_decisions_are_made_again() {
    let file = std::env::temp_dir().join(format!("ringway-decisions-{}.jsonl", std::process::id()));
    let line = r#"{"at_us":5,"model":"m","policy":"round_robin","prompt_bytes":400,"blocks":6,"samples":["1","2"],"key":null,"attempt":0,"candidates":[{"worker":1,"cost":0,"matched":0,"role":"turn"}],"chosen":1,"reason":"turn"}"#;
    std::fs::write(&file, line).expect("written");
    replay(&format!("{} --policy round_robin", file.display())).expect("replayed");
    std::fs::remove_file(&file).expect("its own file");
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
    fails("--synthetic multi_turn --shards 0", "--shards must be between 1 and 1024");
    fails(
        "--synthetic multi_turn --affinity-load-factor 0,0.5",
        "--affinity-load-factor must be at least 1, or 0 for no bound",
    );
    let made = |flags: &str, expect: &str| fails(&format!("--synthetic multi_turn {flags}"), expect);
    made("--turns 2147483648", "--turns must be between 1 and 1000");
    made("--turns 0", "--turns must be between 1 and 1000");
    made("--groups 0", "--groups must be between 1 and 2000000");
    made("--prefix-tokens 4294967295", "--prefix-tokens must be between 0 and 2097152");
    for speed in ["0", "-5", "NaN", "inf"] {
        let flag = format!("--prefill-tokens-per-s={speed}");
        made(&flag, "--prefill-tokens-per-s must be between 10 and 1000000000");
    }
    made("--step-us 18446744073709551615", "--step-us must be between 0 and 1000000");
    made("--step-per-request-us 100001", "--step-per-request-us must be between 0 and 100000");
    made("--cache-tokens 0", "--cache-tokens must be between 1 and 1099511627776");
    made("--chunk-tokens 0", "--chunk-tokens must be between 1 and 16777216");
    made("--running-max 0", "--running-max must be between 1 and 65536");
    fails(
        "--synthetic hot_prefix --prefix-tokens 2000000",
        "--requests with --turns or --prefix-tokens make about 125020000 prompt blocks, more than 67108864",
    );
    fails("/dev/null --output-tokens 0", "--output-tokens must be between 1 and 1048576");
    fails("/dev/null --block-tokens 0", "--block-tokens must be between 1 and 16777216");
    fails("/dev/null", "the trace has no requests");
    fails("/dev/null --time-unit h", "unknown --time-unit `h`: use ms or s");
    fails("/nowhere", "/nowhere: No such file or directory (os error 2)");
    assert!(replay("--synthetic multi_turn --policy fastest").is_err());
    refused("");
    refused("a.jsonl --synthetic multi_turn");
    refused("a.jsonl --rate 1 --concurrency 1");
}
