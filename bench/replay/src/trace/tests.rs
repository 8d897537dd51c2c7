//! Lines as they come, good and hostile.

use fleet::rules::CacheAware;
use fleet::rules::Policy;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::generate::Load;
use crate::generate::Shape;
use crate::generate::generate;
use crate::limits::LINE_BYTES_MAX;

fn parse(text: &str) -> Result<Trace, ReadError> {
    read(text.as_bytes(), &ReadOptions::default())
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.to_string(), expect);
}

const MOONCAKE: &str = r#"{"timestamp": 27482, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 27000.5, "input_length": 600, "output_length": 0, "hash_ids": [46, 99, 100, 101]}

"#;

const DECISIONS: &str = r#"{"at_us":1000,"model":"m","policy":"cache_aware","settings":{"cache_threshold":0.5},"prompt_bytes":4096,"blocks":34,"samples":["1","2","3","4","5","6","7","8","9","a","b","c","d","e","f","10"],"key":null,"attempt":0,"candidates":[{"worker":3,"cost":512,"matched":12,"role":"holder"}],"chosen":3,"reason":"prefix"}
{"at_us":1500,"model":"m","policy":"cache_aware","prompt_bytes":4096,"blocks":34,"samples":[],"key":null,"attempt":1,"candidates":[],"chosen":5,"reason":"spread"}
{"at_us":2000,"model":"m","policy":"cache_aware","prompt_bytes":4096,"blocks":34,"samples":["1","2","3","4","5","66","7","8"],"key":"ff","attempt":0,"candidates":[],"chosen":1,"reason":"least_load"}
"#;

#[test]
fn mooncake_lines_are_read_in_order_of_time() {
    let trace = parse(MOONCAKE).expect("good");
    let [first, second] = trace.requests() else { unreachable!("two requests") };
    assert_eq!((first.at_us, first.prompt_tokens, first.output_tokens), (0, 600, 1));
    assert_eq!((second.at_us, second.prompt_tokens, second.output_tokens), (481_500, 1_100, 52));
    let tokens = |request: &TraceRequest| request.blocks.iter().map(|block| block.tokens).collect::<Vec<_>>();
    // Ids beyond the prompt's end name nothing.
    assert_eq!((tokens(first), tokens(second)), (vec![512, 88], vec![512, 512, 76]));
    assert_eq!(first.blocks[0], second.blocks[0]);
    assert_ne!(first.blocks[1].prefix, second.blocks[1].prefix);
}

#[test]
fn a_block_is_named_by_all_before_it() {
    let trace = parse(
        r#"{"timestamp":0,"input_length":1024,"output_length":1,"hash_ids":[1,7]}
           {"timestamp":0,"input_length":1024,"output_length":1,"hash_ids":[2,7]}"#,
    );
    let trace = trace.expect("good");
    assert_ne!(trace.requests()[0].blocks[1].prefix, trace.requests()[1].blocks[1].prefix);
}

#[test]
fn options_and_lines_say_what_a_unit_is() {
    let line = r#"{"timestamp":1.5,"input_length":40,"output_length":1,"hash_ids":[1,2,3]}"#;
    let later = r#"{"timestamp":3,"input_length":40,"output_length":1,"block_tokens":20,"hash_ids":[1,-2]}"#;
    let options = ReadOptions { block_tokens: 16, time_unit: TimeUnit::Seconds, ..ReadOptions::default() };
    let trace = read(format!("{line}\n{later}").as_bytes(), &options).expect("good");
    let [first, second] = trace.requests() else { unreachable!("two requests") };
    assert_eq!(first.blocks.iter().map(|block| block.tokens).collect::<Vec<_>>(), [16, 16, 8]);
    assert_eq!(second.blocks.iter().map(|block| block.tokens).collect::<Vec<_>>(), [20, 20]);
    assert_eq!(second.at_us, 1_500_000);
}

#[test]
fn decisions_are_read_with_the_lineage_of_their_samples() {
    let trace = parse(DECISIONS).expect("good");
    let [first, second] = trace.requests() else { unreachable!("two requests") };
    assert_eq!((first.at_us, first.prompt_tokens, first.output_tokens), (0, 1_024, 128));
    assert_eq!((first.key, second.key), (None, Some(0xff)));
    let [decision, retry, _] = trace.captured() else { unreachable!("three decisions") };
    let settings = CacheAware { cache_threshold: 0.5, ..CacheAware::default() };
    assert_eq!(decision.policy, Policy::CacheAware(settings));
    assert_eq!((decision.chosen, decision.reason.name()), (3, "prefix"));
    assert_eq!(decision.evidence.candidates[0].cost, 512);
    assert_eq!((retry.chosen, retry.reason.name()), (5, "spread"));
    // 32, 32 and 64 bytes, then 128 each: 8, 8, 16, 32 tokens; later samples cover several blocks.
    let tokens: Vec<u32> = first.blocks.iter().map(|block| block.tokens).collect();
    assert_eq!(tokens[..5], [8, 8, 16, 32, 32]);
    assert_eq!(tokens.iter().sum::<u32>(), 32 * 30);
    let shared = first.blocks.iter().zip(&second.blocks).take_while(|(a, b)| a == b).count();
    assert_eq!(shared, 5);
    // What follows a difference differs too, though its own sample is the same.
    assert_ne!(first.blocks[6].prefix, second.blocks[6].prefix);
}

#[test]
fn one_model_of_many_is_read() {
    let of = |model: &str| {
        let options = ReadOptions { model: Some(model.to_owned()), ..ReadOptions::default() };
        let trace = read(format!("{DECISIONS}{}", DECISIONS.replace("\"m\"", "\"n\"")).as_bytes(), &options);
        let trace = trace.expect("good");
        (trace.requests().len(), trace.captured().len())
    };
    assert_eq!((of("m"), of("n"), of("o")), ((2, 3), (2, 3), (0, 0)));
}

#[test]
fn bad_lines_are_refused_by_number_and_reason() {
    let good = MOONCAKE.lines().next().expect("a line");
    refused(&format!("{good}\n\n{{}}"), "line 3: neither `hash_ids` nor `samples`: no known kind of trace");
    refused("[1]", "line 1: neither `hash_ids` nor `samples`: no known kind of trace");
    refused(r#"{"hash_ids":[1]}"#, "line 1: `input_length` is missing");
    refused(
        r#"{"hash_ids":[1],"input_length":-1,"output_length":1,"timestamp":0}"#,
        "line 1: `input_length` is not a whole number within its bound",
    );
    refused(
        r#"{"hash_ids":[1],"input_length":9999999999,"output_length":1,"timestamp":0}"#,
        "line 1: `input_length` is not a whole number within its bound",
    );
    refused(
        r#"{"hash_ids":["a"],"input_length":1,"output_length":1,"timestamp":0}"#,
        "line 1: `hash_ids` is not a list of whole numbers",
    );
    for timestamp in ["-1", "1e300", "\"now\"", "null"] {
        refused(
            &format!(r#"{{"hash_ids":[1],"input_length":1,"output_length":1,"timestamp":{timestamp}}}"#),
            "line 1: `timestamp` is not a time within a year",
        );
    }
    refused(
        r#"{"samples":["xyz"],"at_us":0,"prompt_bytes":1,"blocks":1,"policy":"random","candidates":[],"chosen":1,"reason":"chance"}"#,
        "line 1: `samples` is not a list of hexadecimal hashes",
    );
    refused(
        r#"{"samples":["1"],"at_us":0,"prompt_bytes":1,"blocks":1,"policy":"random"}"#,
        "line 1: `candidates` is missing",
    );
    let decided = r#""policy":"random","candidates":[],"chosen":1,"reason":"chance""#;
    let many = ["\"1\""; 49].join(",");
    refused(
        &format!(r#"{{"samples":[{many}],"at_us":0,"prompt_bytes":1,"blocks":1,{decided}}}"#),
        "line 1: `samples` is too long a list",
    );
    refused(
        r#"{"samples":[],"policy":"random","candidates":[{"worker":1,"cost":1,"matched":1,"role":"king"}],"reason":"chance"}"#,
        "line 1: `role` is not a known one",
    );
    refused(
        r#"{"samples":[],"policy":"fastest","candidates":[],"reason":"chance"}"#,
        "line 1: `policy` is not a known one",
    );
    let crowd = ["{}"; 9].join(",");
    refused(
        &format!(r#"{{"samples":[],"policy":"random","candidates":[{crowd}],"reason":"chance"}}"#),
        "line 1: `candidates` is too long a list",
    );
    let error = parse("{\"hash_ids\":").expect_err("cut off").to_string();
    assert!(error.starts_with("line 1: not JSON: "), "{error}");
}

#[test]
fn a_line_without_an_end_costs_no_more_than_its_bound() {
    let endless = std::io::BufReader::new(std::io::repeat(b' '));
    let error = read(endless, &ReadOptions::default()).expect_err("endless");
    assert_eq!(error.to_string(), format!("line 1: longer than {LINE_BYTES_MAX} bytes"));
}

#[test]
fn deep_nesting_is_an_error() {
    let error = parse(&"[".repeat(1 << 20)).expect_err("deep").to_string();
    assert!(error.starts_with("line 1: not JSON: "), "{error}");
}

#[test]
fn mangled_lines_never_panic() {
    for seed in 0..2_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut text = format!("{MOONCAKE}{DECISIONS}").into_bytes();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..text.len());
            match random.random_range(0..3) {
                0 => text[at] = random.random(),
                1 => drop(text.remove(at)),
                _ => text.insert(at, b"0123456789-e.,[]{}\"\n"[random.random_range(0..20)]),
            }
        }
        if let Ok(trace) = read(text.as_slice(), &ReadOptions::default()) {
            for request in trace.requests() {
                let named: u64 = request.blocks.iter().map(|block| u64::from(block.tokens)).sum();
                assert!(
                    named <= u64::from(request.prompt_tokens) && request.output_tokens > 0,
                    "seed {seed}"
                );
            }
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    for shape in [Shape::MultiTurn, Shape::HotPrefix] {
        let made = generate(&Load { shape, requests: 200, ..Load::default() });
        let mut text = Vec::new();
        write(&made, &mut text).expect("memory");
        let again = read(text.as_slice(), &ReadOptions::default()).expect("good");
        assert_eq!(again.requests().len(), made.requests().len());
        assert_eq!(again.reusable_tokens(), made.reusable_tokens());
        assert_eq!(again.distinct_tokens(), made.distinct_tokens());
        for (a, b) in again.requests().iter().zip(made.requests()) {
            assert_eq!(
                (a.at_us, a.prompt_tokens, a.output_tokens),
                (b.at_us, b.prompt_tokens, b.output_tokens)
            );
        }
    }
}

#[test]
fn reuse_is_counted_exactly() {
    let request =
        |at_us, tokens, ids: &[u64]| TraceRequest::from_block_ids(at_us, tokens, 1, 10, ids.to_vec());
    let requests = vec![request(5, 25, &[1, 2, 3]), request(6, 25, &[1, 2, 4]), request(7, 25, &[1, 2, 3])];
    let trace = Trace::new(requests);
    // 20 tokens, then all but the last of 25.
    assert_eq!((trace.reusable_tokens(), trace.distinct_tokens(), trace.prompt_tokens()), (44, 30, 75));
    assert_eq!(trace.requests_per_s(), Some(1e6));
}
