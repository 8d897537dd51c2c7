//! How long it takes until a worker sees that a client has left, in each phase of a request.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::client::Client;
use crate::client::Request;
use crate::gateway::Gateway;
use crate::gateway::Launch;
use crate::wait;
use crate::worker::Worker;

/// Where a request stands when its client leaves. In the first two no worker knows of it: there it is told by the
/// gateway's own gauges, whose page is asked for again and again.
pub const PHASES: [&str; 5] =
    ["its head sent", "in the queue", "before the first byte", "within a stream", "within a held body"];

/// Times by phase, ascending.
pub type Latencies = [Vec<Duration>; 5];

/// A gateway of one request at a time, and the worker behind it.
struct Stage {
    worker: Worker,
    gateway: Gateway,
    whole: Request,
    stream: Request,
}

/// Has clients leave in every phase, as long as `goes_on` says of the rounds made.
pub(super) fn measure(program: &Path, goes_on: impl Fn(usize) -> bool) -> Latencies {
    let worker = Worker::manual();
    let gateway = Launch::new(program)
        .flag("--shards", 2)
        .flag("--log-level", "warn")
        .flag("--max-concurrent-requests", 1)
        .worker(worker.url())
        .start();
    let request = |is_stream: bool| {
        let body = format!(r#"{{"model":"mock","stream":{is_stream},"messages":[]}}"#);
        Request::json("/v1/chat/completions", body)
    };
    let stage = Stage { worker, gateway, whole: request(false), stream: request(true) };
    let mut latencies = Latencies::default();
    let mut rounds = 0;
    while goes_on(rounds) {
        for (phase, times) in latencies.iter_mut().enumerate() {
            times.push(stage.leave(phase, rounds.is_multiple_of(2)));
            stage.gateway.wait_idle();
        }
        rounds += 1;
    }
    latencies.iter_mut().for_each(|times| times.sort_unstable());
    latencies
}

impl Stage {
    fn leave(&self, phase: usize, resets: bool) -> Duration {
        let mut client = self.gateway.client();
        let away = |client: Client| {
            let start = Instant::now();
            if resets {
                client.reset()
            } else {
                drop(client)
            }
            start
        };
        let gauge = |name: &str| self.gateway.metrics().sum(name, &[]);
        match phase {
            0 => {
                let bytes = self.whole.bytes();
                client.send(&bytes[..bytes.len() - 1]);
                wait::until("the request is counted", || gauge("smg_http_requests_active") == 1.0);
                let start = away(client);
                self.poll(|| gauge("smg_http_requests_active") == 0.0);
                start.elapsed()
            }
            1 => {
                let mut first = self.gateway.client();
                first.send(&self.whole.bytes());
                let exchange = self.worker.exchange();
                client.send(&self.whole.bytes());
                wait::until("the request waits", || gauge("smg_scheduler_queue_depth") == 1.0);
                let start = away(client);
                self.poll(|| gauge("smg_scheduler_queue_depth") == 0.0);
                let elapsed = start.elapsed();
                drop(first);
                exchange.wait_closed();
                elapsed
            }
            2 => {
                client.send(&self.whole.bytes());
                let exchange = self.worker.exchange();
                let start = away(client);
                exchange.wait_closed();
                start.elapsed()
            }
            3 => {
                client.send(&self.stream.bytes());
                let mut exchange = self.worker.exchange();
                exchange.open_stream();
                exchange.event("1");
                let _ = client.head();
                let _ = client.event();
                let start = away(client);
                exchange.wait_closed();
                start.elapsed()
            }
            _ => {
                client.send(&self.whole.bytes());
                let mut exchange = self.worker.exchange();
                exchange.send(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
                );
                let start = away(client);
                exchange.wait_closed();
                start.elapsed()
            }
        }
    }

    /// Looks without a pause.
    fn poll(&self, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < wait::DEADLINE, "the gateway keeps a request whose client has left");
        }
    }
}
