//! How the gateway is started for a test, and the words most tests use.

use engine_sim::EngineConfig;
use engine_sim::EngineHandle;
use testkit::client::Client;
use testkit::client::Request;
use testkit::gateway::Gateway;
use testkit::gateway::Launch;
use testkit::worker::Exchange;
use testkit::worker::Worker;

/// The path most requests take.
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// One way to run the data plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) shards: usize,
    pub(crate) driver: &'static str,
}

/// What tests run on that care for neither shards nor drivers.
pub(crate) const PLAIN: Setup = Setup { shards: 1, driver: "auto" };

/// Makes a test of each function for every way to run the data plane.
macro_rules! on_every_setup {
    ($($body:ident)*) => {$(
        mod $body {
            use crate::setup::Setup;

            #[test]
            fn one_shard_uring() {
                super::$body(Setup { shards: 1, driver: "uring" });
            }

            #[test]
            fn two_shards_uring() {
                super::$body(Setup { shards: 2, driver: "uring" });
            }

            #[test]
            fn one_shard_epoll() {
                super::$body(Setup { shards: 1, driver: "epoll" });
            }

            #[test]
            fn two_shards_epoll() {
                super::$body(Setup { shards: 2, driver: "epoll" });
            }
        }
    )*};
}
pub(crate) use on_every_setup;

impl Setup {
    /// A gateway about to be started this way, round robin.
    pub(crate) fn launch(self) -> Launch {
        binary()
            .flag("--shards", self.shards)
            .flag("--io-driver", self.driver)
            .flag("--policy", "round_robin")
    }

    /// A gateway in front of these workers.
    #[track_caller]
    pub(crate) fn start(self, workers: &[&Worker]) -> Gateway {
        workers.iter().fold(self.launch(), |launch, worker| launch.worker(worker.url())).start()
    }
}

/// The binary with no flags at all but its addresses.
pub(crate) fn binary() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_ringway"))
}

/// A chat that is no stream.
pub(crate) fn chat(text: &str) -> Request {
    Request::json(
        CHAT,
        format!("{{\"model\":\"mock\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"),
    )
}

/// A simulated engine that takes no time and caches so many blocks of prompts.
pub(crate) fn engine(cache_blocks_max: usize) -> EngineHandle {
    engine_sim::spawn(EngineConfig {
        model_id: "mock".to_owned(),
        prefill_tokens_per_s: f64::INFINITY,
        base_ttft: std::time::Duration::ZERO,
        decode_tokens_per_s: f64::INFINITY,
        cache_blocks_max,
        ..EngineConfig::default()
    })
    .expect("an engine starts")
}

/// Begins a stream: its first event has gone from the worker to the client.
pub(crate) fn begin_stream(client: &mut Client, worker: &Worker) -> Exchange {
    client.send(&chat_stream("hello").bytes());
    let mut exchange = worker.exchange();
    exchange.open_stream();
    exchange.event("1");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.event().as_deref(), Some("data: 1"));
    exchange
}

/// A chat that is a stream.
pub(crate) fn chat_stream(text: &str) -> Request {
    let body = format!(
        "{{\"model\":\"mock\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
    );
    Request::json(CHAT, body)
}
