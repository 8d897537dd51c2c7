//! Limits that change while the gateway runs, and what tenants may have in a minute.

use testkit::client::Client;
use testkit::client::Request;
use testkit::wait;
use testkit::worker::Worker;

use super::depth;
use super::expect_refused;
use super::in_flight;
use super::text;
use super::wait_empty;
use super::waits;
use crate::reload::File;
use crate::reload::reload;
use crate::setup::CHAT;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::on_every_setup;

on_every_setup! {
    limits_change_while_requests_wait
    tenants_have_their_minutes_worth
}

fn limits_change_while_requests_wait(setup: Setup) {
    let worker = Worker::manual();
    let limits = |places: u32, queue: u32| {
        format!("max-concurrent-requests = {places}\nqueue-size = {queue}\nqueue-timeout-secs = 20\n")
    };
    let file = File::new(&limits(1, 3));
    let gateway = setup.launch().worker(worker.url()).flag("--config", file.path().display()).start();
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let mut exchanges = vec![worker.exchange()];
    let mut clients: Vec<Client> =
        (1..=3).map(|at| waits(&gateway, &chat(&format!("number {at};")), at)).collect();
    expect_refused(&gateway.ask(&chat("refused")), 429, "scheduler_queue_full");
    // More places: those who wait come in, in their order.
    file.write(&limits(3, 3));
    reload(&gateway, "done");
    for at in 1..=2 {
        exchanges.push(worker.exchange());
        let text = text(&exchanges[at]);
        assert!((1..=2).any(|at| text.contains(&format!("number {at};"))), "{text}");
    }
    wait::until("one waits still", || depth(&gateway) == 1.0 && in_flight(&gateway) == 3.0);
    // Fewer, and no queue: who is in flight or waits stays, and nobody else comes in.
    file.write(&limits(1, 0));
    reload(&gateway, "done");
    expect_refused(&gateway.ask(&chat("refused")), 429, "scheduler_queue_full");
    exchanges.remove(2).answer("{}");
    exchanges.remove(1).answer("{}");
    wait::until("one is left", || in_flight(&gateway) == 1.0);
    assert!(worker.exchange_now().is_none() && depth(&gateway) == 1.0);
    // A limit cannot go away, and a reload that asks for it changes nothing.
    file.write("max-concurrent-requests = -1\n");
    reload(&gateway, "refused");
    exchanges.remove(0).answer("{}");
    let last = worker.exchange();
    assert!(text(&last).contains("number 3;"));
    last.answer("{}");
    clients.push(first);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    wait_empty(&gateway);
}

fn tenants_have_their_minutes_worth(setup: Setup) {
    let worker = Worker::answering();
    let policy = |requests: u32| {
        format!(
            "default_policy: {{requests_per_minute: {requests}}}\n\
             tenants:\n  - {{tenant_key: 'header:big', requests_per_minute: 1000, tokens_per_minute: 2000}}\n"
        )
    };
    let file = File::named("tenants.yaml", &policy(3));
    let gateway = setup
        .launch()
        .worker(worker.url())
        .switch("--trust-tenant-header")
        .switch("--tenant-rate-limit-enabled")
        .flag("--tenant-rate-limit-config", file.path().display())
        .start();
    let ask = |tenant: &str| chat("hello").header("x-smg-tenant-id", tenant);
    // Connections of their own, so that both shards are asked.
    for _ in 0..3 {
        assert_eq!(gateway.ask(&ask("a")).status, 200);
    }
    let refused = gateway.ask(&ask("a"));
    assert_eq!((refused.status, refused.error_code().as_deref()), (429, Some("tenant_rate_limit_exceeded")));
    let retry_after: u32 =
        refused.headers.get("retry-after").and_then(|it| it.parse().ok()).expect("seconds");
    assert!((1..=20).contains(&retry_after), "{retry_after}");
    assert_eq!(gateway.ask(&ask("b")).status, 200, "another has its own");
    // A thousand tokens are reserved, and the answer takes few of them.
    let body =
        "{\"model\":\"mock\",\"max_tokens\":1500,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    let long = Request::json(CHAT, body).header("x-smg-tenant-id", "big");
    for _ in 0..5 {
        assert_eq!(gateway.ask(&long).status, 200, "what was not used comes back");
        gateway.wait_idle();
    }
    worker.answer_with(&testkit::worker::json_answer("{\"usage\":{\"total_tokens\":100000}}"));
    assert_eq!(gateway.ask(&long).status, 200);
    gateway.wait_idle();
    assert_eq!(gateway.ask(&long).status, 429, "what was used beyond is owed");
    file.write(&policy(100));
    reload(&gateway, "done");
    wait::until("the new limit holds", || gateway.ask(&ask("a")).status == 200);
}
