//! Slow workers: who takes much longer than the others gets no requests for a while, and everybody can see why.

use std::time::Duration;

use engine_sim::EngineConfig;
use engine_sim::EngineHandle;
use testkit::client::Request;
use testkit::gateway::Signal;
use testkit::place;
use testkit::wait;

use crate::setup::CHAT;
use crate::setup::PLAIN;

/// Streams at each worker: enough for a mean.
const STREAMS: usize = 8;
/// Far beyond what the slow one says within the test.
const TOKENS: u32 = 400;

fn engine(decode_tokens_per_s: f64) -> EngineHandle {
    engine_sim::spawn(EngineConfig {
        model_id: "mock".to_owned(),
        prefill_tokens_per_s: f64::INFINITY,
        base_ttft: Duration::ZERO,
        decode_tokens_per_s,
        ..EngineConfig::default()
    })
    .expect("an engine starts")
}

#[test]
fn a_slow_worker_is_ejected_and_a_reload_can_bring_it_back() {
    let (slow, others) = (engine(2.0), [engine(40.0), engine(40.0)]);
    let file = place::temporary("ejection.toml");
    std::fs::write(&file, "slow-worker-factor = 4.0").expect("a file is written");
    let launch = others.iter().fold(PLAIN.launch(), |launch, engine| launch.worker(engine.url()));
    let gateway = launch.worker(slow.url()).flag("--config", file.display()).start();
    let body = format!(
        "{{\"model\":\"mock\",\"stream\":true,\"max_tokens\":{TOKENS},\
         \"messages\":[{{\"role\":\"user\",\"content\":\"Tell me.\"}}]}}"
    );
    // They stay open and are not read: the kernel holds what comes.
    let mut clients: Vec<_> = (0..3 * STREAMS).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&Request::json(CHAT, body.clone()).bytes()));
    wait::until("the slow one is ejected, and no other", || {
        let mut workers = gateway.workers();
        workers.retain(|worker| !worker["ejected"].is_null());
        workers.len() == 1 && workers[0]["url"] == slow.url()
    });
    let shown =
        gateway.workers().into_iter().find(|worker| worker["url"] == slow.url()).expect("it is shown");
    assert_eq!((&shown["ejected"]["measure"], &shown["is_healthy"]), (&"inter_token".into(), &false.into()));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_worker_ejections_total", &["measure=\"inter_token\""]), 1.0);
    assert_eq!(metrics.sum("smg_workers_ejected", &[]), 1.0);
    assert_eq!(gateway.get("/readiness").json()["healthy_workers"], 2);
    wait::until("the log says why", || gateway.has_logged(&["WARN", "ejected", &slow.url(), "median_ms"]));
    std::fs::write(&file, "slow-worker-factor = 0.0").expect("a file is written");
    gateway.signal(Signal::HUP);
    wait::until("it is back", || gateway.get("/readiness").json()["healthy_workers"] == 3);
    assert_eq!(gateway.metrics().sum("smg_workers_ejected", &[]), 0.0);
    drop(clients);
    gateway.wait_idle();
    // Gone already, if somebody else tidied up.
    let _ = std::fs::remove_file(&file);
}
