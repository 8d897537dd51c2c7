//! Block hashes against their definition, over every way of cutting a prompt.

use super::*;

const SEED: u64 = 7;

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn hashes(parts: &[&[u8]]) -> Vec<u64> {
    let mut out = vec![1, 2, 3];
    hash_blocks(parts.iter().copied(), SEED, &mut out);
    out
}

#[test]
fn every_cut_into_two_parts_gives_the_same_blocks() {
    for bytes in [1, 31, 32, 63, 64, 127, 128, 129, 300, 511, 512, 513, 700] {
        let text = text(bytes);
        let whole = hashes(&[&text]);
        for cut in 0..=bytes {
            let (head, tail) = text.split_at(cut);
            assert_eq!(hashes(&[head, &[], tail]), whole, "{bytes} bytes cut at {cut}");
        }
        let single_bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(hashes(&single_bytes), whole);
    }
}

#[test]
fn counts_and_covered_bytes_agree_with_what_is_hashed() {
    for bytes in 0..1500 {
        let count = block_count(bytes);
        assert_eq!(hashes(&[&text(bytes)]).len(), count as usize, "{bytes} bytes");
        let covered = bytes_covered(count, bytes);
        assert!(covered <= bytes && bytes - covered < BLOCK_BYTES);
        assert!(bytes >= SHORT_PROMPT_BYTES || covered == bytes, "a short prompt is covered whole");
    }
    assert_eq!(bytes_covered(3, 1000), BLOCK_BYTES);
    assert_eq!(bytes_covered(4, 200), 200);
}

#[test]
fn a_prompt_shares_the_blocks_of_its_prefix() {
    let text = text(900);
    let long = hashes(&[&text]);
    assert_eq!(hashes(&[&text[..640]]), long[..7]);
    assert_eq!(hashes(&[&text[..128]]), long[..3]);
    let short = hashes(&[&text[..200]]);
    assert_eq!(short[..3], long[..3]);
    assert_ne!(short[3], long[3], "a tail is not the block it begins");
}

#[test]
fn a_tail_is_told_from_the_same_bytes_elsewhere() {
    let zeros = [0; 96];
    let lengths: Vec<_> = (65..96).map(|bytes| hashes(&[&zeros[..bytes]])[2]).collect();
    let distinct: std::collections::HashSet<_> = lengths.iter().collect();
    assert_eq!(distinct.len(), lengths.len());
}

#[test]
fn a_huge_prompt_stops_at_the_bound() {
    let text = text(BLOCK_BYTES * (BLOCKS_PER_PROMPT_MAX + 10));
    assert_eq!(hashes(&[&text]).len(), BLOCKS_PER_PROMPT_MAX);
    assert_eq!(block_count(text.len()) as usize, BLOCKS_PER_PROMPT_MAX);
}

#[test]
fn lazy_blocks_are_hashed_only_as_far_as_asked() {
    let text = text(4000);
    let mut out = Vec::new();
    let mut lazy = PromptBlocks::new([&text[..1000], &text[1000..]].into_iter(), SEED, &mut out);
    let mut blocks = &mut lazy;
    assert_eq!(Blocks::get(&mut blocks, 4), Some(hashes(&[&text])[4]));
    assert_eq!(lazy.hashes.len(), 5);
    assert_eq!(lazy.finish(), hashes(&[&text]));
}

#[test]
fn the_seed_changes_every_block_and_the_chain_every_path() {
    let text = text(300);
    let mut other = Vec::new();
    hash_blocks([&text[..]].into_iter(), SEED + 1, &mut other);
    assert!(hashes(&[&text]).iter().zip(&other).all(|(a, b)| a != b));
    assert_ne!(chain(chain(0, 1), 2), chain(chain(0, 2), 1));
    assert_ne!(chain(0, 0), 0);
}
