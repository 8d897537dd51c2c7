//! One request from its arrival to its end, in the steps that `shard::admit`, `shard::dispatch` and `shard::relay` take.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use fleet::admission::Claim as AdmissionClaim;
use fleet::admission::ClassId;
use fleet::admission::Entry;
use fleet::admission::Permit;
use fleet::admission::TenantId;
use fleet::admission::Ticket;
use fleet::admission::Verdict;
use fleet::blocks::bytes_covered;
use fleet::breaker::Outcome;
use fleet::id::WorkerId;
use fleet::report::Report;
use fleet::snapshot::Claim;
use fleet::stats::UpstreamFailure;
use policy::Keys;
use policy::Request;
use rand::RngExt;
use shard::pick::Hold;
use shard::pick::pick;
use shard::retry;
use shard::retry::Attempts;
use shard::retry::Failed;
use shard::retry::GiveUp;

use super::Shard;
use super::Simulation;
use super::engines::Mode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(2);
const INTER_TOKEN_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const TENANTS: u64 = 3;
const TENANT_TOKENS: u32 = 100;

pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) shard: usize,
    pub(super) class: ClassId,
    pub(super) tenant: TenantId,
    is_stream: bool,
    conversation: u64,
    /// When the client loses patience.
    leaves: Option<Duration>,
    deadline: Duration,
    pub(super) permit: Option<Permit>,
    pub(super) verdict: Option<Verdict>,
    pub(super) phase: Phase,
    pub(super) attempts: Attempts,
    pub(super) hold: Option<Hold>,
    /// Whether `hold` counts in its worker's load.
    pub(super) counts: bool,
    is_repeat: bool,
    /// When its worker was chosen, or its last token came.
    progress: Duration,
    /// The period of the breaker that this probes, by the book; 0 when it was closed.
    pub(super) period: u64,
    /// Whether the breaker has been told.
    pub(super) is_judged: bool,
    failed: Failed,
    /// Tokens that the client has.
    told: u32,
    /// Workers asked since the last time that everybody had been.
    pub(super) round: Vec<WorkerId>,
}

pub(super) enum Phase {
    Queued { ticket: Ticket, until: Duration },
    Dialing { until: Duration },
    Working { boot: u64, due: Duration, stalls: Option<Duration>, has_head: bool, left: u32 },
    Resting { until: Duration, in_vain: u32 },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    ClientLeft,
    QueueFull,
    QueueTimeout,
    /// Nobody was routable.
    NoWorkers,
    GaveUp(GiveUp),
    /// After the first token.
    Broken,
    TimedOut,
}

/// What a step comes to.
enum Step {
    Waits,
    Goes,
    Ends(End),
}

impl Flight {
    /// Looks whether the wait is over.
    pub(super) fn poll(&mut self) {
        if let Phase::Queued { ticket, .. } = &mut self.phase
            && self.verdict.is_none()
            && let Poll::Ready(verdict) = Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
        {
            self.verdict = Some(verdict);
        }
    }

    /// A token has come.
    fn token(&mut self, now: Duration) {
        let time_us = (now - self.progress).as_micros() as u64;
        if let Some(hold) = &mut self.hold {
            if self.told == 0 { hold.first_token(time_us) } else { hold.more_tokens(1, time_us) }
        }
        self.told += 1;
        self.progress = now;
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued { .. }) && self.verdict.is_none()
    }

    pub(super) fn is_same_queue(&self, other: &Flight) -> bool {
        (self.class, self.tenant) == (other.class, other.tenant)
    }
}

impl Simulation {
    pub(super) fn arrive(&mut self) {
        let now = self.rig.now;
        let rng = &mut self.rng;
        let classes = self.gate.rules().classes.len() as u8;
        let impatient = !self.is_healing && rng.random_range(0..4) == 0;
        let mut flight = Flight {
            number: self.book.arrived(),
            shard: rng.random_range(0..self.shards.len()),
            class: ClassId(rng.random_range(0..classes)),
            tenant: TenantId(rng.random_range(0..TENANTS)),
            is_stream: rng.random(),
            // Whoever is known to hold something gets it again; whoever comes back lives on what is new.
            conversation: if self.is_healing {
                rng.random_range(0..1 << 40)
            } else {
                rng.random_range(0..40)
            },
            leaves: impatient.then(|| now + Duration::from_millis(rng.random_range(0..3_000))),
            deadline: now + REQUEST_TIMEOUT,
            permit: None,
            verdict: None,
            phase: Phase::Ended,
            attempts: Attempts::default(),
            hold: None,
            counts: false,
            is_repeat: false,
            progress: now,
            period: 0,
            is_judged: true,
            failed: Failed::default(),
            told: 0,
            round: Vec::new(),
        };
        let claim = AdmissionClaim { tenant: flight.tenant, tokens: TENANT_TOKENS };
        let step = match self.gate.enter(flight.class, self.now_us(), || claim) {
            Entry::Full => Step::Ends(End::QueueFull),
            Entry::Queued(ticket) => {
                let until = now + self.gate.rules().class(flight.class).queue_timeout;
                flight.phase = Phase::Queued { ticket, until };
                Step::Waits
            }
            Entry::Admitted(permit) => {
                self.check_turn(&flight);
                flight.permit = Some(permit);
                self.first(&mut flight)
            }
        };
        let number = flight.number;
        match step {
            Step::Ends(end) => self.end(flight, end),
            Step::Waits | Step::Goes => {
                self.flights.insert(number, flight);
                self.advance(number);
            }
        }
    }

    /// Takes all the steps of a request that are due.
    pub(super) fn advance(&mut self, number: u64) {
        let Some(mut flight) = self.flights.remove(&number) else { return };
        loop {
            if flight.leaves.is_some_and(|leaves| leaves <= self.rig.now) {
                return self.end(flight, End::ClientLeft);
            }
            match self.go(&mut flight) {
                Step::Goes => {}
                Step::Ends(end) => return self.end(flight, end),
                Step::Waits => break,
            }
        }
        self.flights.insert(number, flight);
    }

    fn go(&mut self, flight: &mut Flight) -> Step {
        let now = self.rig.now;
        flight.poll();
        match flight.phase {
            Phase::Ended => Step::Waits,
            Phase::Queued { until, .. } => match flight.verdict.take() {
                Some(Verdict::Admitted { permit, .. }) => {
                    flight.permit = Some(permit);
                    flight.phase = Phase::Ended;
                    self.check_turn(flight);
                    self.first(flight)
                }
                Some(Verdict::Refused) => {
                    flight.phase = Phase::Ended;
                    Step::Ends(End::QueueFull)
                }
                None if now >= until => Step::Ends(End::QueueTimeout),
                None => Step::Waits,
            },
            _ if now >= flight.deadline => {
                if !matches!(flight.phase, Phase::Resting { .. }) {
                    self.judge(flight, Outcome::Failure);
                }
                Step::Ends(End::TimedOut)
            }
            Phase::Resting { until, .. } if now < until => Step::Waits,
            Phase::Resting { in_vain, .. } => self.rested(flight, in_vain),
            Phase::Dialing { until } => self.dial(flight, until),
            Phase::Working { .. } => self.work(flight),
        }
    }

    /// It is admitted: asks the first worker.
    fn first(&mut self, flight: &mut Flight) -> Step {
        self.budget.deposit();
        self.book.budget.deposit();
        if self.ask(flight, false) { Step::Goes } else { Step::Ends(End::NoWorkers) }
    }

    /// The pause before another attempt is over.
    fn rested(&mut self, flight: &mut Flight, in_vain: u32) -> Step {
        if self.ask(flight, in_vain == 2) {
            return Step::Goes;
        }
        match flight.attempts.nobody_else(flight.failed, &self.retry) {
            Ok(pause) => {
                flight.phase = Phase::Resting { until: self.rig.now + pause, in_vain: in_vain + 1 };
                Step::Goes
            }
            Err(GiveUp::Nobody) => Step::Ends(End::NoWorkers),
            Err(why) => Step::Ends(End::GaveUp(why)),
        }
    }

    /// Chooses a worker and asks it; false when there is none to choose. `starts_over` says that everybody may be asked
    /// again.
    fn ask(&mut self, flight: &mut Flight, starts_over: bool) -> bool {
        let now = self.rig.now;
        let block = |at: u64| (flight.conversation << 8 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let blocks: Vec<u64> = (0..=flight.conversation % 24).map(block).collect();
        let prompt_bytes = bytes_covered(blocks.len() as u32, usize::MAX);
        let key = flight.conversation.to_string();
        let Shard { snapshot, replica, batch, lag, .. } = &mut self.shards[flight.shard];
        let Some(pool) = snapshot.fleet.pools.first().map(Arc::clone) else { return false };
        let request = Request {
            blocks: if pool.policy.reads_prompt() { &blocks } else { &[] },
            prompt_bytes,
            keys: Keys { session: Some(key.as_bytes()), routing: Some(key.as_bytes()), ..Keys::default() },
            excluded: flight.attempts.tried(),
            must_continue: false,
            tick: now.saturating_sub(*lag).as_secs() as u32,
        };
        let picked = pick(replica, snapshot, &pool, &request, Some(&self.breaker));
        let routable = self.book.routable(snapshot, &pool);
        if starts_over {
            flight.round.clear();
        }
        let Some((choice, pass)) = picked else {
            let left = routable.iter().find(|id| !flight.round.contains(id));
            assert_eq!(left, None, "somebody could have been asked");
            return false;
        };
        let id = choice.worker.id;
        assert!(!flight.round.contains(&id), "{id:?} is asked again before everybody has been");
        if starts_over {
            self.book.note("second round");
        }
        flight.round.push(id);
        assert_eq!(flight.told, 0, "a retry after the first token");
        let held = bytes_covered(choice.matched_blocks, prompt_bytes);
        let claim = Claim { prompt_bytes: prompt_bytes as u32, uncached_bytes: (prompt_bytes - held) as u32 };
        let hold = Hold::begin(choice.worker, claim, pass);
        if choice.is_news {
            batch.push(Report::Placed { worker: id, version: snapshot.version, blocks: blocks.into() });
        }
        flight.attempts.begin();
        flight.is_repeat = flight.attempts.is_second_round();
        self.book.dropped(flight);
        // The previous hold ends here.
        flight.hold = Some(hold);
        (flight.counts, flight.is_judged) = (true, false);
        flight.period = self.book.admitted(id);
        flight.phase = Phase::Dialing { until: now + CONNECT_TIMEOUT };
        flight.progress = now;
        true
    }

    fn dial(&mut self, flight: &mut Flight, until: Duration) -> Step {
        let now = self.rig.now;
        let engine = self.engines.get(url_of(flight));
        if engine.is_cut_from(flight.shard) {
            return if now < until {
                Step::Waits
            } else {
                self.fail(flight, UpstreamFailure::ConnectTimeout)
            };
        }
        if !engine.listens() {
            return self.fail(flight, UpstreamFailure::Connect);
        }
        let pause = if engine.mode == Mode::Slow { 900 } else { 40 };
        let due = now + Duration::from_millis(self.rng.random_range(1..=pause));
        let stalls = flight.is_stream.then_some(now + FIRST_TOKEN_TIMEOUT);
        let left = self.rng.random_range(1..=6);
        flight.phase = Phase::Working { boot: engine.boot, due, stalls, has_head: false, left };
        Step::Goes
    }

    fn work(&mut self, flight: &mut Flight) -> Step {
        let now = self.rig.now;
        let Phase::Working { boot, due, stalls, has_head, left } = flight.phase else { return Step::Waits };
        let engine = self.engines.get(url_of(flight));
        let mode = engine.mode;
        if !engine.is_up || engine.boot != boot {
            let failure = if has_head { UpstreamFailure::Body } else { UpstreamFailure::Head };
            return self.fail(flight, failure);
        }
        let is_silent = mode == Mode::Stalled || engine.is_cut_from(flight.shard);
        if is_silent || now < due {
            let is_stalled = stalls.is_some_and(|stalls| stalls <= now);
            return if is_stalled { self.fail(flight, UpstreamFailure::Stall) } else { Step::Waits };
        }
        if !has_head {
            if let Mode::Answers(status, retry_after_s) = mode {
                return self.answered(flight, status, Duration::from_secs(retry_after_s));
            }
        } else if mode == Mode::Breaks && self.rng.random_range(0..3) == 0 {
            return self.fail(flight, UpstreamFailure::Body);
        } else {
            if let Some(hold) = &mut flight.hold {
                hold.prompt_done();
            }
            if flight.is_stream {
                flight.token(now);
            }
        }
        if has_head && left == 1 {
            self.release(flight);
            self.judge(flight, Outcome::Success);
            if let Some(hold) = &flight.hold {
                hold.worker().cells.succeed();
                hold.worker().cells.pressure().ease();
            }
            return Step::Ends(End::Complete);
        }
        let pauses = if mode == Mode::Slow { 300..=900 } else { 1..=40 };
        let due = now + Duration::from_millis(self.rng.random_range(pauses));
        let stalls = match flight.told {
            0 => stalls,
            _ => Some(now + INTER_TOKEN_TIMEOUT),
        };
        let left = left - u32::from(has_head);
        flight.phase = Phase::Working { boot, due, stalls, has_head: true, left };
        Step::Goes
    }

    /// The worker answered with a status other than 200.
    fn answered(&mut self, flight: &mut Flight, status: u16, retry_after: Duration) -> Step {
        self.judge(flight, retry::outcome_of(status));
        if let Some(hold) = flight.hold.as_ref().filter(|_| retry::is_back_pressure(status)) {
            let now_ms = self.coarse_ms(flight.shard);
            self.shards[flight.shard].full.press(hold.worker(), retry_after, now_ms);
            self.book.note("full");
        }
        if !retry::is_retryable(status) {
            self.release(flight);
            return Step::Ends(End::Complete);
        }
        self.another(flight, Failed { is_unreached: false, retry_after })
    }

    /// The worker failed.
    fn fail(&mut self, flight: &mut Flight, failure: UpstreamFailure) -> Step {
        self.judge(flight, Outcome::Failure);
        let is_unreached = matches!(failure, UpstreamFailure::Connect | UpstreamFailure::ConnectTimeout);
        if is_unreached
            && !flight.is_repeat
            && let Some(hold) = &flight.hold
        {
            hold.worker().cells.fail();
            self.shards[flight.shard].batch.push(Report::Failing { worker: hold.worker().id });
        }
        if flight.told > 0 {
            return Step::Ends(End::Broken);
        }
        self.another(flight, Failed { is_unreached, retry_after: Duration::ZERO })
    }

    fn another(&mut self, flight: &mut Flight, failed: Failed) -> Step {
        let Some(worker) = flight.hold.as_ref().map(|hold| hold.worker().id) else { return Step::Waits };
        let now_ms = self.coarse_ms(flight.shard);
        let chance = self.rng.random();
        let pause = flight.attempts.failed(worker, failed, &self.retry, (&self.budget, now_ms), chance);
        self.book.retry(flight, failed, &self.retry, now_ms, pause);
        match pause {
            Err(why) => Step::Ends(End::GaveUp(why)),
            Ok(pause) => {
                self.release(flight);
                flight.failed = failed;
                flight.phase = Phase::Resting { until: self.rig.now + pause, in_vain: 0 };
                Step::Goes
            }
        }
    }

    fn release(&mut self, flight: &mut Flight) {
        flight.counts = false;
        if let Some(hold) = &mut flight.hold {
            hold.release();
        }
    }

    fn judge(&mut self, flight: &mut Flight, outcome: Outcome) {
        let now_ms = self.coarse_ms(flight.shard);
        let Some(hold) = &mut flight.hold else { return };
        let id = hold.worker().id;
        let moved = hold.judge(outcome, now_ms, &self.breaker);
        if !std::mem::replace(&mut flight.is_judged, true) {
            self.book.judged(id, flight.period, outcome, now_ms);
        }
        if moved.is_some() {
            self.shards[flight.shard].batch.push(Report::Circuit { worker: id });
        }
    }

    fn coarse_ms(&self, shard: usize) -> u64 {
        self.rig.now.saturating_sub(self.shards[shard].lag).as_millis() as u64
    }

    /// The end of a request, as dropping what the shard keeps of it does.
    fn end(&mut self, mut flight: Flight, end: End) {
        self.book.ended(&flight, end);
        if let Phase::Queued { ticket, .. } = std::mem::replace(&mut flight.phase, Phase::Ended) {
            // A verdict that was looked at early is what the real one finds when it leaves.
            let must_pump = match flight.verdict.take() {
                Some(Verdict::Admitted { permit, .. }) => self.gate.release(permit, Some(0)),
                Some(Verdict::Refused) => false,
                None => self.gate.leave(ticket),
            };
            if must_pump {
                self.gate.pump(self.now_us());
            }
        }
        if let Some(permit) = flight.permit.take()
            && self.gate.release(permit, Some(TENANT_TOKENS))
        {
            self.gate.pump(self.now_us());
        }
        self.book.dropped(&mut flight);
        drop(flight.hold.take());
    }

    /// Nobody who came earlier waits where this one did.
    fn check_turn(&mut self, flight: &Flight) {
        for (number, other) in &mut self.flights {
            other.poll();
            let is_passed = *number < flight.number && other.is_queued() && other.is_same_queue(flight);
            assert!(!is_passed, "{} went before {number}, of the same class and tenant", flight.number);
        }
    }
}

fn url_of(flight: &Flight) -> &str {
    flight.hold.as_ref().map_or("", |hold| &hold.worker().url)
}
