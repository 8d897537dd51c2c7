//! Who is slow, by readings that are given.

use super::*;

const RULES: PaceRules = PaceRules {
    factor: 5.0,
    window: Duration::from_secs(5),
    tokens_min: 20,
    firsts_min: 5,
    ejection: Duration::from_secs(30),
    ejection_max: Duration::from_secs(100),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn gap(gap_ms: u64) -> Reading {
    Reading { gap: Some(ms(gap_ms)), ..Reading::default() }
}

fn first(first_ms: u64) -> Reading {
    Reading { first: Some(ms(first_ms)), ..Reading::default() }
}

/// Verdicts on all of them, by measure.
fn verdicts(readings: &[Reading]) -> Vec<Option<Measure>> {
    let verdict = |reading| judge(reading, readings, RULES.factor).map(|slow| slow.measure);
    readings.iter().map(verdict).collect()
}

const TOKENS: Option<Measure> = Some(Measure::InterToken);
const FIRST: Option<Measure> = Some(Measure::FirstToken);

#[test]
fn slow_is_several_times_the_median() {
    assert_eq!(verdicts(&[gap(50), gap(60), gap(301)]), [None, None, TOKENS]);
    assert_eq!(
        verdicts(&[gap(50), gap(60), gap(300)]),
        [None, None, None],
        "five times is not more than that"
    );
    assert_eq!(
        verdicts(&[gap(301), gap(400), gap(60), gap(50), gap(60)]),
        [TOKENS, TOKENS, None, None, None]
    );
    assert_eq!(verdicts(&[first(100), first(1_500), first(200)]), [None, FIRST, None]);
}

#[test]
fn slow_is_above_the_floor() {
    assert_eq!(verdicts(&[gap(10), gap(10), gap(199)]), [None; 3]);
    assert_eq!(verdicts(&[gap(10), gap(10), gap(200)]), [None, None, TOKENS]);
    assert_eq!(verdicts(&[first(10), first(10), first(999)]), [None; 3]);
    assert_eq!(verdicts(&[first(10), first(10), first(1_000)]), [None, None, FIRST]);
}

#[test]
fn two_are_no_pool_and_who_is_unknown_is_not_compared() {
    assert_eq!(verdicts(&[gap(10), gap(1_000)]), [None; 2]);
    assert_eq!(verdicts(&[gap(10), gap(1_000), Reading::default()]), [None; 3]);
}

#[test]
fn when_all_are_slow_nobody_is() {
    assert_eq!(verdicts(&[gap(1_000), gap(1_000), gap(1_000), gap(4_000)]), [None; 4]);
    // More than half: then that is the usual.
    assert_eq!(verdicts(&[gap(10), gap(1_000), gap(1_000)]), [None; 3]);
}

#[test]
fn long_prompts_are_no_slowness() {
    let busy = Reading { prompt_rate: 40_000.0, ..gap(900) };
    let usual = Reading { prompt_rate: 10_000.0, ..gap(20) };
    assert_eq!(verdicts(&[usual, usual, busy]), [None; 3]);
    let fair = Reading { prompt_rate: 20_000.0, ..busy };
    assert_eq!(verdicts(&[usual, usual, fair]), [None, None, TOKENS], "as much as others, and slow");
    let light = Reading { prompt_rate: 3_999.0, ..gap(900) };
    assert_eq!(verdicts(&[gap(20), gap(20), light]), [None, None, TOKENS], "too little prompt to matter");
}

#[test]
fn a_share_of_the_workers_may_be_ejected() {
    let most: Vec<usize> = [0, 1, 2, 3, 9, 10, 19, 20, 100].map(ejected_max).to_vec();
    assert_eq!(most, [0, 0, 0, 1, 1, 1, 1, 2, 10]);
}

fn sums(tokens: u64, gap_ms: u64, prompt_bytes: u64) -> Pace {
    Pace { tokens, token_us: tokens * gap_ms * 1_000, prompt_bytes, ..Pace::default() }
}

#[test]
fn a_measurement_waits_for_enough_tokens_but_not_for_ever() {
    let mut pacing = Pacing::default();
    assert!(!pacing.measure(sums(19, 10, 0), ms(5_000), &RULES));
    assert!(pacing.reading().is_none());
    assert!(pacing.measure(sums(20, 10, 0), ms(10_000), &RULES));
    assert_eq!(pacing.reading().and_then(|reading| reading.gap), Some(ms(10)));
    assert!(!pacing.measure(sums(39, 10, 0), ms(39_999), &RULES));
    assert!(pacing.measure(sums(39, 10, 0), ms(40_000), &RULES));
    assert_eq!(pacing.reading().and_then(|reading| reading.gap), None, "too few to say anything");
}

#[test]
fn long_prompts_are_remembered_for_as_long_as_they_may_be_computed() {
    let mut pacing = Pacing::default();
    let rate = |pacing: &Pacing| pacing.reading().map_or(0.0, |reading| reading.prompt_rate);
    pacing.measure(sums(20, 10, 50_000), ms(5_000), &RULES);
    assert!((rate(&pacing) - 10_000.0).abs() < 1e-6);
    pacing.measure(sums(40, 10, 50_000), ms(10_000), &RULES);
    assert!((rate(&pacing) - 7_000.0).abs() < 1e-6, "{}", rate(&pacing));
}

#[test]
fn one_slow_window_is_chance() {
    let slow = Slow { measure: Measure::InterToken, mean: ms(1_000), median: ms(10) };
    let mut pacing = Pacing::default();
    let mut judged = |slow: Option<&Slow>| pacing.judged(slow);
    assert_eq!(
        [judged(Some(&slow)), judged(None), judged(Some(&slow)), judged(Some(&slow))],
        [false, false, false, true]
    );
}

#[test]
fn an_ejection_is_longer_each_time_and_forgiven_step_by_step() {
    let mut pacing = Pacing::default();
    let eject = |pacing: &mut Pacing| pacing.eject(Measure::FirstToken, ms(0), &RULES).as_secs();
    let times: Vec<u64> = (0..5).map(|_| eject(&mut pacing)).collect();
    assert_eq!(times, [30, 60, 90, 100, 100]);
    pacing.readmit(Pace::default(), ms(0));
    assert!(pacing.ejected().is_none() && pacing.reading().is_none());
    assert!(!pacing.judged(None), "nothing is known of it");
    for window in 1..=4 {
        pacing.measure(sums(20 * window, 10, 0), ms(5_000 * window), &RULES);
        assert!(!pacing.judged(None));
    }
    assert_eq!(eject(&mut pacing), 60, "one of five is not forgiven");
}
