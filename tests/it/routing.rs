//! Which worker gets a request: exact turns over shards, conversations that stick, and every policy's reach.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use engine_sim::EngineHandle;
use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::wait;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::Setup;
use crate::setup::binary;
use crate::setup::chat;
use crate::setup::engine;
use crate::setup::on_every_setup;

/// Holds a few conversations, not all of them.
const CACHE_BLOCKS: usize = 800;
/// Many, so that what chance gives is about the same every time.
const CONVERSATIONS: usize = 32;

on_every_setup! {
    round_robin_is_exact_over_a_thousand_fresh_connections
    a_conversation_sticks_whichever_shard_it_arrives_on
}

fn start(launch: Launch, workers: &[Worker]) -> Gateway {
    workers.iter().fold(launch, |launch, worker| launch.worker(worker.url())).start()
}

/// Client connections each shard has accepted.
fn connections_by_shard(gateway: &Gateway, shards: usize) -> Vec<f64> {
    let metrics = gateway.metrics();
    (0..shards)
        .map(|shard| metrics.sum("smg_shard_connections_total", &[&format!("shard=\"{shard}\"")]))
        .collect()
}

/// Asks over a fresh connection and says which worker answered.
#[track_caller]
fn asked(addr: SocketAddr, request: &Request) -> String {
    let response = Client::connect(addr).ask(request);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["worker"].as_str().expect("a worker").to_owned()
}

fn round_robin_is_exact_over_a_thousand_fresh_connections(setup: Setup) {
    let workers: Vec<Worker> = (0..4).map(|_| Worker::answering()).collect();
    let gateway = start(setup.launch().flag("--log-level", "warn"), &workers);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..1000 {
        *counts.entry(asked(gateway.addr(), &chat("hello"))).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [250; 4], "{counts:?}");
    let by_shard = connections_by_shard(&gateway, setup.shards);
    assert!(by_shard.iter().all(|&count| count > 0.0), "{by_shard:?}");
}

/// The request of a conversation's nth turn: all that was said before, and a bit more.
fn turn(conversation: usize, turns: usize) -> Request {
    let message = |turn: usize| {
        let text = format!("Conversation {conversation}, turn {turn}: ").repeat(20);
        format!("{{\"role\":\"user\",\"content\":\"{text}\"}}")
    };
    let messages: Vec<String> = (0..turns).map(message).collect();
    Request::json(CHAT, format!("{{\"model\":\"mock\",\"messages\":[{}]}}", messages.join(",")))
}

fn a_conversation_sticks_whichever_shard_it_arrives_on(setup: Setup) {
    let workers: Vec<Worker> = (0..4).map(|_| Worker::answering()).collect();
    let launch = binary().flag("--shards", setup.shards).flag("--io-driver", setup.driver);
    let gateway = start(launch.flag("--policy", "cache_aware"), &workers);
    let known = || gateway.metrics().sum("smg_prefix_tree_blocks", &[]);
    let mut homes: BTreeMap<String, usize> = BTreeMap::new();
    for conversation in 0..4 {
        let before = connections_by_shard(&gateway, setup.shards);
        let mut home = None;
        // Every turn comes over a fresh connection, until every shard has had two.
        for turns in 1.. {
            let known_before = known();
            let at = asked(gateway.addr(), &turn(conversation, turns));
            assert_eq!(
                home.get_or_insert_with(|| at.clone()),
                &at,
                "turn {turns} of conversation {conversation}"
            );
            // What one shard placed, the others know once control has published it.
            wait::until("the placement is published", || known() > known_before);
            let now = connections_by_shard(&gateway, setup.shards);
            if now.iter().zip(&before).all(|(now, before)| now - before >= 2.0) {
                break;
            }
        }
        *homes.entry(home.expect("a first turn")).or_default() += 1;
    }
    assert_eq!(homes.values().copied().collect::<Vec<_>>(), [1; 4], "new conversations spread: {homes:?}");
    gateway.wait_idle();
}

#[test]
fn random_and_power_of_two_reach_every_worker() {
    for policy in ["random", "power_of_two"] {
        let workers: Vec<Worker> = (0..4).map(|_| Worker::answering()).collect();
        let gateway = start(binary().flag("--policy", policy), &workers);
        let mut client = gateway.client();
        for _ in 0..200 {
            assert_eq!(client.ask(&chat("hello")).status, 200);
        }
        for worker in &workers {
            let share = worker.received().len();
            assert!((20..=90).contains(&share), "{policy}: {share} of 200 at one of four workers");
        }
    }
}

#[test]
fn power_of_two_avoids_the_loaded_worker() {
    let (busy, idle) = (Worker::manual(), Worker::answering());
    // What engines say of requests that are not ours is another matter.
    let launch = binary().flag("--policy", "power_of_two").flag("--load-monitor-interval", 0);
    let gateway = launch.worker(busy.url()).worker(idle.url()).start();
    // One request that stays: from now on the other worker is lighter.
    let mut stuck = Vec::new();
    let held = wait::some("a request at the worker that does not answer", || {
        let mut client = gateway.client();
        client.send(&chat("hello").bytes());
        wait::until("it is at a worker", || client.has_answer() || gateway.load_of(&busy.url()) == Some(1));
        stuck.push(client);
        busy.exchange_now()
    });
    for _ in 0..50 {
        assert_eq!(asked(gateway.addr(), &chat("hello")), idle.url());
    }
    drop(held);
}

#[test]
fn load_counts_requests_in_flight_under_every_policy() {
    for policy in ["random", "round_robin", "power_of_two", "cache_aware"] {
        let workers = [Worker::manual(), Worker::manual()];
        let launch = binary().flag("--policy", policy);
        let gateway = workers.iter().fold(launch, |launch, worker| launch.worker(worker.url())).start();
        let clients: Vec<Client> = (0..6)
            .map(|_| {
                let mut client = gateway.client();
                client.send(&chat("hello").bytes());
                client
            })
            .collect();
        wait::until("all six are counted", || {
            let loads = gateway.workers();
            loads.iter().filter_map(|worker| worker["load"].as_i64()).sum::<i64>() == 6
        });
        drop(clients);
        gateway.wait_idle();
    }
}

/// Share of prompt tokens that engines found in their caches, over conversations whose turns alternate.
fn hit_rate(policy: &str) -> f64 {
    let engines: Vec<EngineHandle> = (0..4).map(|_| engine(CACHE_BLOCKS)).collect();
    let launch = binary().flag("--policy", policy);
    let gateway = engines.iter().fold(launch, |launch, engine| launch.worker(engine.url())).start();
    let mut client = gateway.client();
    for turns in 1..=6 {
        for conversation in 0..CONVERSATIONS {
            assert_eq!(client.ask(&turn(conversation, turns)).status, 200);
        }
    }
    let stats: Vec<_> = engines.iter().map(EngineHandle::stats).collect();
    let cached: u64 = stats.iter().map(|stats| stats.cached_tokens).sum();
    let prompt: u64 = stats.iter().map(|stats| stats.prompt_tokens).sum();
    cached as f64 / prompt as f64
}

#[test]
fn cache_aware_hits_engine_caches_far_more_often_than_chance() {
    let (aware, random) = (hit_rate("cache_aware"), hit_rate("random"));
    // Chance gives 0.31, with a deviation of 0.02 over so many turns; always the same engine, 0.69.
    assert!(aware > 0.6 && random < 0.5, "cache_aware {aware:.2}, random {random:.2}");
}
