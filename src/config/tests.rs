//! Flags that cannot be used, and what the others come to.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: LaunchFlags,
}

/// A file with some text, for as long as it is kept.
pub(crate) struct TextFile(std::path::PathBuf);

impl TextFile {
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that no other test has, whose path ends in `name`.
pub(crate) fn file(name: &str, text: &str) -> TextFile {
    let path = testkit::place::temporary(name);
    std::fs::write(&path, text).expect("the temporary directory can be written");
    TextFile(path)
}

pub(crate) fn lowered(line: &str) -> Result<Config, Failure> {
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
        ("--file-storage-class s3", "--file-storage-class `s3`"),
        ("--batch-processor far", "--batch-processor `far`"),
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
        ("--priority-scheduler-config x.yaml", "needs --priority-scheduler-enabled"),
        ("--tenant-rate-limit-enabled", "needs --tenant-rate-limit-config"),
        ("--tenant-rate-limit-config x.yaml", "needs --tenant-rate-limit-enabled"),
        (
            "--tenant-rate-limit-enabled --tenant-rate-limit-config /nowhere/x.yaml",
            "--tenant-rate-limit-config /nowhere/x.yaml: cannot read it",
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

#[test]
fn classes_may_have_other_numbers() {
    let rules = |text: &str| {
        let file = file("classes.yaml", text);
        let line = format!(
            "--max-concurrent-requests 100 --priority-scheduler-enabled --priority-scheduler-config {}",
            file.path().display()
        );
        lowered(&line).map(|config| config.admission.expect("a limit"))
    };
    let class = "reserved_floor: 2, share: 0.05, queue_size: 7, queue_timeout_secs: 8, starvation_secs: 9";
    let good =
        rules(&format!("classes:\n  bulk: {{{class}}}\n  system: {{preempt: true}}")).expect("it is good");
    let bulk = &good.classes[3];
    assert_eq!((bulk.queue_max, bulk.queue_timeout.as_secs(), bulk.preempts), (7, 8, false));
    assert_eq!(bulk.starvation.map(|patience| patience.as_secs()), Some(9));
    assert_eq!(good.classes[1].queue_max, 256, "the others are as they were");
    assert!(rules("").is_ok());
    for (text, words) in [
        ("classes: {bulk: {queue: 3}}", "`classes.bulk.queue` is no field: use reserved_floor, share"),
        ("classes: {urgent: {}}", "`classes.urgent` is no field: use system, interactive, default, bulk"),
        ("class: {}", "`class` is no field: use classes"),
        ("classes: [bulk]", "`classes` must be a mapping"),
        ("classes: {bulk: {share: 2}}", "`classes.bulk.share` must be a number between 0 and 1"),
        (
            "classes: {bulk: {queue_size: -1}}",
            "`classes.bulk.queue_size` must be a whole number between 0 and",
        ),
        ("classes: {bulk: {queue_timeout_secs: 0}}", "`classes.bulk.queue_timeout_secs` must be"),
        ("classes: {bulk: {starvation_secs: 1.5}}", "`classes.bulk.starvation_secs` must be"),
        ("classes: {bulk: {preempt: maybe}}", "`classes.bulk.preempt` must be true or false"),
        ("classes: {bulk: {queue_size: 3839}}", "`classes` have 4671 places"),
        ("classes: {bulk: {preempt: true}}", "`classes.bulk.preempt` cannot be true while that of default"),
        ("classes: {system: {queue_size: 0}}", "`classes.system.queue_size` cannot be 0"),
        ("classes: {bulk: {share: 0.1, share: 0.2}}", "classes.yaml"),
        ("classes: {", "line"),
    ] {
        let failure = rules(text).expect_err(text);
        assert!(failure.message.contains(words) && failure.message.contains("classes.yaml"), "{failure}");
        assert!(!failure.message.contains('\n'), "{failure}");
    }
}

#[test]
fn files_and_batches_are_off_unless_asked_for() {
    assert_eq!(lowered("--file-storage-path /tmp/x").expect("good flags").batches, None);
    let batches = lowered("--enable-batch-api --max-connections-per-address 9").expect("good flags").batches;
    let batches = batches.expect("they are on");
    assert_eq!((batches.path.to_str(), batches.connections_max), (Some("/tmp/vllm_files"), Some(9)));
}
