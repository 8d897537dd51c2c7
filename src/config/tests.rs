//! Flags that cannot be used, and what the others come to.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: LaunchFlags,
}

fn lowered(line: &str) -> Result<Config, Failure> {
    let argv = std::iter::once("ringway").chain(line.split_whitespace());
    lower(&Line::try_parse_from(argv).expect("parses").flags)
}

#[test]
fn each_bad_flag_is_one_line_that_names_it() {
    for (line, expect) in [
        ("--policy nope", "unknown policy `nope`"),
        ("--policy session", "--session-key"),
        ("--assignment-mode best", "--assignment-mode"),
        ("--affinity-load-factor 0.5", "--affinity-load-factor"),
        ("--prefix-hash-load-factor 0.9", "--prefix-hash-load-factor"),
        ("--affinity-keys a:b", "--affinity-keys"),
        ("--bucket-adjust-interval-secs 0", "--bucket-adjust-interval-secs"),
        ("--max-idle-secs 0", "--max-idle-secs must be between 1 and 4000000"),
        ("--max-idle-secs 4000001", "--max-idle-secs"),
        ("--policy power_of_two --worker-urls http://a", "at least 2 workers"),
        ("--cache-threshold 1.5", "--cache-threshold"),
        ("--balance-rel-threshold 0.5", "--balance-rel-threshold"),
        ("--port 0", "--port"),
        ("--host nowhere.example", "--host"),
        ("--shards 0", "--shards"),
        ("--cpu-affinity 100000", "CPU 100000 cannot be used"),
        ("--cpu-affinity 0,x", "--cpu-affinity"),
        ("--io-driver kqueue", "kqueue"),
        ("--max-payload-size 0", "--max-payload-size"),
        ("--request-timeout-secs 0", "--request-timeout-secs"),
        ("--max-tree-size 0", "--max-tree-size"),
        ("--eviction-interval 0", "--eviction-interval"),
        ("--prefix-memory lots", "--prefix-memory"),
        ("--log-level loud", "loud"),
        ("--prometheus-duration-buckets 1 0.5", "--prometheus-duration-buckets"),
        ("--max-concurrent-requests 0", "--max-concurrent-requests must be between 1 and 16777216, or -1"),
        ("--max-concurrent-requests -2", "--max-concurrent-requests"),
        ("--max-concurrent-requests 2 --queue-timeout-secs 0", "--queue-timeout-secs"),
        ("--max-concurrent-requests 2 --queue-size 65537", "--queue-size"),
        (
            "--max-concurrent-requests 2 --rate-limit-tokens-per-second 100001",
            "--rate-limit-tokens-per-second",
        ),
        ("--rate-limit-tokens-per-second 5", "needs --max-concurrent-requests"),
        ("--priority-scheduler-enabled", "needs --max-concurrent-requests"),
        ("--priority-scheduler-enabled --max-concurrent-requests 8192", "between 1 and 8191 with"),
        ("--priority-scheduler-enabled --max-concurrent-requests 2 --queue-size 9", "queues of their own"),
        (
            "--priority-scheduler-enabled --max-concurrent-requests 2 --priority-scheduler-default-max-class top",
            "unknown --priority-scheduler-default-max-class `top`: use system",
        ),
        ("--tenant-header-name a:b", "--tenant-header-name"),
        ("--backend openai", "--backend openai is not supported yet"),
    ] {
        let failure = lowered(line).expect_err(line);
        assert!(failure.message.contains(expect), "{line}: {failure}");
        assert!(failure.is_usage && !failure.message.contains('\n'));
    }
}

#[test]
fn sizes_take_units() {
    for (text, expect) in [("1024", 1024), ("1KiB", 1024), ("256MiB", 256 << 20), ("2GB", 2_000_000_000)] {
        assert_eq!(bytes("--x", text), Ok(expect));
    }
    for text in ["", "0", "MiB", "1.5GiB", "-1", "99999999999999GiB"] {
        assert!(bytes("--x", text).is_err(), "{text}");
    }
}

#[test]
fn a_short_cpu_list_pins_each_shard() {
    let config = lowered("--cpu-affinity 0").expect("CPU 0 is usable");
    assert_eq!(config.cpus, [Some(0)]);
    let config = lowered("--shards 64").expect("more shards than CPUs run unpinned");
    assert_eq!(config.cpus.len(), 64);
}

#[test]
fn hosts_may_be_ipv6() {
    assert_eq!(lowered("--host ::1").expect("IPv6").listen.to_string(), "[::1]:30000");
    assert_eq!(lowered("--host localhost").expect("a name").listen.to_string(), "127.0.0.1:30000");
}

#[test]
fn admission_is_off_unless_a_limit_is_given() {
    let rules = |line: &str| lowered(line).expect(line).admission;
    assert!(rules("--queue-size 5 --rate-limit-tokens-per-second 0").is_none());
    let plain = rules("--max-concurrent-requests 7").expect("a limit");
    assert_eq!((plain.in_flight_max, plain.starts_per_s, plain.classes.len()), (7, None, 1));
    assert_eq!((plain.classes[0].queue_max, plain.classes[0].queue_timeout.as_secs()), (100, 60));
    let none = rules("--max-concurrent-requests 7 --queue-size 0 --queue-timeout-secs 0").expect("a limit");
    assert_eq!(none.classes[0].queue_max, 0);
    let paced = rules("--max-concurrent-requests 7 --rate-limit-tokens-per-second 3").expect("a limit");
    assert_eq!(paced.starts_per_s.map(std::num::NonZeroU32::get), Some(3));
    let classes = rules("--max-concurrent-requests 7 --priority-scheduler-enabled").expect("a limit");
    assert_eq!((classes.classes.len(), classes.class(classes.class_max).name), (4, "default"));
}
