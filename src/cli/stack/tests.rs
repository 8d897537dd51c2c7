//! Which command lines are of this front end, and what its flags come to.

use super::*;
use crate::cli;
use crate::config;
use crate::config::Config;

fn is_ours(line: &str) -> bool {
    is_meant(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

fn lowered(line: &str) -> Config {
    let argv = std::iter::once("vllm-router").chain(line.split(' ')).map(str::to_owned).collect();
    match cli::parse(argv) {
        Ok(Command::Launch(launch)) => config::of_launch(&launch).expect("it can be used"),
        other => unreachable!("{line}: {other:?}"),
    }
}

#[test]
fn flags_or_the_programs_name_say_whose_words_they_are() {
    for ours in [
        "ringway --static-backends http://a:1",
        "ringway --routing-logic=roundrobin",
        "ringway --service-discovery static",
        "ringway --service-discovery=k8s",
        "ringway --dynamic-config-json f",
        "vllm-router",
        "/usr/bin/vllm-router --port 8001",
        "vllm-router --worker-urls-of-mine",
    ] {
        assert!(is_ours(ours), "{ours}");
    }
    for not_ours in [
        "ringway",
        "ringway --worker-urls http://a:1 --policy session --session-key x",
        "ringway --service-discovery --selector a=b",
        "ringway demo",
        "vllm-router --worker-urls http://a:1",
        "vllm-router --policy=cache_aware",
        "vllm-router --prefill http://a:1",
    ] {
        assert!(!is_ours(not_ours), "{not_ours}");
    }
}

#[test]
fn defaults_are_the_originals() {
    let config = lowered(
        "--service-discovery static --routing-logic roundrobin --static-backends http://b:1,http://a:1/,http://b:1 \
         --static-models m,m,n",
    );
    assert_eq!((config.listen.port(), config.metrics), (8001, None));
    assert_eq!(config.fleet.load_monitor_interval.map(|interval| interval.as_secs()), Some(30));
    assert_eq!(config.shard.retry.attempts_max, 1);
    assert!(config.fleet.health.disabled && config.fleet.breaker.is_none() && config.fleet.pace.is_none());
    let workers: Vec<_> =
        config.fleet.fixed_workers.iter().map(|worker| (&*worker.url, &worker.fixed.models[..])).collect();
    assert_eq!(
        workers,
        [("http://a:1", &["m".to_owned()][..]), ("http://b:1", &["m".to_owned(), "n".to_owned()])]
    );
    let stack = config.stack.expect("it is one");
    assert_eq!((stack.window.as_secs(), stack.log_stats, stack.dynamic), (60, None, None));
    assert!(!config.logs.has_access);
}

#[test]
fn flags_are_lowered_to_the_same_settings() {
    let config = lowered(
        "--service-discovery static --routing-logic session --session-key X-User --static-backends http://a:1 \
         --static-models m --static-aliases=x:m --max-instance-failover-reroute-attempts 2 --log-stats \
         --log-stats-interval 7 --request-stats-window 90 --engine-stats-interval 5 --otel-endpoint http://c:4317/ \
         --static-backend-health-checks --static-model-types chat --static-backend-health-check-interval 3",
    );
    assert_eq!((config.shard.retry.attempts_max, config.collector.as_deref()), (3, Some("c:4317")));
    assert_eq!(config.shard.session_headers, ["x-user"]);
    assert_eq!(config.fleet.health.interval.as_secs(), 3);
    assert_eq!(config.fleet.fixed_workers[0].fixed.asks.len(), 1);
    let stack = config.stack.expect("it is one");
    assert_eq!((stack.window.as_secs(), stack.log_stats.map(|interval| interval.as_secs())), (90, Some(7)));
    assert_eq!(config.fleet.aliases.get("x").map(|model| &**model), Some("m"));
}
