//! What the prefix cache keeps and what it lets go.

use super::*;

fn tokens(chain: &str) -> Vec<u32> {
    chain.bytes().map(u32::from).collect()
}

/// Computes `chain`, a block a letter, and lets it go; returns how many blocks were resident before.
fn use_chain(cache: &mut PrefixCache, chain: &str) -> usize {
    let keys = cache.keys(&tokens(chain));
    let resident = cache.pin_resident(&keys);
    let pinned = cache.extend(&keys, resident);
    cache.unpin(&keys, pinned);
    resident
}

/// How many blocks of `chain` are resident.
fn resident(cache: &mut PrefixCache, chain: &str) -> usize {
    let keys = cache.keys(&tokens(chain));
    keys.iter().take_while(|key| cache.blocks.contains_key(key)).count()
}

#[test]
fn a_block_is_known_by_all_that_precedes_it() {
    let mut cache = PrefixCache::new(1, 100);
    assert_eq!(use_chain(&mut cache, "abc"), 0);
    assert_eq!(use_chain(&mut cache, "abd"), 2);
    assert_eq!(use_chain(&mut cache, "bc"), 0);
    assert_eq!(use_chain(&mut cache, "abc"), 3);
}

#[test]
fn only_whole_blocks_are_kept() {
    let cache = PrefixCache::new(4, 100);
    assert_eq!(cache.keys(&tokens("0123456")).len(), 1);
}

#[test]
fn the_least_recently_used_leaf_goes_first() {
    let mut cache = PrefixCache::new(1, 5);
    use_chain(&mut cache, "abc");
    use_chain(&mut cache, "xy");
    use_chain(&mut cache, "abc");
    use_chain(&mut cache, "q");
    assert_eq!(resident(&mut cache, "abc"), 3);
    assert_eq!(resident(&mut cache, "xy"), 1, "the leaf y went, its parent stayed");
    use_chain(&mut cache, "r");
    assert_eq!(resident(&mut cache, "xy"), 0);
    assert_eq!(cache.blocks_now(), 5);
}

#[test]
fn pinned_blocks_stay() {
    let mut cache = PrefixCache::new(1, 3);
    let keys = cache.keys(&tokens("abc"));
    assert_eq!(cache.extend(&keys, 0), 3);
    assert_eq!(use_chain(&mut cache, "xyz"), 0);
    assert_eq!(resident(&mut cache, "xyz"), 0, "no room beside the pinned chain");
    cache.flush();
    assert_eq!(resident(&mut cache, "abc"), 3);
    cache.unpin(&keys, 3);
    cache.flush();
    assert_eq!(cache.blocks_now(), 0);
}

#[test]
fn a_chain_longer_than_the_cache_keeps_its_head() {
    let mut cache = PrefixCache::new(1, 2);
    use_chain(&mut cache, "abcd");
    assert_eq!(resident(&mut cache, "abcd"), 2);
}
