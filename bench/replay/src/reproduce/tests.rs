//! Captured decisions of every kind, made again.

use super::*;
use crate::trace::ReadOptions;
use crate::trace::read;

fn captured(lines: &str) -> Vec<Captured> {
    read(lines.as_bytes(), &ReadOptions::default()).expect("good lines").captured().to_vec()
}

fn line(policy: &str, candidates: &str, chosen: u32, reason: &str) -> String {
    format!(
        r#"{{"at_us":0,"policy":"{policy}","prompt_bytes":4096,"blocks":34,"known":20,"samples":[],"candidates":[{candidates}],"chosen":{chosen},"reason":"{reason}"}}"#
    )
}

fn candidate(worker: u32, cost: u32, matched: u32, role: &str) -> String {
    format!(r#"{{"worker":{worker},"cost":{cost},"matched":{matched},"role":"{role}","last_chosen":7}}"#)
}

#[test]
fn what_was_decided_is_decided_again() {
    let holders = [candidate(3, 512, 20, "holder"), candidate(4, 256, 20, "holder")].join(",");
    let lines = [
        line("round_robin", &candidate(2, 0, 0, "turn"), 2, "turn"),
        line(
            "power_of_two",
            &[candidate(1, 9, 0, "drawn"), candidate(2, 8, 0, "drawn")].join(","),
            2,
            "lighter",
        ),
        line("cache_aware", &holders, 4, "prefix"),
    ];
    let all = reproduce(&captured(&lines.join("\n")));
    assert_eq!(all.to_string(), "reproduced 3 of 3 choices");
}

#[test]
fn the_first_difference_is_told() {
    let lines = [
        line("random", &candidate(2, 0, 0, "drawn"), 2, "chance"),
        line("random", &candidate(2, 0, 0, "drawn"), 1, "chance"),
        line("random", "", 1, "chance"),
    ];
    let some = reproduce(&captured(&lines.join("\n")));
    let expect =
        "reproduced 1 of 3 choices; first difference: decision 2: random chose 1 (chance), now 2 (chance)";
    assert_eq!(some.to_string(), expect);
}
