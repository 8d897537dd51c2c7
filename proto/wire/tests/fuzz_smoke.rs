//! The fuzz targets on stable: a seeded mutator over the corpus, for a bounded number of inputs.
//!
//! `cargo test` runs the same inputs every time; a failure prints the one at fault, for the corpus.

use std::{fs, path::Path};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

#[path = "../../../tools/fuzz/targets/lib.rs"]
#[expect(unreachable_pub, reason = "the targets are a library to libFuzzer's programs")]
mod targets;

/// Inputs a target: about half a second each in the dev profile on an idle core.
const INPUTS_NUM: usize = 150_000;
/// Mutations on top of each other; more make noise of which nothing is accepted.
const MUTATIONS_MAX: usize = 4;
/// An input's length after which it only shrinks.
const INPUT_BYTES_MAX: usize = 4096;
const SEED: u64 = 0x5eed;

/// Pieces of the languages under test, which single bytes would take long to form.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b": ",
    b",",
    b";",
    b"0\r\n\r\n",
    b"1\r\nx\r\n",
    b"ffff",
    b"\0",
    b"\x7f",
    b"\xff",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HEAD",
    b"204",
    b"chunked",
    b"close",
    b"data:",
    b"data: [DONE]",
    b"event: ",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\"k\":1,",
    b"null",
    b"true",
    b"-",
    b"1.5e3",
    b"\xc3\xa9",
];

#[test]
fn request_heads_hold() {
    smoke("request_head", targets::request_head::fuzz_request_head);
}

#[test]
fn response_heads_hold() {
    smoke("response_head", targets::response_head::fuzz_response_head);
}

#[test]
fn chunked_bodies_hold() {
    smoke("chunked", targets::chunked::fuzz_chunked);
}

#[test]
fn event_streams_hold() {
    smoke("sse", targets::sse::fuzz_sse);
}

#[test]
fn json_texts_hold() {
    smoke("json_scan", targets::json_scan::fuzz_json_scan);
}

fn smoke(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        run_one(run, input);
    }
    let mut rng = SmallRng::seed_from_u64(SEED);
    for _ in 0..INPUTS_NUM {
        let mut input = pick(&mut rng, &corpus).clone();
        for _ in 0..rng.random_range(1..=MUTATIONS_MAX) {
            mutate(&mut rng, &mut input, &corpus);
        }
        run_one(run, &input);
    }
}

/// The corpus of a target in the order of its file names, so that the inputs do not depend on the file
/// system.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is in the tree")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds a corpus", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

fn mutate(rng: &mut SmallRng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.random_range(0..=input.len());
    let end = rng.random_range(at..=input.len().min(at + 16));
    match rng.random_range(0..7) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random_range(0..=u8::MAX),
        2 | 3 => drop(input.splice(at..at, pick(rng, TOKENS).iter().copied())),
        4 => drop(input.splice(at..end, pick(rng, TOKENS).iter().copied())),
        5 => {
            let other = pick(rng, corpus);
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => drop(input.drain(at..end)),
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn pick<'a, T>(rng: &mut SmallRng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

fn run_one(run: fn(&[u8]), input: &[u8]) {
    let _report = ReportOnPanic(input);
    run(input);
}

/// Prints the input of a target that panics.
struct ReportOnPanic<'a>(&'a [u8]);

impl Drop for ReportOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input: b\"{}\"", self.0.escape_ascii());
        }
    }
}
