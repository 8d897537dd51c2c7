//! Classes of priority: who goes first, and who has to make room.

use testkit::client::Client;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::worker::Exchange;
use testkit::worker::Worker;

use super::expect_refused;
use super::in_flight;
use super::text;
use super::wait_empty;
use super::waits;
use crate::reload::File;
use crate::setup::Setup;
use crate::setup::chat;
use crate::setup::chat_stream;
use crate::setup::on_every_setup;

on_every_setup! {
    higher_classes_go_first
    a_higher_class_takes_the_place_of_the_newest_that_was_not_answered
    nothing_that_has_begun_to_answer_makes_room
}

fn higher_classes_go_first(setup: Setup) {
    let worker = Worker::manual();
    // Nobody has to make room: this is about who waits.
    let classes = "classes: {system: {preempt: false}, interactive: {preempt: false}}";
    let classes = File::named("classes.yaml", classes);
    let gateway = setup
        .launch()
        .worker(worker.url())
        .flag("--max-concurrent-requests", 1)
        .switch("--priority-scheduler-enabled")
        .flag("--priority-scheduler-config", classes.path().display())
        .flag("--priority-scheduler-default-max-class", "interactive")
        .start();
    let ask = |class: &str| chat(&format!("as {class};")).header("x-smg-priority", class);
    let mut first = gateway.client();
    first.send(&chat("first").bytes());
    let mut exchange = worker.exchange();
    // Of two in the same class the first to come is the first to go; `system` is beyond what may be asked for.
    let order = ["interactive", "System", "urgent", "bulk"];
    let waiting: Vec<Client> =
        order.iter().rev().zip(1..).map(|(class, at)| waits(&gateway, &ask(class), at)).collect();
    for class in ["System", "interactive", "urgent", "bulk"] {
        exchange.answer("{}");
        exchange = worker.exchange();
        assert!(text(&exchange).contains(&format!("as {class};")), "{class}: {}", text(&exchange));
    }
    exchange.answer("{}");
    for mut client in waiting {
        assert_eq!(client.response().status, 200);
    }
    wait_empty(&gateway);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_scheduler_clamp_total", &[]), 1.0);
    assert_eq!(metrics.sum("smg_scheduler_unknown_priority_value_total", &[]), 1.0);
    let interactive = ["class=\"interactive\"", "outcome=\"admitted\""];
    assert_eq!(metrics.sum("smg_scheduler_admit_total", &interactive), 2.0);
}

fn by_class(setup: Setup, worker: &Worker, places: u32) -> Launch {
    setup
        .launch()
        .worker(worker.url())
        .flag("--max-concurrent-requests", places)
        .switch("--priority-scheduler-enabled")
        .flag("--priority-scheduler-default-max-class", "system")
}

/// Sends a request of a class, and waits until it is at the worker.
#[track_caller]
fn begins(gateway: &Gateway, worker: &Worker, class: &str) -> (Client, Exchange) {
    let mut client = gateway.client();
    client.send(&chat(&format!("as {class};")).header("x-smg-priority", class).bytes());
    let exchange = worker.exchange();
    assert!(text(&exchange).contains(&format!("as {class};")), "{}", text(&exchange));
    (client, exchange)
}

#[track_caller]
fn expect_preempted(client: &mut Client) {
    let response = client.response();
    expect_refused(&response, 503, "scheduler_preempted");
    let said = |name| response.headers.get(name);
    assert_eq!((said("retry-after"), said("x-smg-preempted")), (Some("1"), Some("true")));
}

fn a_higher_class_takes_the_place_of_the_newest_that_was_not_answered(setup: Setup) {
    const ROUNDS: u32 = 6;
    let worker = Worker::manual();
    let gateway = by_class(setup, &worker, 3).start();
    // Connections go to whichever shard: over the rounds to the same one and to another.
    for _ in 0..ROUNDS {
        let (mut older, older_exchange) = begins(&gateway, &worker, "bulk");
        let (mut newer, newer_exchange) = begins(&gateway, &worker, "bulk");
        let (mut default, default_exchange) = begins(&gateway, &worker, "default");
        let (mut first, first_exchange) = begins(&gateway, &worker, "interactive");
        newer_exchange.wait_closed();
        expect_preempted(&mut newer);
        let (mut second, second_exchange) = begins(&gateway, &worker, "system");
        older_exchange.wait_closed();
        expect_preempted(&mut older);
        let (mut third, third_exchange) = begins(&gateway, &worker, "interactive");
        default_exchange.wait_closed();
        expect_preempted(&mut default);
        assert_eq!(in_flight(&gateway), 3.0);
        for exchange in [first_exchange, second_exchange, third_exchange] {
            exchange.answer("{}");
        }
        for client in [&mut first, &mut second, &mut third] {
            assert_eq!(client.response().status, 200);
        }
        // Who had to make room may come again over the same connection.
        newer.send(&chat("again").bytes());
        worker.exchange().answer("{}");
        assert_eq!(newer.response().status, 200);
        wait_empty(&gateway);
    }
    let metrics = gateway.metrics();
    let preempted =
        |class: &str| metrics.sum("smg_scheduler_preempt_total", &[&format!("class=\"{class}\"")]);
    let rounds = f64::from(ROUNDS);
    assert_eq!(["system", "interactive", "default", "bulk"].map(preempted), [0.0, 0.0, rounds, 2.0 * rounds]);
}

fn nothing_that_has_begun_to_answer_makes_room(setup: Setup) {
    let worker = Worker::manual();
    let gateway = by_class(setup, &worker, 2).start();
    for _ in 0..4 {
        let mut stream = gateway.client();
        stream.send(&chat_stream("hello").header("x-smg-priority", "bulk").bytes());
        let mut stream_exchange = worker.exchange();
        stream_exchange.open_stream();
        stream_exchange.event("1");
        assert_eq!(stream.head().0, 200);
        // Its answer has begun to come, and nothing of it has gone to the client.
        let (mut held, mut held_exchange) = begins(&gateway, &worker, "bulk");
        held_exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        );
        let (mut first, first_exchange) = begins(&gateway, &worker, "interactive");
        held_exchange.wait_closed();
        expect_preempted(&mut held);
        let system = chat("as system;").header("x-smg-priority", "system");
        // One that does not preempt waits, and so does one that does once nobody is left.
        let mut waiting_default = waits(&gateway, &chat("as default;"), 1);
        let (mut second, second_exchange) = begins(&gateway, &worker, "system");
        first_exchange.wait_closed();
        expect_preempted(&mut first);
        let mut waiting_system = waits(&gateway, &system, 2);
        stream_exchange.event("2");
        assert_eq!((stream.event(), stream.event()), (Some("data: 1".into()), Some("data: 2".into())));
        stream_exchange.close_stream();
        assert_eq!(stream.events(), ["[DONE]"]);
        let next = worker.exchange();
        assert!(text(&next).contains("as system;"), "the higher class first");
        second_exchange.answer("{}");
        let last = worker.exchange();
        next.answer("{}");
        last.answer("{}");
        for client in [&mut second, &mut waiting_system, &mut waiting_default] {
            assert_eq!(client.response().status, 200);
        }
        wait_empty(&gateway);
    }
}
