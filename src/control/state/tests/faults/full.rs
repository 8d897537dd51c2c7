//! A worker that refuses everything at once: it looks idle, and must not draw the traffic for it.

use std::sync::Arc;
use std::time::Duration;

use fleet::board::FULL;
use fleet::id::WorkerId;
use fleet::pressure::FullWorkers;
use fleet::rules::Rules;
use fleet::snapshot::Claim;
use policy::Keys;
use policy::Replica;
use policy::Request;
use shard::pick::Hold;
use shard::pick::pick;

use crate::control::rig::BREAKER;
use crate::control::rig::Rig;
use crate::control::rig::config;

const BUSY: &str = "http://10.0.0.1:1";
const URLS: [&str; 4] = [BUSY, "http://10.0.0.2:1", "http://10.0.0.3:1", "http://10.0.0.4:1"];
const REQUESTS: u64 = 2_000;
/// Requests in flight at a time: answers take this many arrivals.
const IN_FLIGHT: usize = 12;
const ARRIVAL: Duration = Duration::from_millis(10);

/// What came of many requests over a pool of which one worker answers 429 at once.
struct Seen {
    attempts: u64,
    refused: u64,
    served: u64,
}

fn run(policy: &'static str, retry_after: Duration) -> Seen {
    let mut config = config(&URLS);
    config.rules = Rules::default();
    config.rules.default = config.rules.policy(policy).expect("a policy's name");
    let mut rig = Rig::new(config);
    rig.alive.extend(URLS.map(str::to_owned));
    rig.settle();
    let snapshot = rig.snapshot.clone();
    let pool = Arc::clone(&snapshot.fleet.pools[0]);
    let mut replica = Replica::new(1);
    let mut full = FullWorkers::default();
    let mut in_flight = std::collections::VecDeque::new();
    let mut seen = Seen { attempts: 0, refused: 0, served: 0 };
    for number in 0..REQUESTS {
        rig.now += ARRIVAL;
        let now_ms = rig.now.as_millis() as u64;
        full.let_off(now_ms, |_| true);
        if in_flight.len() >= IN_FLIGHT {
            drop(in_flight.pop_front());
        }
        let blocks = [number << 8, number << 8 | 1];
        let mut tried: Vec<WorkerId> = Vec::new();
        loop {
            let request = Request {
                blocks: if pool.policy.reads_prompt() { &blocks } else { &[] },
                prompt_bytes: 256,
                keys: Keys::default(),
                excluded: &tried,
                must_continue: false,
                tick: rig.now.as_secs() as u32,
            };
            let picked = pick(&mut replica, &snapshot, &pool, &request, Some(&BREAKER));
            let (choice, pass) = picked.expect("somebody serves");
            let hold = Hold::begin(choice.worker, Claim { prompt_bytes: 256, uncached_bytes: 256 }, pass);
            seen.attempts += 1;
            if &*hold.worker().url != BUSY {
                seen.served += 1;
                in_flight.push_back(hold);
                break;
            }
            seen.refused += 1;
            full.press(hold.worker(), retry_after, now_ms);
            tried.push(hold.worker().id);
        }
    }
    drop(in_flight);
    full.let_off(u64::MAX >> 8, |_| true);
    assert!(full.is_empty());
    assert!(pool.members.iter().all(|&index| pool.board.cost(index).is_some_and(|cost| cost < FULL)));
    seen
}

#[test]
fn who_refuses_at_once_gets_a_trickle() {
    for policy in ["cache_aware", "least_load", "power_of_two", "prefixaware", "bucket", "prefix_hash"] {
        let seen = run(policy, Duration::ZERO);
        assert_eq!(seen.served, REQUESTS, "{policy}");
        // Twenty seconds, and four once its pauses have grown.
        assert!((1..=15).contains(&seen.refused), "{policy}: {} of {}", seen.refused, seen.attempts);
        let seen = run(policy, Duration::from_secs(10));
        assert!((1..=2).contains(&seen.refused), "{policy}: {} within two pauses", seen.refused);
    }
}
