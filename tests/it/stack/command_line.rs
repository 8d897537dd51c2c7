//! Command lines that cannot be used, and how the front end is found.

use testkit::gateway::run_to_end;
use testkit::place;
use testkit::wait;

use super::bare;
use super::launch;
use crate::setup::binary;
use testkit::worker::Worker;

const STATIC: &str = "--service-discovery static --static-backends http://a:1,http://b:1 --static-models m,m";

/// Starts with these words and expects the end.
#[track_caller]
fn check(line: &str, code: i32, told: &str) {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let ended = run_to_end(env!("CARGO_BIN_EXE_ringway").as_ref(), &words);
    assert_eq!(ended.code, Some(code), "{line}: {:?}", ended.stderr);
    assert_eq!(ended.stderr.len(), 1, "{line}: one line: {:?}", ended.stderr);
    assert!(ended.stderr[0].contains(told), "{line}: {:?}", ended.stderr);
}

#[test]
fn what_is_missing_or_wrong_ends_the_start_with_one_line() {
    for (line, code, told) in [
        ("--routing-logic roundrobin", 1, "--service-discovery is required"),
        (
            "--service-discovery static --static-backends http://a:1 --static-models m",
            1,
            "--routing-logic is required",
        ),
        ("--service-discovery static --routing-logic roundrobin", 1, "needs --static-backends"),
        (
            "--service-discovery static --routing-logic roundrobin --static-backends http://a:1",
            1,
            "needs --static-models",
        ),
        (
            "--service-discovery static --routing-logic roundrobin --static-backends http://a:1 --static-models m,n",
            1,
            "--static-models and --static-backends must have the same length: they have 2 and 1",
        ),
        (
            "--service-discovery static --routing-logic roundrobin --static-backends nonsense --static-models m",
            1,
            "--static-backends: nonsense: it must begin with http://",
        ),
        (&format!("{STATIC} --routing-logic session"), 1, "needs --session-key"),
        (&format!("{STATIC} --routing-logic kvaware"), 1, "kvaware is not supported"),
        (&format!("{STATIC} --routing-logic best"), 2, "--routing-logic"),
        (&format!("{STATIC} --routing-logic disaggregated_prefill"), 1, "--prefill-model-labels"),
        (&format!("{STATIC} --routing-logic roundrobin --static-model-labels a"), 1, "--static-model-labels"),
        (
            &format!("{STATIC} --routing-logic roundrobin --static-model-types chat,poem"),
            1,
            "`poem` is not one of chat",
        ),
        (&format!("{STATIC} --routing-logic roundrobin --static-aliases a"), 1, "`a` is not alias:model"),
        (
            &format!("{STATIC} --routing-logic roundrobin --static-aliases a:b:c"),
            1,
            "`a:b:c` is not alias:model",
        ),
        (
            &format!("{STATIC} --routing-logic roundrobin --static-backend-health-checks"),
            1,
            "--static-model-types",
        ),
        (
            &format!("{STATIC} --routing-logic roundrobin --engine-stats-interval 0"),
            1,
            "--engine-stats-interval",
        ),
        (
            &format!("{STATIC} --routing-logic roundrobin --request-stats-window=0"),
            1,
            "--request-stats-window",
        ),
        (&format!("{STATIC} --routing-logic roundrobin --log-stats-interval 0"), 1, "--log-stats-interval"),
        (&format!("{STATIC} --routing-logic roundrobin --port x"), 2, "--port"),
        (&format!("{STATIC} --routing-logic roundrobin --nonsense"), 2, "--nonsense"),
        (&format!("{STATIC} --routing-logic roundrobin --log-level loud"), 2, "--log-level"),
        (
            &format!("{STATIC} --routing-logic roundrobin --k8s-service-discovery-type service-name"),
            2,
            "--k8s-service-discovery-type",
        ),
        (
            &format!("{STATIC} --routing-logic roundrobin --batch-processor remote"),
            1,
            "unknown --batch-processor `remote`",
        ),
        (&format!("{STATIC} --routing-logic roundrobin --host nowhere"), 1, "--host nowhere"),
        (
            &format!("{STATIC} --routing-logic roundrobin --otel-endpoint nowhere"),
            1,
            "--otlp-traces-endpoint",
        ),
        (
            "--service-discovery=external-only --routing-logic roundrobin",
            1,
            "external-only is not supported yet",
        ),
    ] {
        check(line, code, told);
    }
}

#[test]
fn flags_of_what_does_not_exist_here_are_refused_by_name() {
    for flag in [
        "--callbacks",
        "--feature-gates",
        "--semantic-cache-model",
        "--lmcache-controller-port",
        "--kv-aware-threshold",
        "--sentry-dsn",
        "--external-providers-config",
    ] {
        check(
            &format!("{STATIC} --routing-logic roundrobin {flag}=x"),
            2,
            &format!("{flag} is not supported"),
        );
    }
    check(
        &format!("{STATIC} --routing-logic roundrobin --semantic-cache-m x"),
        2,
        "--semantic-cache-model is not supported",
    );
}

#[test]
fn the_name_of_the_program_or_a_flag_says_whose_words_these_are() {
    let link = place::temporary("bin");
    std::fs::create_dir(&link).expect("the temporary directory can be written");
    let program = link.join("vllm-router");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ringway"), &program).expect("a link");
    let none: [&str; 0] = [];
    let ended = run_to_end(&program, &none);
    assert_eq!((ended.code, ended.stderr.len()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr[0].contains("is required"), "{ended:?}");
    assert_eq!(run_to_end(&program, &["--version"]).code, Some(0));
    assert_eq!(run_to_end(&program, &["--help"]).code, Some(0));
    // The other router of this name.
    let ended = run_to_end(&program, &["--worker-urls", "http://a:1", "--policy", "nonsense"]);
    assert!(ended.stderr[0].contains("unknown policy `nonsense`"), "{ended:?}");
    let _ = std::fs::remove_dir_all(link);
    let ended = binary().flag("--policy", "nonsense").run_to_end();
    assert!(ended.stderr[0].contains("unknown policy `nonsense`"), "{ended:?}");
}

#[test]
fn flags_may_be_cut_short_and_joined_with_their_values() {
    let worker = Worker::answering();
    let gateway = bare()
        .switch(&format!("--static-backends={}", worker.url()))
        .switch("--static-models=m")
        .flag("--routing-l", "session")
        .flag("--log-f", "json")
        // Of a flag that is given twice the last counts.
        .flag("--routing-logic", "roundrobin")
        .start_listening();
    assert_eq!(gateway.ask(&super::chat("m")).status, 200);
    wait::until("the choice is logged", || gateway.has_logged(&["\"message\":\"Routing request "]));
    assert!(!gateway.has_logged(&["\"target\":\"access\""]));
    let told = launch(&[(&worker, "m")], "roundrobin").flag("--log-level", "debug").start_listening();
    assert_eq!(told.ask(&super::chat("m")).status, 200);
    wait::until("the end of the request is told too", || {
        told.has_logged(&["access", "outcome=\"complete\""])
    });
}
