//! Engines as processes, and what is done to them: killed, stopped, restarted in the same place, told to fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::chaos::Engine;
use crate::client::Client;
use crate::client::Request;
use crate::draws::Draws;
use crate::gateway::Signal;
use crate::wait;

/// Engines that are always left alone.
const HEALTHY_MIN: usize = 1;
/// Pause between two looks at what is to be done.
const STEP: Duration = Duration::from_millis(50);
/// In so many looks somebody is hit once.
const HIT_ONE_IN: u64 = 3;
/// Longest fault, in milliseconds.
const FAULT_MS_MAX: u64 = 5_000;

/// One engine's place.
struct Place {
    addr: SocketAddr,
    /// None while it is dead.
    engine: Option<Engine>,
    trouble: Trouble,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Dead,
    Stopped,
    Planned,
    /// It resets every connection, also that of who would tell it to stop.
    Refusing,
}

/// Breaks engines, and mends them.
pub(super) struct Breaker<'a> {
    program: &'a Path,
    places: Vec<Place>,
    random: Draws,
    counts: BTreeMap<&'static str, usize>,
}

impl<'a> Breaker<'a> {
    pub(super) fn new(program: &'a Path, engines: Vec<Engine>, seed: u64) -> Self {
        let place = |engine: Engine| Place {
            addr: engine.addr(),
            engine: Some(engine),
            trouble: Trouble::None,
            until: Instant::now(),
        };
        let random = Draws::new(seed);
        Self { program, places: engines.into_iter().map(place).collect(), random, counts: BTreeMap::new() }
    }

    /// Goes on until the run is over; then all engines are well.
    pub(super) fn run(mut self, is_over: &AtomicBool) -> (BTreeMap<&'static str, usize>, Vec<Engine>) {
        while !is_over.load(Ordering::Relaxed) {
            for at in 0..self.places.len() {
                if Instant::now() >= self.places[at].until {
                    self.mend(at);
                }
            }
            let well = self.places.iter().filter(|place| place.trouble == Trouble::None).count();
            if well > HEALTHY_MIN && self.random.below(HIT_ONE_IN) == 0 {
                self.hit();
            }
            thread::sleep(STEP);
        }
        (0..self.places.len()).for_each(|at| self.mend(at));
        (self.counts, self.places.into_iter().filter_map(|place| place.engine).collect())
    }

    fn hit(&mut self) {
        let at = self.random.index(self.places.len());
        if self.places[at].trouble != Trouble::None {
            return;
        }
        let (what, trouble, plan) = match self.random.below(14) {
            0 | 1 => ("killed", Trouble::Dead, Value::Null),
            2 => ("restarted at once", Trouble::Dead, Value::Null),
            3 | 4 => ("stopped", Trouble::Stopped, Value::Null),
            5 => ("answers 500", Trouble::Planned, json!({"error_rate": 0.5, "error_status": 500})),
            6 => ("answers 503", Trouble::Planned, json!({"error_rate": 0.7, "error_status": 503})),
            7 => ("answers 429", Trouble::Planned, json!({"error_rate": 0.7, "error_status": 429})),
            8 => ("closes before the head", Trouble::Planned, json!({"close_before_rate": 0.5})),
            9 => {
                let events = self.random.below(50);
                let plan = json!({"close_mid_rate": 0.5, "close_mid_events": events});
                ("closes within the body", Trouble::Planned, plan)
            }
            10 => ("stalls", Trouble::Planned, json!({"stall_rate": 0.3})),
            11 => ("is slow", Trouble::Planned, json!({"slow_factor": 30.0})),
            12 => ("drips", Trouble::Planned, json!({"drip": true})),
            _ => ("refuses", Trouble::Refusing, json!({"refuse": true})),
        };
        let pause = Duration::from_millis(200 + self.random.below(FAULT_MS_MAX));
        let place = &mut self.places[at];
        (place.trouble, place.until) = (trouble, Instant::now() + pause);
        match trouble {
            // Dropping it kills its process with SIGKILL.
            Trouble::Dead => place.engine = None,
            Trouble::Stopped => {
                place.engine.as_ref().expect("it is well").signal(Signal::STOP);
            }
            Trouble::Planned | Trouble::Refusing => tell(place.addr, &plan),
            Trouble::None => {}
        }
        if what == "restarted at once" {
            place.until = Instant::now();
        }
        *self.counts.entry(what).or_default() += 1;
    }

    fn mend(&mut self, at: usize) {
        let place = &mut self.places[at];
        match std::mem::replace(&mut place.trouble, Trouble::None) {
            Trouble::None => {}
            Trouble::Dead | Trouble::Refusing => {
                place.engine = None;
                place.engine = Some(Engine::start_at(self.program, place.addr));
            }
            Trouble::Stopped => place.engine.as_ref().expect("it is only stopped").signal(Signal::CONT),
            Trouble::Planned => tell(place.addr, &json!({})),
        }
    }
}

/// Gives an engine its plan of faults.
#[track_caller]
fn tell(addr: SocketAddr, plan: &Value) {
    let request = Request::json("/_sim/faults", plan.to_string());
    wait::until("the engine takes its plan", || {
        Client::try_connect(addr)
            .and_then(|mut client| client.try_ask(&request))
            .is_ok_and(|answer| answer.status == 200)
    });
}

/// Waits until an engine computes nothing: whoever left was let go of.
#[track_caller]
pub(super) fn wait_idle(engine: &Engine) {
    wait::until("the engine has nothing to compute", || {
        let stats = Client::connect(engine.addr()).ask(&Request::get("/_sim/stats")).json();
        stats["running"] == 0 && stats["waiting"] == 0
    });
}
