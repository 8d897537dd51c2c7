//! Command lines as users type them.

use super::*;

fn launch(line: &str) -> LaunchFlags {
    let argv = std::iter::once("ringway").chain(line.split_whitespace()).map(str::to_owned).collect();
    match parse(argv).expect("accepted") {
        Command::Launch(launch) => launch.flags,
        other => unreachable!("{other:?}"),
    }
}

fn refused(line: &str) -> String {
    let argv = std::iter::once("ringway").chain(line.split_whitespace()).map(str::to_owned).collect();
    match parse(argv) {
        Err(Exit::Refused(message)) => message,
        other => unreachable!("{line}: {other:?}"),
    }
}

#[test]
fn worker_urls_are_a_greedy_list_with_and_without_launch() {
    for line in [
        "--worker-urls http://a:1 http://b:2 --policy random",
        "launch --worker-urls http://a:1 http://b:2 --policy random",
        "start --policy=random --worker-urls http://a:1 http://b:2",
        "--worker-urls=http://a:1 --worker-urls http://b:2 --policy random",
    ] {
        let flags = launch(line);
        assert_eq!(flags.workers.worker_urls, ["http://a:1", "http://b:2"], "{line}");
        assert_eq!(flags.routing.policy, "random");
    }
}

#[test]
fn no_flags_give_the_defaults_of_the_sglang_router() {
    let flags = launch("");
    assert_eq!((flags.listen.host.as_str(), flags.listen.port), ("0.0.0.0", 30000));
    assert_eq!(flags.routing.policy, "cache_aware");
    assert_eq!(flags.routing.max_tree_size, 1 << 26);
    assert_eq!(flags.limits.max_payload_size, 512 << 20);
    assert_eq!(flags.metrics.prometheus_port, 29000);
    assert_eq!((flags.workers.max_worker_retries, flags.retries.retry_max_retries), (3, None));
    assert_eq!((flags.breakers.cb_failure_threshold, flags.breakers.cb_success_threshold), (10, 3));
    assert_eq!(flags.health.health_check_interval_secs, 60);
    assert_eq!(flags.admission.max_concurrent_requests, -1);
    assert_eq!(flags.admission.tenant_header_name, "x-smg-tenant-id");
}

#[test]
fn both_spellings_of_the_eviction_interval_are_one_flag() {
    assert_eq!(launch("--eviction-interval 7").routing.eviction_interval, 7);
    assert_eq!(launch("--eviction-interval-secs=8").routing.eviction_interval, 8);
}

#[test]
fn flags_of_unbuilt_features_are_refused_by_name() {
    for flag in ["--model-path=a", "--reasoning-parser a"] {
        let name = flag.split([' ', '=']).next().expect("a flag");
        assert_eq!(refused(flag), format!("ringway: {name} is not supported yet"));
        assert_eq!(refused(&format!("launch {flag}")), format!("ringway: {name} is not supported yet"));
    }
}

#[test]
fn help_tells_what_a_long_prefix_may_wait_behind() {
    for line in ["ringway --help", "ringway replay --help"] {
        let Err(Exit::Shown(help)) = parse(line.split(' ').map(str::to_owned).collect()) else {
            unreachable!("{line} is help")
        };
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("behind up to eight requests more") && words.contains("one for every 4 KiB"));
    }
}

#[test]
fn nonsense_is_refused_in_one_line() {
    for line in ["--no-such-flag", "--port 99999", "--port", "frobnicate"] {
        let message = refused(line);
        assert!(message.starts_with("ringway: ") && !message.trim().contains('\n'), "{message}");
    }
}
