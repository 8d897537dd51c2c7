//! What made traces share, and how often they come.

use super::*;

fn load(shape: Shape) -> Load {
    Load { shape, requests: 3_000, ..Load::default() }
}

#[test]
fn a_seed_makes_one_trace() {
    for shape in [Shape::MultiTurn, Shape::SharedPrefix, Shape::HotPrefix] {
        assert_eq!(generate(&load(shape)).requests(), generate(&load(shape)).requests());
        let other = generate(&Load { seed: 2, ..load(shape) });
        assert_ne!(generate(&load(shape)).requests(), other.requests());
    }
}

#[test]
fn requests_come_at_the_rate_asked_for() {
    let rate = |shape| generate(&load(shape)).requests_per_s().expect("a rate");
    assert!((15.0..17.0).contains(&rate(Shape::SharedPrefix)));
    // Conversations begin at their rate; the last ones end after the others.
    assert!((8.0..17.0).contains(&rate(Shape::MultiTurn)));
}

#[test]
fn the_size_of_a_trace_is_known_before_it_is_made() {
    for shape in [Shape::MultiTurn, Shape::SharedPrefix, Shape::HotPrefix] {
        for turns in [2, 5, 40] {
            let load = Load { turns, ..load(shape) };
            let made: usize = generate(&load).requests().iter().map(|request| request.blocks.len()).sum();
            let expect = load.blocks() as f64;
            assert!((0.7..1.3).contains(&(made as f64 / expect)), "{shape:?} {turns}: {made}, not {expect}");
        }
    }
}

#[test]
fn one_group_gets_its_share() {
    let trace = generate(&load(Shape::HotPrefix));
    let mut counts = std::collections::HashMap::<u64, usize>::new();
    for request in trace.requests() {
        *counts.entry(request.blocks[63].prefix).or_default() += 1;
    }
    let hottest = counts.values().max().copied().unwrap_or(0) as f64 / trace.requests().len() as f64;
    assert_eq!(counts.len(), 128);
    assert!((0.24..0.28).contains(&hottest), "{hottest}");
}

#[test]
fn groups_share_their_prefix_and_nothing_else() {
    let trace = generate(&load(Shape::SharedPrefix));
    let questions: std::collections::HashSet<u64> =
        trace.requests().iter().map(|request| request.blocks[64].prefix).collect();
    assert_eq!(questions.len(), trace.requests().len());
    assert!(trace.requests().iter().all(|request| request.prompt_tokens > 4_096));
}

#[test]
fn each_turn_repeats_all_before_it() {
    let trace = generate(&Load { requests: 500, ..load(Shape::MultiTurn) });
    let mut ends = std::collections::HashMap::<u64, u32>::new();
    let mut later_turns = 0;
    for request in trace.requests() {
        // The first block is the conversation's own; the turn before named all but its last, unfinished block.
        let conversation = request.blocks[0].prefix;
        if let Some(before) = ends.insert(conversation, request.prompt_tokens) {
            assert!(request.prompt_tokens > before);
            later_turns += 1;
        }
    }
    let reused = trace.reusable_tokens() as f64 / trace.prompt_tokens() as f64;
    assert!(later_turns > 300 && (0.6..0.9).contains(&reused), "{later_turns} {reused}");
}

#[test]
fn extremes_are_made_too() {
    let none = Load { requests: 0, ..Load::default() };
    assert!(generate(&none).requests().is_empty());
    for shape in [Shape::MultiTurn, Shape::SharedPrefix, Shape::HotPrefix] {
        let odd = Load {
            shape,
            requests: 5,
            groups: 0,
            prefix_tokens: 0,
            turns: 0,
            requests_per_s: 0.0,
            has_keys: true,
            seed: 0,
        };
        assert_eq!(generate(&odd).requests().len(), 5);
        assert_eq!(generate(&Load { prefix_tokens: 1, groups: 1, ..odd }).requests().len(), 5);
    }
}

#[test]
fn a_key_names_a_conversation() {
    let trace = generate(&Load { has_keys: true, requests: 500, ..load(Shape::MultiTurn) });
    let mut keys = std::collections::HashMap::new();
    for request in trace.requests() {
        assert_eq!(*keys.entry(request.blocks[0].prefix).or_insert(request.key), request.key);
    }
    let distinct: std::collections::HashSet<_> = keys.values().collect();
    assert!(distinct.len() == keys.len() && keys.values().all(Option::is_some));
}
