//! One core's connections: each asks, waits for the answer, and asks again.
//!
//! At an open rate, arrivals are drawn ahead and taken in order by whichever connection is free; a request
//! is timed from its arrival, so that waiting for a free connection counts.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_lite::future::or;
use glommio::timer::Timer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{Client, Exchanged};
use crate::clock;
use crate::load::Load;
use crate::progress::Counters;
use crate::record::{Failure, Record};
use crate::shape::{Source, corpus};
use crate::target::Target;

/// Pause after a refused connection, so that a dead target is not asked in a busy loop.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
/// Separates the arrivals' random numbers from the texts'.
const SALT_ARRIVALS: u64 = 0xa221_7a15;

/// One core's share of a run.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) load: Load,
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    /// Which of the cores this is.
    pub(crate) index: usize,
    pub(crate) counters: Arc<Counters>,
}

/// What this core's connections share.
struct Shared {
    share: Share,
    started_at: Instant,
    schedule: RefCell<Schedule>,
    record: RefCell<Record>,
}

/// Says which request may start when.
struct Schedule {
    random: StdRng,
    rate_per_s: Option<f64>,
    requests_left: Option<u64>,
    ends_at: Option<Instant>,
    next_arrival_at: Instant,
}

/// Makes this core's load and returns what it measured.
pub(crate) async fn drive(share: Share) -> Record {
    let started_at = clock::now();
    let corpus = corpus(share.load.seed);
    let schedule = RefCell::new(Schedule::new(&share, started_at));
    let shared = Rc::new(Shared { share, started_at, schedule, record: RefCell::default() });
    let load = &shared.share.load;
    let connections: Vec<_> = (0..load.connections)
        .map(|index| {
            let name = (shared.share.index * 1_000_000 + index) as u64;
            let source = Source::new(load, Rc::clone(&corpus), name);
            glommio::spawn_local(connection(Rc::clone(&shared), source))
        })
        .collect();
    for connection in connections {
        connection.await;
    }
    let mut record = shared.record.take();
    // A timed run that was answered early lasted as long as it was asked.
    if let (Some(duration), None) = (load.duration, load.requests_max) {
        record.elapsed = record.elapsed.max(duration);
    }
    record
}

async fn connection(shared: Rc<Shared>, mut source: Source) {
    let load = &shared.share.load;
    let streams = load.streams || load.shape.always_streams();
    let mut client = Client::new(shared.share.address, request_head(&shared.share));
    let mut conversation = None;
    loop {
        // Not in the loop's condition: the borrow must end before the first wait.
        let arrival = shared.schedule.borrow_mut().next(clock::now());
        let Some(started_at) = arrival else { break };
        wait_until(started_at).await;
        let asked = conversation.get_or_insert_with(|| source.conversation());
        let body = asked.body(&load.model, load.answer_tokens_max, streams);
        let exchanged = in_time(&mut client, &body, streams, load.timeout).await;
        let is_connect_failure = matches!(exchanged.result, Err(Failure::Connect));
        let is_over = match shared.keep(&exchanged, started_at) {
            Some(answer) => !source.go_on(asked, answer),
            None => true,
        };
        if is_over {
            conversation = None;
        }
        if is_connect_failure {
            Timer::new(CONNECT_PAUSE).await;
        }
    }
    shared.record.borrow_mut().reconnects += client.reconnects;
}

async fn in_time(client: &mut Client, body: &str, streams: bool, timeout: Duration) -> Exchanged {
    let late = async {
        Timer::new(timeout).await;
        Exchanged { result: Err(Failure::Timeout), ended_at: clock::now() }
    };
    let exchanged = or(client.exchange(body, streams), late).await;
    if matches!(exchanged.result, Err(Failure::Timeout)) {
        client.close();
    }
    exchanged
}

async fn wait_until(due: Instant) {
    let wait = due.saturating_duration_since(clock::now());
    if !wait.is_zero() {
        Timer::new(wait).await;
    }
}

fn request_head(share: &Share) -> String {
    let path = share.load.api.path();
    let key = share.load.api_key.as_ref();
    let authorization = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!(
        "POST {}{path} HTTP/1.1\r\nhost: {}\r\n{authorization}content-type: application/json\r\ncontent-length: ",
        share.target.base_path, share.target.authority
    )
}

// === impl Shared ===

impl Shared {
    /// Records an exchange; the text of its answer, if it has one.
    fn keep<'a>(&self, exchanged: &'a Exchanged, started_at: Instant) -> Option<&'a str> {
        let at = exchanged.ended_at - self.started_at;
        let mut record = self.record.borrow_mut();
        match &exchanged.result {
            Ok(answer) => {
                let total = exchanged.ended_at - started_at;
                let ttft = answer.first_event_at.map(|first| first - started_at);
                record.add_answer(answer, total, ttft, at);
                self.share.counters.answered.fetch_add(1, Ordering::Relaxed);
                Some(&answer.text)
            }
            Err(failure) => {
                record.add_failure(*failure, at);
                self.share.counters.failed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

// === impl Schedule ===

impl Schedule {
    fn new(share: &Share, now: Instant) -> Schedule {
        let load = &share.load;
        Schedule {
            random: StdRng::seed_from_u64(load.seed ^ SALT_ARRIVALS ^ ((share.index as u64) << 32)),
            rate_per_s: load.rate_per_s,
            requests_left: load.requests_max,
            ends_at: load.duration.map(|duration| now + duration),
            next_arrival_at: now,
        }
    }

    /// When the next request starts; none when no more do.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        let starts_at = match self.rate_per_s {
            Some(rate_per_s) => {
                let uniform: f64 = self.random.random();
                let gap = -(1.0 - uniform).ln() / rate_per_s;
                self.next_arrival_at +=
                    Duration::try_from_secs_f64(gap).unwrap_or(Duration::from_secs(3_600));
                self.next_arrival_at
            }
            None => now,
        };
        if self.ends_at.is_some_and(|end| starts_at >= end) {
            return None;
        }
        if let Some(left) = &mut self.requests_left {
            *left = left.checked_sub(1)?;
        }
        Some(starts_at)
    }
}
