//! The breaker against a plain model, and against several threads.

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const RULES: BreakerRules =
    BreakerRules { failure_threshold: 3, success_threshold: 2, open_ms: 1_000, window_ms: 500 };

fn fail(breaker: &Breaker, now_ms: u64) -> Option<Transition> {
    let pass = breaker.admit(&RULES).expect("lets requests through");
    breaker.judge(pass, Outcome::Failure, now_ms, &RULES)
}

fn succeed(breaker: &Breaker, now_ms: u64) -> Option<Transition> {
    let pass = breaker.admit(&RULES).expect("lets requests through");
    breaker.judge(pass, Outcome::Success, now_ms, &RULES)
}

/// A breaker that opened when time began.
fn opened() -> Breaker {
    let breaker = Breaker::default();
    breaker.restore(State::opened(0).pack());
    breaker
}

#[test]
fn opens_at_the_threshold_and_not_before() {
    let breaker = Breaker::default();
    assert_eq!((fail(&breaker, 1), fail(&breaker, 2)), (None, None));
    assert_eq!(breaker.count(), 2);
    assert_eq!(fail(&breaker, 3), Some(Transition { from: Circuit::Closed, to: Circuit::Open }));
    assert_eq!(breaker.admit(&RULES), None);
    assert_eq!(breaker.open_until_ms(&RULES), Some(1_003));
}

#[test]
fn a_success_ends_the_row_and_neutral_does_not() {
    let breaker = Breaker::default();
    fail(&breaker, 1);
    fail(&breaker, 2);
    succeed(&breaker, 3);
    assert_eq!((fail(&breaker, 4), fail(&breaker, 5)), (None, None));
    let pass = breaker.admit(&RULES).expect("closed");
    assert_eq!(breaker.judge(pass, Outcome::Neutral, 6, &RULES), None);
    assert!(fail(&breaker, 7).is_some());
}

#[test]
fn a_row_that_takes_longer_than_the_window_begins_anew() {
    let breaker = Breaker::default();
    fail(&breaker, 1);
    fail(&breaker, 2);
    assert_eq!(fail(&breaker, 502), None);
    assert_eq!(breaker.count(), 1);
    fail(&breaker, 900);
    assert!(fail(&breaker, 1_002).is_some(), "the window's last moment counts");
}

#[test]
fn half_open_lets_through_what_it_needs() {
    let breaker = opened();
    assert_eq!(breaker.tick(999, &RULES), None);
    assert_eq!(breaker.tick(1_000, &RULES), Some(Transition { from: Circuit::Open, to: Circuit::HalfOpen }));
    let (first, second) = (breaker.admit(&RULES).expect("one"), breaker.admit(&RULES).expect("two"));
    assert_eq!(breaker.admit(&RULES), None);
    assert_eq!(breaker.judge(first, Outcome::Neutral, 1_001, &RULES), None);
    let third = breaker.admit(&RULES).expect("the first has left its place");
    assert_eq!(breaker.judge(second, Outcome::Success, 1_002, &RULES), None);
    assert_eq!(breaker.admit(&RULES), None, "one more success is needed, and one probe is on its way");
    let closed = breaker.judge(third, Outcome::Success, 1_003, &RULES);
    assert_eq!(closed, Some(Transition { from: Circuit::HalfOpen, to: Circuit::Closed }));
}

#[test]
fn a_failed_probe_opens_it_again_for_the_whole_pause() {
    let breaker = opened();
    breaker.tick(1_000, &RULES);
    let (failing, late) = (breaker.admit(&RULES).expect("one"), breaker.admit(&RULES).expect("two"));
    assert!(breaker.judge(failing, Outcome::Failure, 1_500, &RULES).is_some());
    assert_eq!(breaker.open_until_ms(&RULES), Some(2_500));
    // What belongs to the last period neither closes nor opens this one.
    assert_eq!(breaker.judge(late, Outcome::Success, 1_501, &RULES), None);
    breaker.tick(2_500, &RULES);
    let probe = breaker.admit(&RULES).expect("half-open");
    assert_eq!(breaker.judge(late, Outcome::Failure, 2_501, &RULES), None);
    assert_eq!(breaker.judge(probe, Outcome::Success, 2_502, &RULES), None);
    assert_eq!(breaker.circuit(), Circuit::HalfOpen);
}

#[test]
fn what_began_before_it_opened_says_nothing_after() {
    let breaker = Breaker::default();
    let old: Vec<_> = (0..4).filter_map(|_| breaker.admit(&RULES)).collect();
    for at in 0..3 {
        fail(&breaker, at);
    }
    breaker.tick(1_002, &RULES);
    for (pass, outcome) in
        old.into_iter().zip([Outcome::Failure, Outcome::Success, Outcome::Success, Outcome::Neutral])
    {
        assert_eq!(breaker.judge(pass, outcome, 1_003, &RULES), None);
    }
    assert_eq!((breaker.circuit(), breaker.count()), (Circuit::HalfOpen, 0));
}

/// A breaker as one would write it with no word to fit it in.
struct Model {
    circuit: Circuit,
    row: Vec<u64>,
    successes: u32,
    since_ms: u64,
    period: u32,
    /// Periods of trouble so far.
    periods: u32,
}

#[test]
fn follows_the_model_whatever_happens() {
    for seed in 0..1_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let rules = BreakerRules {
            failure_threshold: rng.random_range(1..5),
            success_threshold: rng.random_range(1..4),
            open_ms: rng.random_range(1..50),
            window_ms: rng.random_range(1..50),
        };
        let breaker = Breaker::default();
        let mut model = Model {
            circuit: Circuit::Closed,
            row: Vec::new(),
            successes: 0,
            since_ms: 0,
            period: 0,
            periods: 0,
        };
        let mut flights: Vec<(Pass, u32)> = Vec::new();
        let mut now_ms = 0;
        for step in 0..200 {
            now_ms += rng.random_range(0..10);
            match rng.random_range(0..3) {
                0 => {
                    let probes = flights.iter().filter(|(_, period)| *period == model.period).count() as u32;
                    let may = match model.circuit {
                        Circuit::Closed => true,
                        Circuit::Open => false,
                        Circuit::HalfOpen => model.successes + probes < rules.success_threshold,
                    };
                    let pass = breaker.admit(&rules);
                    assert_eq!(pass.is_some(), may, "seed {seed} step {step}");
                    flights.extend(pass.map(|pass| (pass, model.period)));
                }
                1 if !flights.is_empty() => {
                    let (pass, period) = flights.swap_remove(rng.random_range(0..flights.len()));
                    let outcome =
                        [Outcome::Success, Outcome::Failure, Outcome::Neutral][rng.random_range(0..3_usize)];
                    breaker.judge(pass, outcome, now_ms, &rules);
                    model.judge(period, outcome, now_ms, &rules);
                }
                _ => {
                    breaker.tick(now_ms, &rules);
                    if model.circuit == Circuit::Open && now_ms >= model.since_ms + rules.open_ms {
                        model.enter(Circuit::HalfOpen, now_ms);
                    }
                }
            }
            assert_eq!(breaker.circuit(), model.circuit, "seed {seed} step {step}");
            let count =
                if model.circuit == Circuit::Closed { model.row.len() as u32 } else { model.successes };
            assert_eq!(breaker.count(), count, "seed {seed} step {step}");
        }
    }
}

impl Model {
    fn enter(&mut self, circuit: Circuit, now_ms: u64) {
        // A closed breaker is the same period as any closed one: requests outlive a period of trouble.
        self.periods += 1;
        self.period = if circuit == Circuit::Closed { 0 } else { self.periods };
        (self.circuit, self.since_ms, self.successes) = (circuit, now_ms, 0);
        self.row.clear();
    }

    fn judge(&mut self, period: u32, outcome: Outcome, now_ms: u64, rules: &BreakerRules) {
        if period != self.period {
            return;
        }
        match (self.circuit, outcome) {
            (_, Outcome::Neutral) | (Circuit::Open, _) => {}
            (Circuit::Closed, Outcome::Success) => self.row.clear(),
            (Circuit::Closed, Outcome::Failure) => {
                if self.row.first().is_some_and(|&first| now_ms - first > rules.window_ms) {
                    self.row.clear();
                }
                self.row.push(now_ms);
                if self.row.len() as u32 >= rules.failure_threshold {
                    self.enter(Circuit::Open, now_ms);
                }
            }
            (Circuit::HalfOpen, Outcome::Success) => {
                self.successes += 1;
                if self.successes >= rules.success_threshold {
                    self.enter(Circuit::Closed, now_ms);
                }
            }
            (Circuit::HalfOpen, Outcome::Failure) => self.enter(Circuit::Open, now_ms),
        }
    }
}

#[test]
fn thresholds_are_exact_for_any_number_of_threads() {
    const THREADS: u32 = 4;
    let rules =
        BreakerRules { failure_threshold: 1_000, success_threshold: 7, open_ms: 10, window_ms: 1_000 };
    for _ in 0..20 {
        let breaker = Breaker::default();
        let opened = std::sync::atomic::AtomicU32::new(0);
        let failures = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some(pass) = breaker.admit(&rules) {
                        // A failure after the opening is one that was let through before it.
                        let transition = breaker.judge(pass, Outcome::Failure, 1, &rules);
                        failures.fetch_add(1, AcqRel);
                        opened.fetch_add(u32::from(transition.is_some()), AcqRel);
                    }
                });
            }
        });
        assert_eq!(opened.load(Acquire), 1);
        assert!((1_000..1_000 + THREADS).contains(&failures.load(Acquire)));
        breaker.tick(11, &rules);
        let let_through = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while breaker.admit(&rules).is_some() {
                        let_through.fetch_add(1, AcqRel);
                    }
                });
            }
        });
        assert_eq!(let_through.load(Acquire), 7);
    }
}
