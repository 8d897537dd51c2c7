//! How many connections each client address has, over all shards: a fixed table of atomic words.
//!
//! A word holds a part of the address's hash and a count. A new address takes a free word by compare-and-swap within a
//! few words of where its hash points; if there is none, its connections are not counted rather than refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Words of the table: as many addresses as a gateway has connections, at eight bytes each.
const SLOTS: usize = 1 << 16;
/// Words looked at for one address.
const WINDOW: usize = 16;
/// Bits of a word that count.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Leading bytes of an IPv6 address that tell one site from another; a site has all addresses below them.
const IPV6_SITE_BYTES: usize = 8;

/// Connections by address.
pub struct PeerCounts {
    slots: Box<[AtomicU64]>,
    connections_max: u32,
    seed: u64,
}

/// What became of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is counted here until [`PeerCounts::leave`].
    Counted(Slot),
    /// There was no room to count it.
    Uncounted,
    /// Its address has as many as it may.
    Refused,
}

/// Where a connection is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(u32);

// === impl PeerCounts ===

impl fmt::Debug for PeerCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCounts").field("connections_max", &self.connections_max).finish_non_exhaustive()
    }
}

impl PeerCounts {
    /// Nobody, and so many connections for each address. The seed keeps clients from choosing addresses that meet.
    pub fn new(connections_max: u32, seed: u64) -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, connections_max: connections_max.min(COUNT_MASK as u32), seed }
    }

    /// Counts a connection in, unless its address has its fill. IPv6 addresses of one /64 count together.
    pub fn enter(&self, peer: IpAddr) -> Admission {
        let hash = match peer {
            IpAddr::V4(ip) => xxh3_64_with_seed(&ip.octets(), self.seed),
            IpAddr::V6(ip) => xxh3_64_with_seed(&ip.octets()[..IPV6_SITE_BYTES], self.seed),
        };
        let (start, mark) = (hash as usize % SLOTS, hash & !COUNT_MASK);
        loop {
            let mut free = None;
            let mut found = None;
            for at in (0..WINDOW).map(|step| (start + step) % SLOTS) {
                let word = self.slots[at].load(Ordering::Relaxed);
                if word & COUNT_MASK == 0 {
                    free = free.or(Some((at, word)));
                } else if word & !COUNT_MASK == mark {
                    found = Some((at, word));
                    break;
                }
            }
            let Some((at, word)) = found.or(free) else { return Admission::Uncounted };
            let count = word & COUNT_MASK;
            if count >= u64::from(self.connections_max) {
                return Admission::Refused;
            }
            let next = mark | (count + 1);
            if self.slots[at].compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Admission::Counted(Slot(at as u32));
            }
        }
    }

    /// Counts a connection out.
    pub fn leave(&self, slot: &Slot) {
        self.slots[slot.0 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(admission: Admission) -> Slot {
        match admission {
            Admission::Counted(slot) => slot,
            other => unreachable!("it is counted: {other:?}"),
        }
    }

    #[test]
    fn each_address_has_its_own_bound() {
        let counts = PeerCounts::new(2, 7);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = slot(counts.enter(a));
        let second = slot(counts.enter(a));
        assert_eq!(counts.enter(a), Admission::Refused);
        slot(counts.enter(b));
        counts.leave(&first);
        slot(counts.enter(a));
        assert_eq!(counts.enter(a), Admission::Refused);
        counts.leave(&second);
    }

    #[test]
    fn a_site_of_ipv6_counts_as_one() {
        let counts = PeerCounts::new(1, 7);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        slot(counts.enter(ip("2001:db8::1")));
        assert_eq!(counts.enter(ip("2001:db8::2")), Admission::Refused);
        slot(counts.enter(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn many_addresses_are_told_apart_and_a_full_table_refuses_nobody() {
        let counts = PeerCounts::new(1, 7);
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        let mut slots = Vec::new();
        for n in 0..(2 * SLOTS as u32) {
            match counts.enter(ip(n)) {
                Admission::Counted(slot) => slots.push(slot),
                Admission::Uncounted => {}
                Admission::Refused => unreachable!("address {n} has no other connection"),
            }
        }
        assert!(slots.len() > SLOTS / 2);
        slots.iter().for_each(|slot| counts.leave(slot));
        assert!(counts.slots.iter().all(|word| word.load(Ordering::Relaxed) & COUNT_MASK == 0));
    }

    #[test]
    fn counts_of_many_threads_add_up() {
        let counts = PeerCounts::new(1000, 7);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..20_000_u32 {
                        counts.leave(&slot(counts.enter(IpAddr::from((n % 8).to_be_bytes()))));
                    }
                });
            }
        });
        assert!(counts.slots.iter().all(|word| word.load(Ordering::Relaxed) & COUNT_MASK == 0));
    }
}
