//! `--stream-resume`: whatever token its worker dies at, the client's text is the undisturbed one.

use engine_sim::EngineHandle;
use engine_sim::FaultPlan;
use serde_json::Value;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::worker::Worker;

use crate::setup::CHAT;
use crate::setup::PLAIN;
use crate::setup::Setup;
use crate::setup::chat_stream;
use crate::setup::engine;
use crate::setup::on_every_setup;

const TOKENS: u64 = 12;
/// More than all prompts here.
const CACHE_BLOCKS: usize = 400;
const COMPLETIONS: &str = "/v1/completions";

on_every_setup! {
    a_worker_that_dies_at_any_token_is_not_noticed
    a_stream_goes_on_through_several_deaths
}

fn start(setup: Setup, engines: &[&EngineHandle]) -> Gateway {
    let launch = setup
        .launch()
        .switch("--stream-resume")
        .switch("--disable-circuit-breaker")
        .flag("--retry-initial-backoff-ms", 1)
        .flag("--retry-budget-percent", 100);
    engines.iter().fold(launch, |launch, engine| launch.worker(engine.url())).start()
}

fn requests() -> [Request; 2] {
    let options =
        format!("\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\"max_tokens\":{TOKENS}");
    [
        Request::json(CHAT, format!(r#"{{"messages":[{{"role":"user","content":"Tell me."}}],{options}}}"#)),
        Request::json(COMPLETIONS, format!(r#"{{"prompt":"Once upon a time:",{options}}}"#)),
    ]
}

/// What a client makes of a stream.
#[derive(Debug, PartialEq)]
struct Heard {
    text: String,
    ids: usize,
    roles: usize,
    reasons: Vec<String>,
    usage: Value,
}

fn hear(gateway: &Gateway, request: &Request) -> Heard {
    let mut client = gateway.client();
    client.send(&request.bytes());
    assert_eq!(client.head().0, 200);
    let events = client.events();
    let (done, events) = events.split_last().expect("a last event");
    assert_eq!(done, "[DONE]", "{events:?}");
    let chunks: Vec<Value> = events
        .iter()
        .filter(|event| !event.starts_with(':'))
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect();
    let mut ids: Vec<&str> = chunks.iter().filter_map(|chunk| chunk["id"].as_str()).collect();
    ids.dedup();
    let choices = || chunks.iter().map(|chunk| &chunk["choices"][0]);
    let text = |choice: &Value| {
        let text = if choice["text"].is_null() { &choice["delta"]["content"] } else { &choice["text"] };
        text.as_str().unwrap_or_default().to_owned()
    };
    Heard {
        text: choices().map(text).collect(),
        ids: ids.len(),
        roles: choices().filter(|choice| choice["delta"]["role"].is_string()).count(),
        reasons: choices().filter_map(|choice| choice["finish_reason"].as_str().map(str::to_owned)).collect(),
        usage: chunks
            .iter()
            .map(|chunk| chunk["usage"].clone())
            .find(|usage| !usage.is_null())
            .unwrap_or_default(),
    }
}

fn dying_after(events: u64) -> FaultPlan {
    FaultPlan { close_mid_rate: 1.0, close_mid_events: events, ..FaultPlan::default() }
}

fn a_worker_that_dies_at_any_token_is_not_noticed(setup: Setup) {
    let (dying, well) = (engine(CACHE_BLOCKS), engine(CACHE_BLOCKS));
    let gateway = start(setup, &[&dying, &well]);
    for request in requests() {
        let mut undisturbed = hear(&gateway, &request);
        assert_eq!((undisturbed.usage["completion_tokens"].as_u64(), undisturbed.ids), (Some(TOKENS), 1));
        // What of the prompt an engine finds in its cache is its own matter.
        undisturbed.usage["prompt_tokens_details"] = Value::Null;
        for events in 0..=TOKENS + 1 {
            dying.set_faults(dying_after(events));
            // Both engines have a turn at being the first.
            for _ in 0..2 {
                let mut heard = hear(&gateway, &request);
                heard.usage["prompt_tokens_details"] = Value::Null;
                let is_over = heard.usage["completion_tokens"].is_null();
                if is_over {
                    // It died when all was said, and took the usage with it.
                    heard.usage = undisturbed.usage.clone();
                }
                assert_eq!(heard, undisturbed, "died after {events} events");
            }
        }
        dying.set_faults(FaultPlan::default());
    }
    let metrics = gateway.metrics();
    let resumed = metrics.sum("smg_http_streams_resumed_total", &[]);
    assert!(resumed >= 2.0 * (TOKENS - 2) as f64, "{resumed} resumed");
    assert_eq!(metrics.sum("smg_http_broken_responses_total", &[]), 0.0);
    gateway.wait_idle();
}

fn a_stream_goes_on_through_several_deaths(setup: Setup) {
    let engines = [engine(CACHE_BLOCKS), engine(CACHE_BLOCKS), engine(CACHE_BLOCKS)];
    let gateway = start(setup, &[&engines[0], &engines[1], &engines[2]]);
    for request in requests() {
        let undisturbed = hear(&gateway, &request);
        // Each says four words at most.
        engines.iter().for_each(|engine| engine.set_faults(dying_after(4)));
        let heard = hear(&gateway, &request);
        assert_eq!((&heard.text, heard.ids, heard.roles), (&undisturbed.text, 1, undisturbed.roles));
        engines.iter().for_each(|engine| engine.set_faults(FaultPlan::default()));
    }
    gateway.wait_idle();
}

#[test]
fn what_is_not_safe_to_resume_ends_with_an_error_event() {
    let workers = [Worker::manual(), Worker::manual()];
    let gateway =
        PLAIN.launch().switch("--stream-resume").worker(workers[0].url()).worker(workers[1].url()).start();
    let request =
        Request::json(CHAT, r#"{"messages":[{"role":"user","content":"x"}],"stream":true,"tools":[{}]}"#);
    let mut client = gateway.client();
    client.send(&request.bytes());
    let mut exchange = testkit::wait::some("the request", || {
        workers[0].exchange_now().or_else(|| workers[1].exchange_now())
    });
    exchange.open_stream();
    exchange.event(r#"{"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}"#);
    assert_eq!(client.head().0, 200);
    assert!(client.event().is_some());
    exchange.reset();
    assert!(client.event().is_some_and(|event| event.contains("read_response_body_failed")));
    assert_eq!(client.event().as_deref(), Some("data: [DONE]"));
    gateway.wait_idle();
    assert_eq!(workers.map(|worker| worker.received().len()).iter().sum::<usize>(), 1);
}

#[test]
fn an_event_too_long_to_be_retold_ends_the_stream_with_an_error_event() {
    let workers = [Worker::manual(), Worker::manual()];
    let gateway = workers
        .iter()
        .fold(PLAIN.launch().switch("--stream-resume"), |launch, worker| launch.worker(worker.url()))
        .start();
    let asked = || {
        testkit::wait::some("the request", || workers[0].exchange_now().or_else(|| workers[1].exchange_now()))
    };
    let told = |id: &str, text: &str| format!(r#"{{"id":"{id}","choices":[{{"index":0,"text":"{text}"}}]}}"#);
    let mut client = gateway.client();
    client.send(&Request::json(COMPLETIONS, r#"{"prompt":"x","stream":true,"max_tokens":9}"#).bytes());
    let mut first = asked();
    first.open_stream();
    first.event(&told("1", "a"));
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event(), Some(format!("data: {}", told("1", "a"))));
    first.reset();
    let mut second = asked();
    second.open_stream();
    second.event(&told("2", "b"));
    assert_eq!(client.event().as_deref(), Some(": x-ringway-resumed: 1"));
    assert_eq!(client.event(), Some(format!("data: {}", told("1", "b"))));
    second.chunk(format!("data: {}", told("2", &"c".repeat(512 * 1024))).as_bytes());
    let rest = client.events();
    let error: Value = serde_json::from_str(&rest[0]).expect("JSON");
    assert_eq!((rest.len(), rest[1].as_str()), (2, "[DONE]"));
    assert_eq!(error["error"]["code"], "read_response_body_failed");
    gateway.wait_idle();
}

#[test]
fn without_the_flag_a_stream_that_breaks_off_ends_with_an_error_event() {
    let engines = [engine(CACHE_BLOCKS), engine(CACHE_BLOCKS)];
    let gateway = PLAIN.launch().worker(engines[0].url()).worker(engines[1].url()).start();
    engines.iter().for_each(|engine| engine.set_faults(dying_after(4)));
    let mut client = gateway.client();
    client.send(&chat_stream("hello").bytes());
    assert_eq!(client.head().0, 200);
    let events = client.events();
    assert!(events[events.len() - 2].contains("error"), "{events:?}");
    assert_eq!(gateway.metrics().sum("smg_http_streams_resumed_total", &[]), 0.0);
}
