//! Consistent-hash rings (Karger et al., 1997), in the two layouts that clients of other routers rely on.
//!
//! A ring is immutable and cut into arcs. A change copies the arcs it touches and shares the others, so one worker
//! more among ten thousand costs its own points and not a million and a half.
//!
//! Invariants
//! - Points of an arc are ordered by position, then worker; arcs are ordered by position.
//! - A worker's points depend on its URL and weight alone, so a ring is the same whatever the order of changes.

use std::sync::Arc;

use md5::Digest;

/// Points per arc beyond which a ring is cut into more arcs.
const ARC_POINTS_MAX: usize = 1024;
/// Points per arc below which a ring is cut into fewer arcs: a search must not cross many empty ones.
const ARC_POINTS_MIN: usize = 32;
/// Points per arc that a new cut aims at.
const ARC_POINTS: usize = 256;

/// How points and keys are placed on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// SGLang's consistent hashing: 150 points a worker, the first eight bytes of BLAKE3 of `URL#i`, little endian.
    Sglang,
    /// vLLM production-stack's session routing (uhashring): 160 points a worker, MD5 of `URL-i`, big endian.
    Uhashring,
}

/// A ring of workers.
#[derive(Clone, Debug)]
pub struct Ring {
    layout: Layout,
    /// A power of two of them, each a share of the positions.
    arcs: Box<[Arc<[Point]>]>,
    points: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: u64,
    worker: u32,
}

/// A worker as a ring knows it.
#[derive(Clone, Copy, Debug)]
pub struct RingMember<'a> {
    /// Index in the fleet.
    pub index: u32,
    /// URL as registered: it decides where the worker stands.
    pub url: &'a str,
    /// Share of points: 1.0 for the usual number.
    pub weight: f64,
}

// === impl Layout ===

impl Layout {
    /// Where a key stands.
    pub fn key(self, key: &[u8]) -> u64 {
        match self {
            Self::Sglang => {
                let hash = blake3::hash(key);
                u64::from_le_bytes(first_eight(hash.as_bytes()))
            }
            // The order of 128-bit numbers is that of their upper halves but for ties, which do not happen.
            Self::Uhashring => u64::from_be_bytes(first_eight(&md5::Md5::digest(key))),
        }
    }

    fn points(self, weight: f64) -> usize {
        let usual = match self {
            Self::Sglang => 150.0,
            Self::Uhashring => 160.0,
        };
        ((usual * weight).round() as usize).max(1)
    }

    fn point(self, url: &str, number: usize) -> u64 {
        match self {
            Self::Sglang => self.key(format!("{url}#{number}").as_bytes()),
            Self::Uhashring => self.key(format!("{url}-{number}").as_bytes()),
        }
    }
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    first
}

// === impl Ring ===

impl Ring {
    /// A ring without workers.
    pub fn new(layout: Layout) -> Self {
        Self { layout, arcs: Box::new([Arc::from([])]), points: 0 }
    }

    /// How keys are placed.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// This ring without the workers of `gone` and with those of `come`.
    #[must_use]
    pub fn changed(&self, gone: &[RingMember<'_>], come: &[RingMember<'_>]) -> Self {
        let points_of = |members: &[RingMember<'_>]| {
            let mut points: Vec<Point> = members.iter().flat_map(|member| self.points_of(member)).collect();
            points.sort_unstable();
            points
        };
        let (gone, come) = (points_of(gone), points_of(come));
        let points = (self.points + come.len()).saturating_sub(gone.len());
        let is_crowded = points > self.arcs.len() * ARC_POINTS_MAX;
        let is_empty = points < self.arcs.len() * ARC_POINTS_MIN && self.arcs.len() > 1;
        let arcs_wanted =
            if is_crowded || is_empty { (points / ARC_POINTS).next_power_of_two() } else { self.arcs.len() };
        let arcs = self.recut(arcs_wanted).into_iter().enumerate().map(|(at, arc)| {
            let (gone, come) = (share(&gone, at, arcs_wanted), share(&come, at, arcs_wanted));
            if gone.is_empty() && come.is_empty() { arc } else { merged(&arc, gone, come) }
        });
        let arcs: Box<[_]> = arcs.collect();
        Self { layout: self.layout, points: arcs.iter().map(|arc| arc.len()).sum(), arcs }
    }

    /// Workers clockwise from `key`, with repeats; endless unless the ring is empty.
    ///
    /// A worker at exactly the key's position comes last, as in uhashring.
    pub fn clockwise(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let first = arc_of(key, self.arcs.len());
        let within = first_after(&self.arcs[first], key, self.arcs.len());
        let rounds = if self.points == 0 { 0 } else { usize::MAX };
        let head = self.arcs[first][within..].iter();
        let rest = (first + 1..self.arcs.len()).chain((0..self.arcs.len()).cycle());
        head.chain(rest.flat_map(|at| self.arcs[at].iter())).map(|point| point.worker).take(rounds)
    }

    /// Points of all workers.
    pub fn points(&self) -> usize {
        self.points
    }

    fn points_of<'a>(&self, member: &RingMember<'a>) -> impl Iterator<Item = Point> + use<'a> {
        let (layout, url, worker) = (self.layout, member.url, member.index);
        (0..layout.points(member.weight)).map(move |number| Point { at: layout.point(url, number), worker })
    }

    /// The arcs of this ring, cut into `wanted` of them.
    fn recut(&self, wanted: usize) -> Vec<Arc<[Point]>> {
        if wanted == self.arcs.len() {
            return self.arcs.to_vec();
        }
        let all: Vec<Point> = self.arcs.iter().flat_map(|arc| arc.iter().copied()).collect();
        (0..wanted).map(|at| Arc::from(share(&all, at, wanted))).collect()
    }
}

/// The first point of an arc behind `key`, which belongs to it.
///
/// Positions are hashes, so where a point stands in its arc is known to a few places: the search begins there and
/// touches two cache lines instead of ten.
fn first_after(arc: &[Point], key: u64, arcs: usize) -> usize {
    let within = key << arcs.trailing_zeros().min(u64::BITS - 1);
    let mut at = ((u128::from(within) * arc.len() as u128) >> u64::BITS) as usize;
    while at > 0 && arc[at - 1].at > key {
        at -= 1;
    }
    while at < arc.len() && arc[at].at <= key {
        at += 1;
    }
    at
}

/// The arc that a position belongs to, of `arcs` (a power of two).
fn arc_of(at: u64, arcs: usize) -> usize {
    match arcs.trailing_zeros() {
        0 => 0,
        bits => (at >> (u64::BITS - bits)) as usize,
    }
}

/// The part of sorted `points` that falls into arc `at` of `arcs`.
fn share(points: &[Point], at: usize, arcs: usize) -> &[Point] {
    let begin = points.partition_point(|point| arc_of(point.at, arcs) < at);
    let end = points.partition_point(|point| arc_of(point.at, arcs) <= at);
    &points[begin..end]
}

fn merged(arc: &[Point], gone: &[Point], come: &[Point]) -> Arc<[Point]> {
    let mut points: Vec<Point> =
        arc.iter().filter(|point| gone.binary_search(point).is_err()).chain(come).copied().collect();
    points.sort_unstable();
    points.dedup();
    Arc::from(points)
}

#[cfg(test)]
mod tests;
