//! Prints what the prefix tree costs on 100,000 prompts that share prefixes: time to match and insert, and memory.
//!
//! Run with `cargo run --release -p fleet --example tree_speed`. Times are medians of wall-clock passes. The resident
//! size of the process is printed beside the byte account, as a check of the latter.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use fleet::blocks::BLOCK_BYTES;
use fleet::blocks::PromptBlocks;
use fleet::blocks::hash_blocks;
use fleet::tree::HolderId;
use fleet::tree::PrefixTree;
use fleet::tree::TreeConfig;
use fleet::tree::TreeSnapshot;

const PROMPTS: u64 = 100_000;
const HOLDERS: u64 = 16;
const FAMILIES: u64 = 200;
const DOCUMENTS_PER_FAMILY: u64 = 25;
const INSERTS_PER_PUBLICATION: u64 = 64;
const INSERTS_PER_TICK: u64 = 1000;
const BYTES_PER_TOKEN: usize = 4;
const HASH_SEED: u64 = 0x5eed;
const QUERY_BYTES: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, 64 << 10];
const PASSES: usize = 15;

/// splitmix64, of a counter.
fn mix(counter: u64) -> u64 {
    let mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn append_text(out: &mut Vec<u8>, stream: u64, bytes: usize) {
    let end = out.len() + bytes;
    let mut counter = mix(stream);
    while out.len() < end {
        counter = counter.wrapping_add(1);
        out.extend_from_slice(&mix(counter).to_le_bytes());
    }
    out.truncate(end);
}

/// Writes prompt `index` into `out`: a system prompt, a document, and a part of its own. One prompt in 20 is 64 KiB.
fn write_prompt(index: u64, out: &mut Vec<u8>) {
    let family = mix(index) % FAMILIES;
    let document = family * DOCUMENTS_PER_FAMILY + mix(index ^ 1 << 40) % DOCUMENTS_PER_FAMILY;
    let bytes = match mix(index ^ 2 << 40) % 20 {
        0..8 => QUERY_BYTES[0],
        8..15 => QUERY_BYTES[1],
        15..19 => QUERY_BYTES[2],
        _ => QUERY_BYTES[3],
    };
    out.clear();
    append_text(out, 1 << 50 | family, bytes * 3 / 10);
    append_text(out, 2 << 50 | document, bytes * 3 / 10);
    append_text(out, 3 << 50 | index, bytes - out.len());
}

/// The worker that a prompt goes to: mostly the one that has its family, else any.
fn holder(index: u64) -> HolderId {
    let spread = mix(index ^ 3 << 40);
    let family = mix(index) % FAMILIES;
    HolderId(if spread.is_multiple_of(8) { spread / 8 % HOLDERS } else { family % HOLDERS } as u32)
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second field is the resident size") * 4096
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Inserts everything, publishing as the control thread does; returns nanoseconds per insertion with hashing.
fn build(tree: &mut PrefixTree, published: &mut TreeSnapshot) -> f64 {
    let (mut prompt, mut blocks) = (Vec::with_capacity(1 << 17), Vec::with_capacity(4096));
    let mut busy_ns = 0;
    for index in 0..PROMPTS {
        write_prompt(index, &mut prompt);
        let start = Instant::now();
        hash_blocks([&prompt[..]].into_iter(), HASH_SEED, &mut blocks);
        tree.insert(&blocks, holder(index), (index / INSERTS_PER_TICK) as u32);
        if index % INSERTS_PER_PUBLICATION == 0 {
            *published = tree.snapshot();
            tree.collect_garbage();
        }
        busy_ns += start.elapsed().as_nanos();
    }
    busy_ns as f64 / PROMPTS as f64
}

/// Nanoseconds to hash and match a prompt of `bytes`, of which the tree knows the first 80 %.
fn match_ns(snapshot: &TreeSnapshot, bytes: usize) -> f64 {
    let mut prompt = Vec::new();
    let queries: Vec<Vec<u8>> = (0..PROMPTS)
        .map(mix)
        .filter_map(|random| {
            write_prompt(random % PROMPTS, &mut prompt);
            (prompt.len() == bytes).then(|| {
                prompt.truncate(bytes * 8 / 10);
                append_text(&mut prompt, 4 << 50 | random, bytes - bytes * 8 / 10);
                prompt.clone()
            })
        })
        .take(400)
        .collect();
    let mut blocks = Vec::with_capacity(4096);
    let pass = |_| {
        let start = Instant::now();
        let mut matched = 0;
        for query in &queries {
            let mut prompt = PromptBlocks::new([&query[..]].into_iter(), HASH_SEED, &mut blocks);
            matched += black_box(snapshot.find(&mut prompt)).blocks as usize;
        }
        let ns = start.elapsed().as_nanos() as f64 / queries.len() as f64;
        assert!(matched * BLOCK_BYTES >= queries.len() * (bytes * 8 / 10 - BLOCK_BYTES));
        ns
    };
    median((0..PASSES).map(pass).collect())
}

fn main() {
    let resident_before = resident_bytes();
    let mut tree = PrefixTree::new(TreeConfig { bytes_max: usize::MAX, blocks_per_holder_max: usize::MAX });
    let mut published = TreeSnapshot::default();
    let insert_ns = build(&mut tree, &mut published);
    published = tree.snapshot();
    while tree.collect_garbage() {}
    let resident = resident_bytes() - resident_before;

    let tokens = tree.blocks() * (BLOCK_BYTES / BYTES_PER_TOKEN) as u64;
    println!("{PROMPTS} prompts, {tokens} tokens in {} blocks and {} nodes", tree.blocks(), tree.nodes());
    println!("insert with hashing and publication   {insert_ns:8.0} ns");
    for bytes in QUERY_BYTES {
        println!("match with hashing, {:3} KiB          {:8.0} ns", bytes >> 10, match_ns(&published, bytes));
    }
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    println!("byte account {:.1} MB, resident {:.1} MB", megabytes(tree.bytes()), megabytes(resident));
    println!("{:.2} bytes per token", tree.bytes() as f64 / tokens as f64);

    let bytes_max = tree.bytes() / 4;
    let mut bounded = PrefixTree::new(TreeConfig { bytes_max, blocks_per_holder_max: usize::MAX });
    let insert_ns = build(&mut bounded, &mut TreeSnapshot::default());
    println!("insert and evict at a quarter of that {insert_ns:8.0} ns");
    assert!(bounded.bytes() <= bytes_max);

    let start = Instant::now();
    tree.remove_holder(HolderId(0));
    println!("removing one of {HOLDERS} holders  {} us", start.elapsed().as_micros());
    assert!(resident.abs_diff(tree.bytes()) < resident / 2, "the byte account is far off");
}
